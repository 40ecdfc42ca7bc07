#include "compute/cpu/byte_tiles.h"

namespace penstock {

// Apple's processors have instructions of Arm's for it, which the assembler that this is cross-built with does not
// know.
const char* byte_tiles_name() {
  return nullptr;
}

}  // namespace penstock
