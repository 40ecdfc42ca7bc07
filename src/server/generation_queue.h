// Requests that wait for the computing thread, and the way their events take back.
//
// Threads  submit() from any thread; take() and the rest of a job's functions for the computing
//          thread from that one; a GenerationHandle by one thread at a time
// Memory   at most max_waiting requests; the events of a job until they are fetched
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>

#include "server/generator.h"

namespace penstock {

// One request on its way. Shared by the queue or the computing thread, and the Generation that the
// asker holds: whoever is done first just lets go.
class GenerationJob {
 public:
  using Clock = std::chrono::steady_clock;
  explicit GenerationJob(GenerationRequest request);

  const GenerationRequest& request() const { return request_; }
  std::stop_token stop() const { return stop_.get_token(); }
  void cancel();

  // The computing thread's.
  void emit(GenerationEvent event);
  void fail(Error error, bool is_by_client = false);
  template <class Change>
  void update(const Change& change) {
    const std::scoped_lock lock(mutex_);
    change(progress_);
  }

  std::optional<GenerationEvent> next(std::chrono::milliseconds patience);
  GenerationProgress progress() const;
  Clock::time_point submitted() const { return submitted_; }

 private:
  const GenerationRequest request_;
  const Clock::time_point submitted_ = Clock::now();
  std::stop_source stop_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<GenerationEvent> events_;  // guarded by mutex_
  GenerationProgress progress_;         // guarded by mutex_
};

class GenerationQueue {
 public:
  // timeout: how long a request may wait; 0: for ever.
  explicit GenerationQueue(int max_waiting,
                           std::chrono::milliseconds timeout = std::chrono::milliseconds(0))
      : max_waiting_(max_waiting), timeout_(timeout) {}

  // A request that finds nobody before it takes no place in the queue.
  Generator::Submitted submit(GenerationRequest request);
  // The next job that was not cancelled and can begin, waiting for one so long; nothing when none
  // came, or `stop` is requested. Without `can_begin` any can.
  using CanBegin = std::function<bool(const GenerationRequest&)>;
  std::shared_ptr<GenerationJob> take(std::stop_token stop, std::chrono::milliseconds patience,
                                      const CanBegin& can_begin = {});
  // A job that take() gave has ended.
  void done(const std::shared_ptr<GenerationJob>& job, double seconds);

  void expire(GenerationJob::Clock::time_point now);  // those that have waited too long are refused
  void drain();                                       // those that wait are refused
  void stop();  // those at work are cancelled, with this word for those who ask
  bool is_stopping() const;
  int waiting() const;
  int running() const;
  RejectedRequests rejected() const;    // by the queue
  CancelledRequests cancelled() const;  // of those that waited
  void set_max_running(int count) { max_running_ = count; }

 private:
  std::shared_ptr<GenerationJob> pop(const CanBegin& can_begin);
  void forget_cancelled();
  void tell_positions();

  const int max_waiting_;
  const std::chrono::milliseconds timeout_;
  int max_running_ = 1;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<GenerationJob>> waiting_;  // guarded by mutex_
  std::deque<std::shared_ptr<GenerationJob>> running_;  // guarded by mutex_
  bool drains_ = false, stops_ = false;                 // guarded by mutex_
  RejectedRequests rejected_;                           // guarded by mutex_
  CancelledRequests cancelled_;                         // guarded by mutex_
  double mean_seconds_ = 1;                             // guarded by mutex_: of a request
};

}  // namespace penstock
