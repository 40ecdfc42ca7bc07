#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/memory.h"
#include "io/read_progress.h"
#include "io/system_error.h"
#include "survey/elapsed.h"
#include "survey/probes.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

// Visits 0 .. count - 1 once each, far apart, then again.
class Places {
 public:
  explicit Places(uint64_t count) : count_(count), step_(far_step(count)) {}

  bool starts_round() const { return taken_ % count_ == 0; }
  uint64_t take() {
    ++taken_;
    place_ = (place_ + step_) % count_;
    return place_;
  }

 private:
  // Near the golden section of count and without a common divisor, so that every place comes once.
  static uint64_t far_step(uint64_t count) {
    auto step = static_cast<uint64_t>(0.618 * static_cast<double>(count)) + 1;
    while (std::gcd(step, count) != 1) ++step;
    return step;
  }

  uint64_t count_, step_;
  uint64_t place_ = 0, taken_ = 0;
};

double percentile(std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
}

// How many reads of this size the file has room for; none is an error.
Result<uint64_t> places_in(const StorageFile& file, uint64_t read_bytes) {
  PENSTOCK_CHECK(read_bytes % kDirectAlignmentMax == 0);
  const uint64_t file_bytes = PENSTOCK_TRY(file.stat()).bytes;
  if (file_bytes >= read_bytes) return file_bytes / read_bytes;
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} has {} bytes, too few for reads of {}",
                                                        file.path(), file_bytes, read_bytes)};
}

Error read_failed(const ReadRequest& request) {
  return {ErrorCode::kIo,
          fmt::format("read of {} bytes at {:#x} of {}: {}", request.bytes, request.offset,
                      request.file->path(), reason_of(request.error))};
}

// So long a single read may take.
constexpr std::chrono::seconds kStallLimit(60);

// So long reads are waited for that nobody wants any more.
constexpr std::chrono::seconds kPatience(2);

Error no_answer(const StorageFile& file) {
  return {ErrorCode::kIo,
          fmt::format("no answer from the disk of {} for {} s", file.path(), kStallLimit.count())};
}

// Waits for everything in flight: buffers may not be freed before, nor ever where no answer comes.
Result<void> end_reads(Reader& reader, const StorageFile& file, AlignedMemory& memory,
                       std::chrono::nanoseconds patience) {
  if (drain(reader, patience)) return {};
  static auto* const kept = new std::vector<AlignedMemory>;
  kept->push_back(std::move(memory));
  return no_answer(file);
}

}  // namespace

Result<FlashPoint> probe_flash(Reader& reader, const StorageFile& file, const FlashCase& how,
                               std::stop_token stop) {
  PENSTOCK_CHECK(how.depth >= 1 && how.depth <= reader.capacity());
  const uint64_t num_places = PENSTOCK_TRY(places_in(file, how.read_bytes));
  const auto depth = static_cast<size_t>(how.depth);
  AlignedMemory memory = PENSTOCK_TRY(
      AlignedMemory::create(depth * how.read_bytes, "measuring the disk", Prefault::kYes));
  std::vector<ReadRequest> requests(depth);
  Places places(num_places);
  const auto submit = [&](ReadRequest& request) {
    if (file.alignment() == 1 && places.starts_round())
      file.drop_cached(0, num_places * how.read_bytes);
    request.file = &file;
    request.offset = places.take() * how.read_bytes;
    request.bytes = how.read_bytes;
    ReadRequest* const one[] = {&request};
    reader.submit(one);
  };

  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < depth; ++i) {
    requests[i].target = memory.bytes().data() + i * how.read_bytes;
    submit(requests[i]);
  }
  std::vector<double> latencies_us;
  std::vector<ReadRequest*> finished;
  double elapsed_s = 0;
  while (elapsed_s < how.seconds && !stop.stop_requested()) {
    finished.clear();
    reader.reap(std::chrono::milliseconds(100), finished);
    elapsed_s = seconds_since(start);
    for (ReadRequest* request : finished) {
      if (request->error != 0) {
        static_cast<void>(end_reads(reader, file, memory, kStallLimit).has_value());
        return read_failed(*request);
      }
      latencies_us.push_back(static_cast<double>(request->finished_ns - request->submitted_ns) /
                             1e3);
      if (elapsed_s < how.seconds) submit(*request);
    }
    // A disk too slow for a single read in the time given is waited for.
    const bool may_wait = Clock::now() - start < kStallLimit;
    if (latencies_us.empty() && may_wait) elapsed_s = std::min(elapsed_s, 0.5 * how.seconds);
  }
  const bool has_stalled = latencies_us.empty() && !stop.stop_requested();
  const bool hurries = has_stalled || stop.stop_requested();
  PENSTOCK_TRY(end_reads(reader, file, memory, hurries ? kPatience : kStallLimit));
  if (has_stalled) return no_answer(file);
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "measuring was stopped"};
  std::sort(latencies_us.begin(), latencies_us.end());
  return FlashPoint{.read_bytes = how.read_bytes,
                    .depth = how.depth,
                    .is_direct = file.alignment() > 1,
                    .gbps = static_cast<double>(latencies_us.size() * how.read_bytes) /
                            seconds_since(start) / 1e9,
                    .p50_us = percentile(latencies_us, 0.50),
                    .p99_us = percentile(latencies_us, 0.99)};
}

Result<BurstPoint> probe_burst(Reader& reader, const StorageFile& file, const BurstCase& how,
                               std::stop_token stop) {
  constexpr auto kPause = std::chrono::milliseconds(2);  // about as long as a layer computes
  PENSTOCK_CHECK(how.reads >= 1 && how.reads <= reader.capacity());
  const uint64_t num_places = PENSTOCK_TRY(places_in(file, how.read_bytes));
  const auto reads = static_cast<size_t>(how.reads);
  AlignedMemory memory = PENSTOCK_TRY(
      AlignedMemory::create(reads * how.read_bytes, "measuring the disk", Prefault::kYes));
  std::vector<ReadRequest> requests(reads);
  std::vector<ReadRequest*> batch, finished;
  for (size_t i = 0; i < reads; ++i) {
    requests[i].file = &file;
    requests[i].target = memory.bytes().data() + i * how.read_bytes;
    requests[i].bytes = how.read_bytes;
    batch.push_back(&requests[i]);
  }
  Places places(num_places);
  std::vector<double> times_us;
  const Clock::time_point begin = Clock::now();
  do {
    for (ReadRequest& request : requests) {
      if (file.alignment() == 1 && places.starts_round()) {
        file.drop_cached(0, num_places * how.read_bytes);
      }
      request.offset = places.take() * how.read_bytes;
    }
    std::this_thread::sleep_for(kPause);
    const Clock::time_point start = Clock::now();
    reader.submit(batch);
    finished.clear();
    const auto is_waiting = [&] {
      return reader.in_flight() > 0 && !stop.stop_requested() && Clock::now() - start < kStallLimit;
    };
    while (is_waiting()) reader.reap(std::chrono::milliseconds(100), finished);
    PENSTOCK_TRY(end_reads(reader, file, memory, kPatience));
    times_us.push_back(seconds_since(start) * 1e6);
    for (const ReadRequest* request : finished) {
      if (request->error != 0) return read_failed(*request);
    }
  } while (seconds_since(begin) < how.seconds && !stop.stop_requested());
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "measuring was stopped"};
  std::sort(times_us.begin(), times_us.end());
  return BurstPoint{
      .read_bytes = how.read_bytes, .reads = how.reads, .us = percentile(times_us, 0.50)};
}

}  // namespace penstock
