// A fixed team of threads that runs the bodies of parallel loops; the caller is worker 0.
//
// Decode runs a few hundred short loops per token, so a worker that has just finished spins for a
// moment before it sleeps: waking a sleeper costs more than most loops. Results never depend on the
// number of threads, because a task's work is a function of its index alone.
//
// Threads  run() from one thread at a time (the owner's). Bodies must not throw and must not call
//          run() of the same pool.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace penstock {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
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

 private:
  using Call = void (*)(const void* context, int64_t task, int worker);

  void run_loop(int64_t num_tasks, Call call, const void* context);
  void work(int worker);
  void take_tasks(int worker);

  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t num_tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};
  alignas(64) std::atomic<uint64_t> generation_{0};  // a change starts a loop
  alignas(64) std::atomic<int> workers_busy_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::jthread> workers_;
};

}  // namespace penstock
