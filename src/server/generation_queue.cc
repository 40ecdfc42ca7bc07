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

void GenerationJob::fail(Error error) {
  GenerationEvent event;
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
    submitted.error = {SubmitError::Kind::kDraining, "the server is shutting down", 0};
    return submitted;
  }
  std::erase_if(waiting_, [](const auto& job) { return job->stop().stop_requested(); });
  const auto free = std::max<std::ptrdiff_t>(max_running_ - std::ssize(running_), 0);
  if (std::ssize(waiting_) - free >= max_waiting_) {
    ++rejected_;
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

// The oldest that is still wanted. mutex_ is held.
std::shared_ptr<GenerationJob> GenerationQueue::pop() {
  std::erase_if(waiting_, [](const auto& job) { return job->stop().stop_requested(); });
  if (waiting_.empty()) return nullptr;
  auto job = std::move(waiting_.front());
  waiting_.pop_front();
  running_.push_back(job);
  tell_positions();
  return job;
}

std::shared_ptr<GenerationJob> GenerationQueue::take(std::stop_token stop,
                                                     std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (auto job = pop()) return job;
  changed_.wait_for(lock, std::move(stop), patience, [this] { return !waiting_.empty(); });
  return pop();
}

void GenerationQueue::done(const std::shared_ptr<GenerationJob>& job, double seconds) {
  const std::scoped_lock lock(mutex_);
  std::erase(running_, job);
  mean_seconds_ += 0.2 * (seconds - mean_seconds_);
}

void GenerationQueue::drain() {
  std::deque<std::shared_ptr<GenerationJob>> refused;
  {
    const std::scoped_lock lock(mutex_);
    drains_ = true;
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

uint64_t GenerationQueue::rejected() const {
  const std::scoped_lock lock(mutex_);
  return rejected_;
}

}  // namespace penstock
