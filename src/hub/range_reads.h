// Parts of files from a hub into memory, several at a time: headers, before the files are here.
//
// Threads  one
// Errors   read_ranges(): kUnsupported (the server knows no ranges), kCorrupt (another length or another
//          range than was asked for), kIo, kNotFound (retries.h), kCancelled
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "hub/http_client.h"
#include "hub/retries.h"

namespace penstock {

struct RangeRead {
  std::string url;
  std::string file_name;    // for sentences
  uint64_t file_bytes = 0;  // as the hub lists it
  uint64_t offset = 0;
  std::span<std::byte> target;  // not empty; within the file
};

Result<void> read_ranges(HttpClient& client, std::span<const RangeRead> reads,
                         const HubSubject& subject, size_t parallel,
                         const std::function<void(const std::string&)>& on_note,
                         const std::stop_token& stop);

}  // namespace penstock
