// Reads by a team of threads, each with one blocking call at a time: works everywhere, and the
// fallback where io_uring is refused.

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "io/read_progress.h"
#include "io/readers.h"

namespace penstock {
namespace {

class ThreadReader final : public Reader {
 public:
  ThreadReader(int num_threads, int depth) : depth_(depth) {
    threads_.reserve(static_cast<size_t>(num_threads));
    for (int i = 0; i < num_threads; ++i) {
      threads_.emplace_back([this](std::stop_token stop) { work(stop); });
    }
  }

  ~ThreadReader() override { PENSTOCK_CHECK(in_flight_ == 0); }

  std::string description() const override { return fmt::format("{} threads", threads_.size()); }
  int capacity() const override { return depth_; }
  int in_flight() const override { return in_flight_; }

  void submit(std::span<ReadRequest* const> requests) override {
    if (requests.empty()) return;
    in_flight_ += static_cast<int>(requests.size());
    PENSTOCK_CHECK(in_flight_ <= depth_);
    for (ReadRequest* request : requests) begin_read(*request);
    {
      const std::lock_guard lock(mutex_);
      waiting_.insert(waiting_.end(), requests.begin(), requests.end());
    }
    if (requests.size() == 1) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
  }

  void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) override {
    if (in_flight_ == 0) return;
    std::unique_lock lock(mutex_);
    if (timeout.count() > 0) {
      arrived_.wait_for(lock, timeout, [this] { return !finished_.empty(); });
    }
    in_flight_ -= static_cast<int>(finished_.size());
    finished.insert(finished.end(), finished_.begin(), finished_.end());
    finished_.clear();
  }

 private:
  void work(std::stop_token stop) {
    for (;;) {
      ReadRequest* request = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, stop, [this] { return !waiting_.empty(); });
        if (waiting_.empty()) return;
        request = waiting_.front();
        waiting_.pop_front();
      }
      read_to_the_end(*request);
      {
        const std::lock_guard lock(mutex_);
        finished_.push_back(request);
      }
      arrived_.notify_one();
    }
  }

  const int depth_;
  int in_flight_ = 0;  // of the owner's thread alone
  std::mutex mutex_;   // guards the two lists
  std::condition_variable_any wake_;
  std::condition_variable arrived_;
  std::deque<ReadRequest*> waiting_;
  std::vector<ReadRequest*> finished_;
  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

}  // namespace

std::unique_ptr<Reader> make_thread_reader(int num_threads, int depth) {
  return std::make_unique<ThreadReader>(num_threads, depth);
}

}  // namespace penstock
