// The kernel of macOS chooses large pages by itself, has no call that makes pages present, and keeps
// what MADV_DONTNEED gave back; a new mapping over the old one really gives it back.
// Source  mmap(2) and madvise(2) of macOS
#include <sys/mman.h>

#include "base/check.h"
#include "base/pages.h"

namespace penstock {

void ask_for_huge_pages(std::span<std::byte>) {}
void ask_for_small_pages(std::span<std::byte>) {}

int make_pages_present(std::span<std::byte> pages) {
  touch_pages(pages);
  return 0;
}

void give_back_pages(std::span<std::byte> pages) {
  void* mapping = ::mmap(pages.data(), pages.size(), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  PENSTOCK_CHECK(mapping == pages.data());  // over a mapping of ours there is always room
}

}  // namespace penstock
