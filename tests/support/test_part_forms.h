// Forms of parts for the store's tests: as large as what was read, and larger.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "store/expert_table.h"

namespace penstock {

// Back to front, where it is.
class Backwards final : public PartForm {
 public:
  explicit Backwards(uint64_t bytes) : bytes_(bytes) {}
  uint64_t bytes() const override { return bytes_; }
  void lay_out(std::span<const std::byte> payload, std::span<std::byte> out) const override {
    EXPECT_EQ(payload.size(), bytes_);
    EXPECT_GE(payload.data(), out.data());
    const std::vector<std::byte> copy(payload.rbegin(), payload.rend());
    std::ranges::copy(copy, out.begin());
  }

 private:
  const uint64_t bytes_;
};

// Three times each byte: more than any window has room for.
class Tripled final : public PartForm {
 public:
  explicit Tripled(uint64_t bytes) : bytes_(bytes) {}
  uint64_t bytes() const override { return 3 * bytes_; }
  void lay_out(std::span<const std::byte> payload, std::span<std::byte> out) const override {
    const std::vector<std::byte> copy(payload.begin(), payload.end());
    for (size_t i = 0; i < out.size(); ++i) out[i] = copy[i / 3];
  }

 private:
  const uint64_t bytes_;
};

}  // namespace penstock
