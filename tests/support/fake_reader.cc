#include "support/fake_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/check.h"
#include "io/read_progress.h"

namespace penstock {

void FakeFaults::fail_read(uint64_t nth, int error, Lasting lasting) {
  failures_[nth] = {error, lasting};
}

void FakeFaults::stall_read(uint64_t nth) {
  stalls_.insert(nth);
}

void FakeFaults::heal() {
  failures_.clear();
  broken_places_.clear();
  stalls_.clear();
}

FakeReader::FakeReader(const FakeReaderOptions& options, FakeFaults* faults)
    : options_(options), faults_(faults != nullptr ? faults : &own_faults_), random_(options.seed) {
  PENSTOCK_CHECK(options.depth > 0 && options.delay_reaps_max >= 0);
}

FakeReader::~FakeReader() {
  PENSTOCK_CHECK(open_.empty());
}

std::string FakeReader::description() const {
  return fmt::format("simulated, depth {}", options_.depth);
}

void FakeReader::submit(std::span<ReadRequest* const> requests) {
  PENSTOCK_CHECK(in_flight() + std::ssize(requests) <= options_.depth);
  for (ReadRequest* request : requests) {
    begin_read(*request);
    const uint64_t nth = faults_->submitted_++;
    const FakeFaults::Place place(request->file, request->offset);
    int error = 0;
    if (const auto failure = faults_->failures_.find(nth); failure != faults_->failures_.end()) {
      error = failure->second.error;
      if (failure->second.lasting == Lasting::kForGood) faults_->broken_places_[place] = error;
    }
    if (const auto broken = faults_->broken_places_.find(place);
        broken != faults_->broken_places_.end()) {
      error = broken->second;
    }
    const int delay =
        static_cast<int>(random_() % (static_cast<uint64_t>(options_.delay_reaps_max) + 1));
    open_.push_back({.request = request,
                     .error = error,
                     .reaps_left = delay,
                     .is_stalled = faults_->stalls_.count(nth) > 0});
  }
  faults_->most_in_flight_ = std::max<uint64_t>(faults_->most_in_flight_, open_.size());
}

void FakeReader::answer(const Open& open) {
  if (open.error == 0) {
    read_to_the_end(*open.request);
  } else {
    open.request->error = open.error;
    open.request->finished_ns = steady_now_ns();
  }
}

void FakeReader::reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) {
  std::shuffle(open_.begin(), open_.end(), random_);
  const bool must_wait = timeout.count() > 0;
  std::vector<Open> left;
  bool has_finished = false;
  int reaps_passed = 1;
  const auto can_end = [this](const Open& open) {
    return !open.is_stalled || faults_->is_released_.load();
  };
  if (must_wait && std::any_of(open_.begin(), open_.end(), can_end)) {
    // A reap that waits lasts until the first answer.
    int first = options_.delay_reaps_max;
    for (const Open& open : open_) {
      if (can_end(open)) first = std::min(first, open.reaps_left);
    }
    reaps_passed = std::max(first, 1);
  }
  for (Open& open : open_) {
    open.reaps_left -= reaps_passed;
    if (!can_end(open) || open.reaps_left > 0) {
      left.push_back(open);
      continue;
    }
    answer(open);
    finished.push_back(open.request);
    has_finished = true;
  }
  open_ = std::move(left);
  if (must_wait && !has_finished && !open_.empty()) std::this_thread::sleep_for(timeout);
}

}  // namespace penstock
