// Checks of what only our own mistake can break: an invariant, a wrong shape handed to an op.
//
// PENSTOCK_CHECK always runs and ends the program with the place and the condition. PENSTOCK_DCHECK
// is for inner loops and vanishes in release builds. What the world does to us (files, disks,
// requests) is not checked here but returned as an Error: see result.h.
#pragma once

namespace penstock {

[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace penstock

#define PENSTOCK_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::penstock::check_failed(__FILE__, __LINE__, #condition))

#ifdef NDEBUG
#define PENSTOCK_DCHECK(condition) static_cast<void>(0)
#else
#define PENSTOCK_DCHECK(condition) PENSTOCK_CHECK(condition)
#endif
