// What a system does with pages of memory beyond mmap: huge ones, presence, giving back. One file
// per system (pages_linux.cc, pages_macos.cc); base/memory.cc is the only caller.
//
// Threads  any, on pages that nobody else touches meanwhile
// Errors   an errno value, 0 for none
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock {

// 4 KiB on most machines, 16 KiB on Apple's, up to 64 KiB on other Arm machines.
uint64_t page_bytes();

// Advice: a system without huge pages ignores it.
void ask_for_huge_pages(std::span<std::byte> pages);
void ask_for_small_pages(std::span<std::byte> pages);

// Makes every page present; what the bytes hold stays. `pages` begins at a page.
int make_pages_present(std::span<std::byte> pages);

// Gives whole pages back to the system. They are zero when they are touched again.
void give_back_pages(std::span<std::byte> pages);

// The plain way of make_pages_present: every page is written to.
void touch_pages(std::span<std::byte> pages);

}  // namespace penstock
