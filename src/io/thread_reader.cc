// Reads by a team of threads, each with one blocking call at a time: works everywhere, and the
// fallback where io_uring is refused.

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "base/thread.h"
#include "io/read_progress.h"
#include "io/readers.h"

namespace penstock {
namespace {

// What the threads share. Counted by each of them, because a thread that hangs in the kernel
// outlives the reader that gave up on it.
struct Team {
  std::mutex mutex;  // guards all of it
  std::condition_variable_any wake;
  std::condition_variable arrived;
  std::deque<ReadRequest*> waiting;
  std::vector<ReadRequest*> finished;
  bool is_abandoned = false;
};

// Reads to the end with blocking calls. False when the reader was given up meanwhile: then the
// request is not ours to touch.
bool read_for(Team& team, ReadRequest& request) {
  for (;;) {
    std::unique_lock lock(team.mutex);
    if (team.is_abandoned) return false;
    const ReadRest rest = rest_of(request);
    const StorageFile* file = request.file;
    lock.unlock();
    const int64_t result = file->try_read(rest.offset, rest.target);
    lock.lock();
    if (team.is_abandoned) return false;
    if (record_read(request, result)) return true;
  }
}

void work(const std::shared_ptr<Team>& team, const std::stop_token& stop) {
  for (;;) {
    ReadRequest* request = nullptr;
    {
      std::unique_lock lock(team->mutex);
      team->wake.wait(lock, stop, [&] { return !team->waiting.empty(); });
      if (team->waiting.empty()) return;
      request = team->waiting.front();
      team->waiting.pop_front();
    }
    if (!read_for(*team, *request)) return;
    {
      const std::lock_guard lock(team->mutex);
      if (team->is_abandoned) return;
      request->finished_ns = steady_now_ns();
      team->finished.push_back(request);
    }
    team->arrived.notify_one();
  }
}

class ThreadReader final : public Reader {
 public:
  explicit ThreadReader(int depth) : depth_(depth), team_(std::make_shared<Team>()) {}

  ~ThreadReader() override {
    if (in_flight_ == 0) return;  // the threads are joined
    {
      const std::lock_guard lock(team_->mutex);
      team_->is_abandoned = true;
      team_->waiting.clear();
      team_->finished.clear();
    }
    // Those that wait for work end; to join the others could take for ever.
    for (std::jthread& thread : threads_) {
      thread.request_stop();
      thread.detach();
    }
  }

  Result<void> start(int num_threads) {
    threads_.reserve(static_cast<size_t>(num_threads));
    for (int i = 0; i < num_threads; ++i) {
      threads_.push_back(
          PENSTOCK_TRY(start_thread([team = team_](std::stop_token stop) { work(team, stop); })));
    }
    return {};
  }

  std::string description() const override { return fmt::format("{} threads", threads_.size()); }
  int capacity() const override { return depth_; }
  int in_flight() const override { return in_flight_; }

  void submit(std::span<ReadRequest* const> requests) override {
    if (requests.empty()) return;
    in_flight_ += static_cast<int>(requests.size());
    PENSTOCK_CHECK(in_flight_ <= depth_);
    for (ReadRequest* request : requests) begin_read(*request);
    {
      const std::lock_guard lock(team_->mutex);
      team_->waiting.insert(team_->waiting.end(), requests.begin(), requests.end());
    }
    if (requests.size() == 1) {
      team_->wake.notify_one();
    } else {
      team_->wake.notify_all();
    }
  }

  void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) override {
    if (in_flight_ == 0) return;
    std::unique_lock lock(team_->mutex);
    if (timeout.count() > 0) {
      team_->arrived.wait_for(lock, timeout, [this] { return !team_->finished.empty(); });
    }
    in_flight_ -= static_cast<int>(team_->finished.size());
    finished.insert(finished.end(), team_->finished.begin(), team_->finished.end());
    team_->finished.clear();
  }

 private:
  const int depth_;
  int in_flight_ = 0;  // of the owner's thread alone
  std::shared_ptr<Team> team_;
  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

}  // namespace

std::unique_ptr<Reader> make_thread_reader(int num_threads, int depth) {
  return *start_thread_reader(num_threads, depth);
}

Result<std::unique_ptr<Reader>> start_thread_reader(int num_threads, int depth) {
  auto reader = std::make_unique<ThreadReader>(depth);
  PENSTOCK_TRY(reader->start(num_threads));
  return std::unique_ptr<Reader>(std::move(reader));
}

}  // namespace penstock
