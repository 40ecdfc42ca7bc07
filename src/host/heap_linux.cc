#include "host/heap.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace penstock {

void give_back_heap() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace penstock
