// Verifying a checkpoint that is run in place: every byte of its weights read once, experts compared with
// the checksums of their first reads (store/expert_checksums.h), and those made that are missing.
//
// So a disk that cannot read some of it is found before a run, and what has changed since it was first
// read. Whether the first read was right cannot be told, and resident weights have no checksums.
//
// Memory   One plane of an expert.
// Threads  Call from one thread.
// Errors   as ModelSource::open(); kIo of keeping the checksums; kCancelled. Bytes that are wrong or
//          cannot be read are no error of it but faults.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct SourceReport {
  uint64_t bytes = 0;     // read
  uint64_t compared = 0;  // parts of experts with a checksum of an earlier read
  uint64_t learned = 0;   // parts whose checksum was made now
  uint64_t num_faults = 0;
  std::vector<std::string> faults;  // the first 20, a sentence each
  std::string note;                 // why checksums that were there could not be used; else empty
};

// checksum_file: where they are kept; empty: nowhere.
Result<SourceReport> verify_source(
    Storage& storage, const std::string& path, const std::string& checksum_file,
    const std::function<void(uint64_t done, uint64_t total)>& progress,
    const std::stop_token& stop);

}  // namespace penstock
