#include "compute/cpu/byte_tiles.h"

namespace penstock {

// The processors of Apple's machines have no such unit.
bool has_byte_tiles() {
  return false;
}

}  // namespace penstock
