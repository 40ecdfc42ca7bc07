#include "server/generation_queue.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

// What the asker holds: to let go of it is to cancel.
class GenerationHandle : public Generation {
 public:
  explicit GenerationHandle(std::shared_ptr<GenerationJob> job) : job_(std::move(job)) {}
  ~GenerationHandle() override { job_->cancel(); }
  std::optional<GenerationEvent> next(std::chrono::milliseconds patience) override {
    return job_->next(patience);
  }
  void cancel() override { job_->cancel(); }
  GenerationProgress progress() const override { return job_->progress(); }

 private:
  std::shared_ptr<GenerationJob> job_;  // shared with the computing thread, see GenerationJob
};

int64_t since_ms(GenerationJob::Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(GenerationJob::Clock::now() - start)
      .count();
}

}  // namespace

GenerationJob::GenerationJob(GenerationRequest request) : request_(std::move(request)) {
  progress_.prompt_tokens = std::ssize(request_.prompt);
}

void GenerationJob::emit(GenerationEvent event) {
  {
    const std::scoped_lock lock(mutex_);
    if (event.kind == GenerationEvent::Kind::kStarted) {
      progress_.queue_position = 0;
      progress_.queue_ms = since_ms(submitted_);
    }
    events_.push_back(std::move(event));
  }
  changed_.notify_one();
}

void GenerationJob::fail(Error error, bool is_by_client) {
  GenerationEvent event;
  event.is_by_client = is_by_client;
  event.kind = GenerationEvent::Kind::kFailed;
  event.error = std::move(error);
  emit(std::move(event));
}

void GenerationJob::cancel() {
  stop_.request_stop();
  const std::scoped_lock lock(mutex_);  // who waits in next() has looked at it, or will be woken
  changed_.notify_all();
}

std::optional<GenerationEvent> GenerationJob::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [this] { return !events_.empty() || stop_.stop_requested(); });
  if (events_.empty()) return {};
  GenerationEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

GenerationProgress GenerationJob::progress() const {
  const std::scoped_lock lock(mutex_);
  return progress_;
}

Generator::Submitted GenerationQueue::submit(GenerationRequest request) {
  Generator::Submitted submitted;
  const std::scoped_lock lock(mutex_);
  if (drains_) {
    ++rejected_.shutdown;
    submitted.error = {SubmitError::Kind::kDraining, "the server is shutting down", 0};
    return submitted;
  }
  forget_cancelled();
  const auto free = std::max<std::ptrdiff_t>(max_running_ - std::ssize(running_), 0);
  if (std::ssize(waiting_) - free >= max_waiting_) {
    ++rejected_.queue_full;
    const double wait = mean_seconds_ * static_cast<double>(waiting_.size()) / max_running_;
    submitted.error = {SubmitError::Kind::kFull, "too many requests are waiting; try again later",
                       static_cast<int>(std::clamp(std::ceil(wait), 1.0, 3600.0))};
    return submitted;
  }
  auto job = std::make_shared<GenerationJob>(std::move(request));
  waiting_.push_back(job);
  tell_positions();
  changed_.notify_all();
  submitted.generation = std::make_unique<GenerationHandle>(std::move(job));
  return submitted;
}

void GenerationQueue::tell_positions() {
  int position = 0;
  for (const auto& job : waiting_) {
    ++position;
    job->update([&](GenerationProgress& progress) { progress.queue_position = position; });
  }
}

// Of those that nobody waits for any more. mutex_ is held.
void GenerationQueue::forget_cancelled() {
  cancelled_.disconnect +=
      std::erase_if(waiting_, [](const auto& job) { return job->stop().stop_requested(); });
}

// The oldest that is still wanted and can begin. mutex_ is held.
std::shared_ptr<GenerationJob> GenerationQueue::pop(const CanBegin& can_begin) {
  forget_cancelled();
  const auto found = std::ranges::find_if(
      waiting_, [&](const auto& job) { return !can_begin || can_begin(job->request()); });
  if (found == waiting_.end()) return nullptr;
  auto job = std::move(*found);
  waiting_.erase(found);
  running_.push_back(job);
  tell_positions();
  return job;
}

std::shared_ptr<GenerationJob> GenerationQueue::take(std::stop_token stop,
                                                     std::chrono::milliseconds patience,
                                                     const CanBegin& can_begin) {
  std::unique_lock lock(mutex_);
  if (auto job = pop(can_begin)) return job;
  changed_.wait_for(lock, std::move(stop), patience, [this] { return !waiting_.empty(); });
  return pop(can_begin);
}

void GenerationQueue::done(const std::shared_ptr<GenerationJob>& job, double seconds) {
  const std::scoped_lock lock(mutex_);
  std::erase(running_, job);
  mean_seconds_ += 0.2 * (seconds - mean_seconds_);
}

void GenerationQueue::expire(GenerationJob::Clock::time_point now) {
  if (timeout_.count() == 0) return;
  std::vector<std::shared_ptr<GenerationJob>> refused;
  {
    const std::scoped_lock lock(mutex_);
    forget_cancelled();
    // The oldest come first.
    while (!waiting_.empty() && now - waiting_.front()->submitted() > timeout_) {
      refused.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    rejected_.queue_timeout += refused.size();
    if (!refused.empty()) tell_positions();
  }
  for (const auto& job : refused) {
    job->fail({ErrorCode::kCancelled,
               "the request has waited too long in the queue; try again "
               "later"});
  }
}

void GenerationQueue::drain() {
  std::deque<std::shared_ptr<GenerationJob>> refused;
  {
    const std::scoped_lock lock(mutex_);
    drains_ = true;
    forget_cancelled();
    cancelled_.shutdown += waiting_.size();
    refused.swap(waiting_);
  }
  for (const auto& job : refused) {
    job->fail({ErrorCode::kCancelled, "the server is shutting down"});
  }
}

void GenerationQueue::stop() {
  drain();
  const std::scoped_lock lock(mutex_);
  stops_ = true;
  for (const auto& job : running_) job->cancel();
}

bool GenerationQueue::is_stopping() const {
  const std::scoped_lock lock(mutex_);
  return stops_;
}

int GenerationQueue::waiting() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int>(std::ranges::count_if(
      waiting_, [](const auto& job) { return !job->stop().stop_requested(); }));
}

int GenerationQueue::running() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int>(running_.size());
}

RejectedRequests GenerationQueue::rejected() const {
  const std::scoped_lock lock(mutex_);
  return rejected_;
}

// Those that have left are counted at once, and forgotten when somebody looks for the next.
CancelledRequests GenerationQueue::cancelled() const {
  const std::scoped_lock lock(mutex_);
  CancelledRequests cancelled = cancelled_;
  cancelled.disconnect += static_cast<uint64_t>(std::ranges::count_if(
      waiting_, [](const auto& job) { return job->stop().stop_requested(); }));
  return cancelled;
}

}  // namespace penstock
