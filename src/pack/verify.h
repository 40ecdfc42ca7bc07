// Verifying: every byte of a packed model against its checksums.
//
// Sums cover payloads; the padding around them must be zeros. So one changed bit anywhere in the
// files of the manifest is found. Faults are collected, not fatal: the report says how much of a
// model is damaged.
//
// Memory   A few MiB and one expert.
// Threads  Call from one thread.
// Errors   What Container::open returns when the directory is no model; kCorrupt when the sums
//          themselves are damaged; kCancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

inline constexpr size_t kFaultsToldMax = 20;

struct VerifyReport {
  uint64_t bytes = 0;  // read and compared
  uint64_t num_faults = 0;
  std::vector<std::string> faults;  // the first kFaultsToldMax, a sentence each
};

using VerifyCallback = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

Result<VerifyReport> verify_model(Storage& storage, const std::string& directory,
                                  const VerifyCallback& progress, std::stop_token stop);

}  // namespace penstock
