#include "cli/stop_wait.h"

#include <condition_variable>
#include <mutex>

namespace penstock {

bool wait_for_stop(const std::stop_token& what, const std::stop_token& quit,
                   std::chrono::milliseconds limit) {
  std::mutex mutex;
  std::condition_variable_any changed;
  // Made before the lock is taken: where the stop was requested already it runs here, in this thread.
  const std::stop_callback wake(what, [&] {
    const std::scoped_lock inner(mutex);
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, quit, limit, [&] { return what.stop_requested(); });
}

}  // namespace penstock
