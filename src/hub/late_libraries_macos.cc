#include "hub/late_libraries.h"

namespace penstock {

Result<void> open_late_libraries() {
  return {};
}

}  // namespace penstock
