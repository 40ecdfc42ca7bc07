#include "store/drives.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

constexpr int64_t kSecond_ns = 1'000'000'000;
constexpr int kFailuresMax = 3;
constexpr int64_t kRest_ns = 60 * kSecond_ns;
// A rate that was last seen so long ago says little: the drive may have been slow for a moment.
constexpr int64_t kRateIsOld_ns = 2 * kSecond_ns;
// Of a sample in the rate: what is higher was seen, what is lower may have been noticed late.
constexpr double kRise = 0.25;
constexpr double kFall = 0.03;

}  // namespace

Drives::Drives(int count) : drives_(static_cast<size_t>(count)) {
  PENSTOCK_CHECK(count >= 1 && count <= kDrivesMax);
}

double Drives::rate_to_expect(const Drive& drive, int64_t now_ns) const {
  const bool is_known = drive.rate > 0 && now_ns - drive.last_end_ns < kRateIsOld_ns;
  if (is_known || drive.outstanding > 0) return std::max(drive.rate, 1.0);
  return std::max(1.0, std::ranges::max(drives_, {}, &Drive::rate).rate);
}

int Drives::choose(uint64_t bytes, uint32_t without, int64_t now_ns) const {
  int best = 0;
  int best_rank = 0;
  double best_seconds = 0;
  for (int i = 0; i < count(); ++i) {
    const Drive& drive = at(i);
    const int rank = (without >> i & 1u) != 0 ? 2 : is_resting(i, now_ns) ? 1 : 0;
    const double seconds =
        static_cast<double>(drive.outstanding + bytes) / rate_to_expect(drive, now_ns);
    const bool is_better = rank < best_rank || (rank == best_rank && seconds < best_seconds);
    if (i > 0 && !is_better) continue;
    best = i;
    best_rank = rank;
    best_seconds = seconds;
  }
  return best;
}

Drives::Asked Drives::begin(int drive, uint64_t bytes, int64_t now_ns) {
  at(drive).outstanding += bytes;
  return {bytes, at(drive).outstanding, now_ns};
}

void Drives::end(int drive_index, const Asked& asked, bool is_good, int64_t now_ns) {
  Drive& drive = at(drive_index);
  PENSTOCK_CHECK(drive.outstanding >= asked.bytes);
  drive.outstanding -= asked.bytes;
  ++drive.stats.reads;
  if (!is_good) {
    ++drive.stats.failures;
    if (++drive.failures_in_a_row >= kFailuresMax) drive.rests_until_ns = now_ns + kRest_ns;
    return;
  }
  drive.failures_in_a_row = 0;
  drive.stats.bytes += asked.bytes;
  const double seconds = static_cast<double>(std::max<int64_t>(now_ns - asked.at_ns, 1)) /
                         static_cast<double>(kSecond_ns);
  const double sample = static_cast<double>(asked.outstanding) / seconds;
  const double weight = drive.rate == 0 ? 1 : sample > drive.rate ? kRise : kFall;
  drive.rate += (sample - drive.rate) * weight;
  drive.last_end_ns = now_ns;
}

void Drives::reset_stats() {
  for (Drive& drive : drives_) drive.stats = {};
}

}  // namespace penstock
