// A reader for tests that behaves as badly as a device may: it answers late, in random order, with
// errors, or not at all.
//
// Reads happen on the caller's thread inside reap(), in an order drawn from the seed, so a test is
// repeatable. How late an answer comes is counted in calls of reap(), not in time.
//
//   FakeFaults faults;
//   faults.fail_read(3, EIO, Lasting::kOnce);   // the 4th read submitted fails, its repeat works
//   faults.stall_read(5);                       // the 6th stays open until release_stalled()
//   FakeReader reader({.seed = 7, .depth = 16}, &faults);
//
// Threads  One, as every reader; release_stalled() from any.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "io/reader.h"

namespace penstock {

enum class Lasting {
  kOnce,    // the repeat of the same read works
  kForGood  // every read of that place fails until heal()
};

// Shared by a test and the reader that it has given away.
class FakeFaults {
 public:
  void fail_read(uint64_t nth, int error, Lasting lasting);  // nth: 0 is the first ever submitted
  void stall_read(uint64_t nth);
  void release_stalled() { is_released_.store(true); }
  void heal();
  uint64_t reads_submitted() const { return submitted_; }
  uint64_t most_in_flight() const { return most_in_flight_; }

 private:
  friend class FakeReader;
  using Place = std::pair<const StorageFile*, uint64_t>;
  struct Failure {
    int error;
    Lasting lasting;
  };
  std::map<uint64_t, Failure> failures_;  // by submission
  std::map<Place, int> broken_places_;
  std::set<uint64_t> stalls_;
  std::atomic<bool> is_released_{false};
  uint64_t submitted_ = 0;
  uint64_t most_in_flight_ = 0;
};

struct FakeReaderOptions {
  uint64_t seed = 1;
  int depth = 64;
  int delay_reaps_max = 3;  // a read ends at the latest in the so-manyth reap() after this one
};

class FakeReader final : public Reader {
 public:
  // `faults` outlives the reader; nullptr: none.
  FakeReader(const FakeReaderOptions& options, FakeFaults* faults);
  ~FakeReader() override;

  std::string description() const override;
  int capacity() const override { return options_.depth; }
  int in_flight() const override { return static_cast<int>(open_.size()); }
  void submit(std::span<ReadRequest* const> requests) override;
  void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) override;

 private:
  struct Open {
    ReadRequest* request;
    int error;       // to be answered instead of reading; 0: read
    int reaps_left;  // until it may end
    bool is_stalled;
  };

  void answer(const Open& open);

  FakeReaderOptions options_;
  FakeFaults own_faults_;
  FakeFaults* faults_;
  std::mt19937_64 random_;
  std::vector<Open> open_;
};

}  // namespace penstock
