#include "io/read_progress.h"

#include <algorithm>
#include <cerrno>

namespace penstock {

int64_t steady_now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

void begin_read(ReadRequest& request) {
  request.error = 0;
  request.bytes_done = 0;
  request.repeats = 0;
  request.submitted_ns = steady_now_ns();
  request.finished_ns = 0;
}

ReadRest rest_of(const ReadRequest& request) {
  return {request.offset + request.bytes_done,
          {request.target + request.bytes_done, request.bytes - request.bytes_done}};
}

bool record_read(ReadRequest& request, int64_t result) {
  if (result < 0) {
    const int error = static_cast<int>(-result);
    const bool transient = error == EINTR || error == EAGAIN;
    if (transient && ++request.repeats <= kTransientRepeatsMax) return false;
    request.error = error;
    return true;
  }
  const uint64_t wanted = request.bytes - request.bytes_done;
  uint64_t got = std::min(static_cast<uint64_t>(result), wanted);
  if (request.bytes_needed > 0 && request.bytes_done + got >= request.bytes_needed) {
    request.bytes_done += got;
    return true;
  }
  if (got < wanted) got -= got % request.file->alignment();
  request.bytes_done += got;
  if (request.bytes_done == request.bytes) return true;
  if (got > 0) {
    request.repeats = 0;
    return false;
  }
  // Nothing at all is the end of the file. Less than one aligned block is a short read the first
  // times, and the ragged end of a truncated file when it stays so.
  if (result > 0 && ++request.repeats <= 2) return false;
  request.error = ENODATA;
  return true;
}

void read_to_the_end(ReadRequest& request) {
  for (;;) {
    const ReadRest rest = rest_of(request);
    if (record_read(request, request.file->try_read(rest.offset, rest.target))) break;
  }
  request.finished_ns = steady_now_ns();
}

bool drain(Reader& reader, std::chrono::nanoseconds patience) {
  std::vector<ReadRequest*> ended;
  int64_t begin_ns = steady_now_ns();
  while (reader.in_flight() > 0) {
    ended.clear();
    reader.reap(patience, ended);  // may return early, for a signal
    const int64_t now_ns = steady_now_ns();
    if (!ended.empty()) {
      begin_ns = now_ns;
    } else if (now_ns - begin_ns >= patience.count()) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock
