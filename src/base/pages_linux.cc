#include <sys/mman.h>

#include <cerrno>

#include "base/pages.h"

namespace penstock {

void ask_for_huge_pages(std::span<std::byte> pages) {
  ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

void ask_for_small_pages(std::span<std::byte> pages) {
  ::madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
}

// The kernel does it in one call and reports a lack of memory; before Linux 5.14 the pages are
// touched one by one.
int make_pages_present(std::span<std::byte> pages) {
#ifdef MADV_POPULATE_WRITE
  if (::madvise(pages.data(), pages.size(), MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL) return errno;
#endif
  touch_pages(pages);
  return 0;
}

void give_back_pages(std::span<std::byte> pages) {
  ::madvise(pages.data(), pages.size(), MADV_DONTNEED);
}

}  // namespace penstock
