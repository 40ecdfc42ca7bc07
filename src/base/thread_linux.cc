#include <sched.h>

#include <algorithm>

#include "base/thread.h"

namespace penstock {

int allowed_processors() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  // More than 1024 processors do not fit into the set.
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace penstock
