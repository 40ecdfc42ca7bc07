// Parts of files from a hub into memory, several at a time: headers, before the files are here.
//
// Where a file really is, the hub is asked once: its answer is asked for the other ranges, until it is
// not good any more. Hubs count what they are asked for.
//
// Threads  one
// Memory   of the ranges that are on their way
// Errors   read(): kUnsupported (the server knows no ranges), kCorrupt (another length or another
//          range than was asked for), kIo, kNotFound (retries.h), kCancelled, and those of `take`
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/http_client.h"
#include "hub/retries.h"

namespace penstock {

struct ByteRange {
  uint64_t offset = 0, bytes = 0;

  uint64_t end() const { return offset + bytes; }
  bool operator==(const ByteRange&) const = default;
};

// A request takes a server as long as so many bytes between two ranges.
inline constexpr uint64_t kRangeGapBytes = 64 << 10;
// Of ranges and gaps that come with one request.
inline constexpr uint64_t kJoinedBytesMax = 4 << 20;

// Without overlaps, ascending.
std::vector<ByteRange> merged(std::vector<ByteRange> ranges);

// How many of them, from the first on, come with one request; 1 at least. `ranges`: merged, not empty.
size_t num_joined(std::span<const ByteRange> ranges);

struct RangeRead {
  std::string url;
  std::string file_name;    // for sentences
  uint64_t file_bytes = 0;  // as the hub lists it
  ByteRange range;          // not empty; within the file
};

class RangeReader {
 public:
  // Of reads[index], which came; its bytes are gone afterwards.
  using Take = std::function<Result<void>(size_t index, std::span<const std::byte> bytes)>;

  RangeReader(HttpClient& client, HubSubject subject, size_t parallel,
              std::function<void(const std::string&)> on_note)
      : client_(client),
        subject_(std::move(subject)),
        parallel_(parallel),
        on_note_(std::move(on_note)) {}

  // `take` is told of each as it comes, in any order.
  Result<void> read(std::span<const RangeRead> reads, const Take& take,
                    const std::stop_token& stop);

 private:
  HttpClient& client_;
  HubSubject subject_;
  size_t parallel_;
  std::function<void(const std::string&)> on_note_;
  std::map<std::string, std::string> addresses_;  // after redirects, by RangeRead::url
};

}  // namespace penstock
