#include "base/pages.h"

#include <unistd.h>

namespace penstock {

uint64_t page_bytes() {
  return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

void touch_pages(std::span<std::byte> pages) {
  const uint64_t step = page_bytes();
  for (uint64_t at = 0; at < pages.size(); at += step) {
    auto* byte = static_cast<volatile std::byte*>(pages.data() + at);
    *byte = *byte;
  }
}

}  // namespace penstock
