// What the result of one read call means for its request: go on, finished, or failed.
//
// The one home of the rules that all readers share: a short read is continued, EINTR and EAGAIN are
// repeated (a thousand times, so that a kernel that answers nothing else cannot hang us), the end
// of the file is ENODATA where it comes before what was needed. Direct reads continue at a multiple
// of the alignment: the bytes after it are read again.
#pragma once

#include <cstdint>
#include <span>

#include "io/reader.h"

namespace penstock {

inline constexpr int kTransientRepeatsMax = 1000;

int64_t steady_now_ns();

// Forgets the results of an earlier run and stamps the time.
void begin_read(ReadRequest& request);

// What is left to read of a request: the arguments of the next call.
struct ReadRest {
  uint64_t offset;
  std::span<std::byte> target;
};
ReadRest rest_of(const ReadRequest& request);

// Records `result` (bytes read, or minus errno). True when the request has ended, well or badly.
bool record_read(ReadRequest& request, int64_t result);

// All of it with blocking calls, on this thread.
void read_to_the_end(ReadRequest& request);

// Waits until nothing is in flight, as long as reads end. False when none did for `patience`: what
// is left may never end, and its targets must not be given back.
bool drain(Reader& reader, std::chrono::nanoseconds patience);

}  // namespace penstock
