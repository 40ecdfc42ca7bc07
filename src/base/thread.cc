#include "base/thread.h"

#include <sched.h>

#include <algorithm>

namespace penstock {

Error thread_refused(const std::error_code& code) {
  return {ErrorCode::kOutOfMemory,
          "the system refuses another thread (" + code.message() +
              "); raise the limit of tasks (TasksMax, --pids-limit, ulimit -u) or of memory "
              "(ulimit -v), or take fewer --threads"};
}

Result<void> check_team(const ThreadPool& team, int num_threads) {
  if (team.num_threads() >= num_threads) return {};
  return thread_refused(std::make_error_code(std::errc::resource_unavailable_try_again));
}

int allowed_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  // More than 1024 processors do not fit into the set.
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace penstock
