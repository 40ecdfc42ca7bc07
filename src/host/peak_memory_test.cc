#include "host/peak_memory.h"

#include <gtest/gtest.h>

#include "base/memory.h"
#include "host/memory_limits.h"

namespace penstock {
namespace {

TEST(PeakMemory, reset_forgets_memory_that_was_given_back) {
  constexpr uint64_t kBytes = 64 << 20;
  { const auto memory = AlignedMemory::create(kBytes, "a test", Prefault::kYes); }
  const uint64_t before = peak_resident_bytes();
  if (!reset_peak_resident_bytes()) GTEST_SKIP() << "this kernel does not let the peak be reset";
  EXPECT_LT(peak_resident_bytes() + kBytes / 2, before);
  { const auto memory = AlignedMemory::create(kBytes, "a test", Prefault::kYes); }
  EXPECT_GT(peak_resident_bytes() + kBytes / 2, before);
}

}  // namespace
}  // namespace penstock
