#include "base/thread.h"

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

}  // namespace penstock
