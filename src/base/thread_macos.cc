#include <algorithm>

#include "base/thread.h"

namespace penstock {

// There is no affinity on macOS: a thread may run on every processor.
int allowed_processors() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace penstock
