#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/thread.h"

namespace penstock {
namespace {

// A sleeper that wakes wakes so many more: fifteen are up after four wakes in a row, and the caller
// is soon back at its own tasks.
constexpr int64_t kWakesEach = 2;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, int spins) : spins_(spins) {
  PENSTOCK_CHECK(num_threads >= 1 && spins >= 0);
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  for (int worker = 1; worker < num_threads; ++worker) {
    Result<std::jthread> started = start_thread([this, worker] { work(worker); });
    if (!started) return;  // num_threads() tells
    workers_.push_back(*std::move(started));
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  loops_begun_.fetch_add(1);
  loops_begun_.notify_all();
}

void ThreadPool::run_loop(int64_t num_tasks, Call call, const void* context) {
  if (num_tasks <= 0) return;
  if (workers_.empty() || num_tasks == 1) {
    for (int64_t task = 0; task < num_tasks; ++task) call(context, task, 0);
    return;
  }
  call_ = call;
  context_ = context;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  members_.fetch_or(kOpen);  // before the number changes: who sees the number finds the door open
  loops_begun_.fetch_add(1);
  wake_some(num_tasks - 1);
  take_tasks(0);

  // Who comes from now on finds it closed, so nobody has to be waited for who slept through it.
  members_.fetch_and(~kOpen);
  if (members_.load(std::memory_order_acquire) != 0) wait_for_members();
}

void ThreadPool::wait_for_members() {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  for (int spin = 0; members_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < spins_) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  ends_ns_ += std::chrono::nanoseconds(Clock::now() - start).count();
}

void ThreadPool::wake_some(int64_t most) {
  const int64_t count = std::min({most, kWakesEach, int64_t{sleepers_.load()}});
  for (int64_t i = 0; i < count; ++i) loops_begun_.notify_one();
}

void ThreadPool::take_tasks(int worker) {
  for (;;) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= num_tasks_) return;
    call_(context_, task, worker);
  }
}

void ThreadPool::work(int worker) {
  uint32_t seen = 0;
  for (;;) {
    const bool has_slept = wait_for_loop_after(seen);
    // In this order: who has seen the number of the end sees that it is one, and never waits for more.
    seen = loops_begun_.load();
    if (stopping_.load()) return;
    const bool is_open = (members_.fetch_add(1) & kOpen) != 0;
    if (is_open) {
      if (has_slept) wake_some(num_tasks_ - next_task_.load(std::memory_order_relaxed));
      take_tasks(worker);
    }
    members_.fetch_sub(1, std::memory_order_release);
  }
}

bool ThreadPool::wait_for_loop_after(uint32_t seen) {
  for (int spin = 0; spin < spins_;) {
    if (loops_begun_.load(std::memory_order_acquire) != seen) return false;
    relax();
    if (!is_kept_awake_.load(std::memory_order_relaxed)) ++spin;
  }
  sleepers_.fetch_add(1);
  loops_begun_.wait(seen);
  sleepers_.fetch_sub(1);
  return true;
}

}  // namespace penstock
