#include "host/peak_memory.h"

namespace penstock {

// The kernel of macOS keeps the peak of the whole life of a process and has no call to set it back.
bool reset_peak_resident_bytes() {
  return false;
}

}  // namespace penstock
