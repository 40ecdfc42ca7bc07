// Starting a thread where the system may refuse one: limits of tasks (TasksMax, --pids-limit,
// ulimit -u) and of memory (ulimit -v) are the world's doing, and so an Error.
//
// Threads  any
// Errors   start_thread(), check_team(): kOutOfMemory, with what to do
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "base/result.h"
#include "base/thread_pool.h"

namespace penstock {

Error thread_refused(const std::error_code& code);

template <class Work>
Result<std::jthread> start_thread(Work&& work) {
  try {
    return std::jthread(std::forward<Work>(work));
  } catch (const std::system_error& error) {
    return thread_refused(error.code());
  }
}

// An error where a team has fewer threads than it was to have.
Result<void> check_team(const ThreadPool& team, int num_threads);

// Those that this process may run on, by affinity and cpuset; a quota of time is the business of
// host/processors.h.
int allowed_processors();

}  // namespace penstock
