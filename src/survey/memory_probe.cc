#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/thread.h"
#include "survey/elapsed.h"
#include "survey/probes.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kBlockBytes = 1 << 20;  // a task: far more than handing it out costs

// Eight chains, so that the additions are never what is waited for.
uint64_t sum_of(std::span<const std::byte> bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(bytes.data());
  const size_t count = bytes.size() / sizeof(uint64_t);
  uint64_t sums[8] = {};
  for (size_t i = 0; i < count; i += 8) {
    for (size_t chain = 0; chain < 8; ++chain) sums[chain] += words[i + chain];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

// Bytes per second of `pass` (over `bytes` each time), in GB/s.
template <class Pass>
double rate_of(uint64_t bytes, double seconds, const std::stop_token& stop, const Pass& pass) {
  pass();  // wakes the team
  const Clock::time_point start = Clock::now();
  uint64_t done = 0;
  double elapsed_s = 0;
  do {
    pass();
    done += bytes;
    elapsed_s = seconds_since(start);
  } while (elapsed_s < seconds && !stop.stop_requested());
  return static_cast<double>(done) / elapsed_s / 1e9;
}

}  // namespace

Result<MemoryPoint> probe_memory(int threads, uint64_t buffer_bytes, double seconds,
                                 std::stop_token stop) {
  const uint64_t half_blocks = std::max<uint64_t>(1, buffer_bytes / 2 / kBlockBytes);
  const uint64_t bytes = 2 * half_blocks * kBlockBytes;
  AlignedMemory memory =
      PENSTOCK_TRY(AlignedMemory::create(bytes, "measuring memory", Prefault::kYes));
  // A page that was never written may be one shared page of zeros, which the caches hold.
  std::memset(memory.bytes().data(), 1, bytes);
  ThreadPool pool(threads);
  PENSTOCK_TRY(check_team(pool, threads));
  std::atomic<uint64_t> sink{0};
  const auto read = [&] {
    pool.run(static_cast<int64_t>(2 * half_blocks), [&](int64_t block, int) {
      const uint64_t sum =
          sum_of(memory.bytes().subspan(static_cast<uint64_t>(block) * kBlockBytes, kBlockBytes));
      sink.fetch_add(sum, std::memory_order_relaxed);
    });
  };
  const auto copy = [&] {
    pool.run(static_cast<int64_t>(half_blocks), [&](int64_t block, int) {
      std::byte* source = memory.bytes().data() + static_cast<uint64_t>(block) * kBlockBytes;
      std::memcpy(source + half_blocks * kBlockBytes, source, kBlockBytes);
    });
  };
  MemoryPoint point;
  point.threads = threads;
  point.read_gbps = rate_of(bytes, seconds / 2, stop, read);
  point.copy_gbps = rate_of(half_blocks * kBlockBytes, seconds / 2, stop, copy);
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "measuring was stopped"};
  return point;
}

Result<PagePoint> probe_pages(int threads, uint64_t buffer_bytes, double seconds,
                              std::stop_token stop) {
  constexpr uint64_t kPartBytes = kBlockBytes / 4;
  constexpr int kTurns = 4;  // small, large, large, small
  std::vector<uint64_t> parts(std::max<uint64_t>(1, buffer_bytes / 2 / kPartBytes));
  std::iota(parts.begin(), parts.end(), 0);
  std::shuffle(parts.begin(), parts.end(), std::mt19937_64(1));
  const uint64_t bytes = parts.size() * kPartBytes;
  ThreadPool pool(threads);
  PENSTOCK_TRY(check_team(pool, threads));
  std::vector<AlignedMemory> memories;  // [Pages]
  for (const Pages pages : {Pages::kLargest, Pages::kSmall}) {
    memories.push_back(
        PENSTOCK_TRY(AlignedMemory::create(bytes, "measuring memory", Prefault::kYes, pages)));
    std::memset(memories.back().bytes().data(), 1, bytes);
  }
  std::atomic<uint64_t> sink{0};
  std::vector<double> rates[2];
  for (int turn = 0; turn < kTurns; ++turn) {
    const size_t which = turn == 0 || turn == kTurns - 1 ? 1 : 0;
    const std::span<const std::byte> memory = memories[which].bytes();
    rates[which].push_back(rate_of(bytes, seconds / kTurns, stop, [&] {
      pool.run(std::ssize(parts), [&](int64_t task, int) {
        const uint64_t begin = parts[static_cast<size_t>(task)] * kPartBytes;
        sink.fetch_add(sum_of(memory.subspan(begin, kPartBytes)), std::memory_order_relaxed);
      });
    }));
  }
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "measuring was stopped"};
  const auto [large_low, large_high] = std::ranges::minmax(rates[0]);
  const auto [small_low, small_high] = std::ranges::minmax(rates[1]);
  return PagePoint{.small_gbps = (small_low + small_high) / 2,
                   .largest_gbps = (large_low + large_high) / 2,
                   .differ = small_low > large_high || large_low > small_high};
}

double probe_dispatch_us(int threads) {
  constexpr int kRounds = 2000;
  ThreadPool pool(threads);
  std::atomic<int64_t> sink{0};
  const auto round = [&] {
    pool.run(4 * threads, [&](int64_t, int) { sink.fetch_add(1, std::memory_order_relaxed); });
  };
  round();
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < kRounds; ++i) round();
  return seconds_since(start) * 1e6 / kRounds;
}

}  // namespace penstock
