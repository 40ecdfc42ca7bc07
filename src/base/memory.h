// Large blocks of memory: taken once at start, aligned for direct reads and huge pages, or refused
// with a sentence.
//
// The expert slots and the weights live in these blocks. A block is an anonymous mapping, so its
// bytes are zero, nothing else shares its pages, and giving it back really gives it back. With
// kPrefault every page is present when create() returns: a budget that the machine does not have
// shows at start and not in the middle of an answer.
//
// Memory   One mapping per object, released with it. Blocks of 2 MiB or more start at a multiple of
//          2 MiB and ask for huge pages; smaller ones start at a page. The end of a block can be
//          given back and taken again while the rest is in use.
// Threads  A value; its bytes are the owner's matter.
// Errors   kOutOfMemory, naming the purpose and the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace penstock {

enum class Prefault { kNo, kYes };
// kSmall is for comparing: everything else takes the largest that the system gives.
enum class Pages { kLargest, kSmall };

class AlignedMemory {
 public:
  // `purpose` completes "no memory for ...": "expert slots". Zero bytes are allowed.
  static Result<AlignedMemory> create(uint64_t bytes, const char* purpose,
                                      Prefault prefault = Prefault::kNo,
                                      Pages pages = Pages::kLargest);

  AlignedMemory() = default;
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept;
  AlignedMemory& operator=(AlignedMemory&& other) noexcept;

  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  // Gives back every whole page after the first `kept` bytes; huge pages are not torn, because only
  // a whole one is free at once. The bytes behind them are zero when they are touched again.
  void give_back_after(uint64_t kept);
  // Makes the pages before `end` present again. kOutOfMemory when there are none.
  Result<void> take_again(uint64_t begin, uint64_t end);

 private:
  std::span<std::byte> bytes_;
  uint64_t mapped_bytes_ = 0;
  uint64_t alignment_ = 0;  // of the block: a page, or a huge one
  const char* purpose_ = "";
};

// Test seam for the whole process: the next `successes` allocations succeed, the one after them
// fails, those after it succeed again. Negative: none fails.
void fail_allocation_after(int64_t successes);

}  // namespace penstock
