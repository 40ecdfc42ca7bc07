// The allocator's free memory, back to the system.
#pragma once

namespace penstock {

// What small allocations left behind and nobody uses. A no-op where the C library has no such call.
void give_back_heap();

}  // namespace penstock
