// macOS has no O_DIRECT: F_NOCACHE asks a descriptor's reads past the page cache. Any granularity is
// allowed; whole blocks of the disk go without a copy. What is in the cache already is read there.
// Source  fcntl(2) of macOS: F_NOCACHE, F_PREALLOCATE, F_FULLFSYNC

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/file_calls.h"
#include "io/storage.h"

namespace penstock {

int open_past_cache(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return -1;
  if (::fcntl(descriptor, F_NOCACHE, 1) == 0) return descriptor;
  ::close(descriptor);
  return -1;
}

uint64_t direct_alignment(int) {
  return kDirectAlignmentMax;  // a block of every disk that Apple builds in
}

// What is there already stays; F_PREALLOCATE adds to it.
int reserve_room(int descriptor, uint64_t bytes) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return errno;
  const uint64_t held = static_cast<uint64_t>(status.st_blocks) * 512;
  if (bytes <= held) return 0;
  fstore_t wish{};
  wish.fst_flags = F_ALLOCATEALL;
  wish.fst_posmode = F_PEOFPOSMODE;
  wish.fst_length = static_cast<off_t>(bytes - held);
  int failed = 0;
  do {
    failed = ::fcntl(descriptor, F_PREALLOCATE, &wish);
  } while (failed == -1 && errno == EINTR);
  if (failed != -1) return 0;
  return errno == ENOTSUP ? EOPNOTSUPP : errno;
}

// fsync() alone leaves the bytes in the disk's own cache. Network file systems have only that.
int make_durable(int descriptor) {
  if (::fcntl(descriptor, F_FULLFSYNC) != -1) return 0;
  if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY) return errno;
  return ::fsync(descriptor) == 0 ? 0 : errno;
}

void drop_from_cache(int, uint64_t, uint64_t) {}  // there is no such call

int64_t modified_ns(const struct stat& status) {
  return int64_t{status.st_mtimespec.tv_sec} * 1'000'000'000 + status.st_mtimespec.tv_nsec;
}

}  // namespace penstock
