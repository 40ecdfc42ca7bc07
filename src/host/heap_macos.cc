#include <malloc/malloc.h>

#include "host/heap.h"

namespace penstock {

void give_back_heap() {
  ::malloc_zone_pressure_relief(nullptr, 0);
}

}  // namespace penstock
