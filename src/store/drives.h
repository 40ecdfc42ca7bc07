// Drives that hold the same bytes, and which of them a read goes to: the one from which it comes
// soonest, and not one that fails.
//
// How long a read will take follows from what a drive still has to bring and from its rate: what was
// asked of it until a read ended, over the time since that read was asked for. An end that is noticed
// late makes that rate too low, never too high, so what is higher counts sooner than what is lower.
// A drive of which nothing is known, or nothing of late, is taken to be as fast as the fastest, and
// so is tried. After three failures in a row a drive rests for a minute.
//
// Drive 0 holds the model's own files, the others their copies.
//
// Threads  one
// Memory   allocated in the constructor
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock {

inline constexpr int kDrivesMax = 8;

struct DriveStats {
  uint64_t reads = 0;  // that ended
  uint64_t bytes = 0;  // of those that ended well
  uint64_t failures = 0;
};

class Drives {
 public:
  explicit Drives(int count);

  int count() const { return static_cast<int>(drives_.size()); }

  // Not one of those in the set of bits `without`, unless those are all; one that rests only where no
  // other is left.
  int choose(uint64_t bytes, uint32_t without, int64_t now_ns) const;

  // A read of so many bytes was asked of the drive; what to hand back to end().
  struct Asked {
    uint64_t bytes = 0;
    uint64_t outstanding = 0;  // of the drive, this read included
    int64_t at_ns = 0;
  };
  Asked begin(int drive, uint64_t bytes, int64_t now_ns);
  void end(int drive, const Asked& asked, bool is_good, int64_t now_ns);

  bool is_resting(int drive, int64_t now_ns) const { return now_ns < at(drive).rests_until_ns; }
  double bytes_per_second(int drive) const { return at(drive).rate; }  // 0: not known
  const DriveStats& stats(int drive) const { return at(drive).stats; }
  void reset_stats();

 private:
  struct Drive {
    uint64_t outstanding = 0;
    double rate = 0;
    int64_t last_end_ns = 0;
    int64_t rests_until_ns = 0;
    int failures_in_a_row = 0;
    DriveStats stats;
  };

  const Drive& at(int drive) const { return drives_[static_cast<size_t>(drive)]; }
  Drive& at(int drive) { return drives_[static_cast<size_t>(drive)]; }
  double rate_to_expect(const Drive& drive, int64_t now_ns) const;

  std::vector<Drive> drives_;
};

}  // namespace penstock
