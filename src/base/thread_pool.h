// A fixed team of threads that runs the bodies of parallel loops; the caller is worker 0.
//
// Decode runs a few hundred short loops per token, so a worker that has just finished spins for a
// moment before it sleeps: waking a sleeper costs more than most loops. A loop waits for its tasks,
// not for its workers: one that wakes late, or that the system gave no processor, is not missed.
// Results never depend on the number of threads, because a task's work is a function of its index
// alone.
//
// Threads  run() from one thread at a time (the owner's). Bodies must not throw and must not call
//          run() of the same pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace penstock {

class ThreadPool {
 public:
  // About 50 us on current machines: longer than the pause between two ops of a layer, far shorter
  // than a wait for the disk.
  static constexpr int kSpins = 4000;

  // spins: looks for the next loop before a worker sleeps.
  explicit ThreadPool(int num_threads, int spins = kSpins);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, worker) once for each task in [0, num_tasks), in any order, worker in
  // [0, num_threads). Returns when all are done.
  template <class Body>
  void run(int64_t num_tasks, const Body& body) {
    const auto call = [](const void* context, int64_t task, int worker) {
      (*static_cast<const Body*>(context))(task, worker);
    };
    run_loop(num_tasks, call, &body);
  }

  // How long the owner, out of tasks itself, has waited for the last ones of its loops: what loops
  // that end unevenly cost.
  int64_t ends_ns() const { return ends_ns_; }

  // For the owner, while it waits for something that takes longer than workers spin and a loop
  // follows (a device): those who are awake then stay so. It costs their processors' time.
  void keep_awake(bool awake) { is_kept_awake_.store(awake, std::memory_order_relaxed); }

 private:
  using Call = void (*)(const void* context, int64_t task, int worker);

  // Set in `members_` while a loop takes workers in.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;

  void run_loop(int64_t num_tasks, Call call, const void* context);
  void work(int worker);
  void take_tasks(int worker);
  void wait_for_members();
  void wake_some(int64_t most);
  bool wait_for_loop_after(uint32_t seen);  // true when it slept

  const int spins_;
  // Of the loop at work; read only by members that came while it was open.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t num_tasks_ = 0;
  int64_t ends_ns_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};
  alignas(64) std::atomic<uint32_t> loops_begun_{0};  // what sleepers wait for
  std::atomic<bool> is_kept_awake_{false};            // in the line that spinners look at anyway
  alignas(64) std::atomic<uint32_t> members_{0};      // workers inside, and kOpen
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::jthread> workers_;
};
}  // namespace penstock
