// O_DIRECT is not believed but tried: file systems accept the flag and refuse the read, or the
// other way round. The alignment is what the kernel reports, else 512, else 4096, whichever a real
// read at that granularity confirms; no such read means a buffered file.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#include "io/file_calls.h"
#include "io/storage.h"

namespace penstock {
namespace {

// True when one read of `alignment` bytes into memory that is aligned to no more than that works.
// An empty file reads nothing, which is an answer too.
bool direct_read_works(int descriptor, uint64_t alignment) {
  void* memory = std::aligned_alloc(2 * alignment, 4 * alignment);
  if (memory == nullptr) return false;
  std::byte* target = static_cast<std::byte*>(memory) + alignment;
  const ssize_t got = ::pread(descriptor, target, alignment, 0);
  std::free(memory);
  return got >= 0;
}

// What the kernel says about direct reads of this file; 0 when it says nothing.
uint64_t reported_alignment(int descriptor) {
#ifdef STATX_DIOALIGN
  struct statx status {};
  if (::statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    return std::max<uint64_t>(status.stx_dio_mem_align, status.stx_dio_offset_align);
  }
#else
  static_cast<void>(descriptor);
#endif
  return 0;
}

}  // namespace

int open_past_cache(const std::string& path) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
}

uint64_t direct_alignment(int descriptor) {
  const uint64_t reported = reported_alignment(descriptor);
  for (const uint64_t alignment : {reported, uint64_t{512}, kDirectAlignmentMax}) {
    const bool possible = alignment >= std::max<uint64_t>(reported, 512) &&
                          alignment <= kDirectAlignmentMax && (alignment & (alignment - 1)) == 0;
    if (possible && direct_read_works(descriptor, alignment)) return alignment;
  }
  return 0;
}

int reserve_room(int descriptor, uint64_t bytes) {
  int failed = 0;
  do {
    failed = ::fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (failed != 0 && errno == EINTR);
  return failed == 0 ? 0 : errno;
}

int make_durable(int descriptor) {
  return ::fsync(descriptor) == 0 ? 0 : errno;
}

void drop_from_cache(int descriptor, uint64_t offset, uint64_t bytes) {
  ::posix_fadvise(descriptor, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                  POSIX_FADV_DONTNEED);
}

int64_t modified_ns(const struct stat& status) {
  return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

}  // namespace penstock
