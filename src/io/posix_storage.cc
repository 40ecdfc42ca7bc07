// Storage on the system's files, in plain POSIX; what differs from system to system is behind
// io/file_calls.h.

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "io/file_calls.h"
#include "io/held_bytes.h"
#include "io/locks.h"
#include "io/places.h"
#include "io/storage.h"
#include "io/system_error.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// Each is lost to another process that renames or removes the file meanwhile; where a file system has
// another number for a file at every look, no attempt would succeed.
constexpr int kLockAttemptsMax = 1000;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

FileStat to_file_stat(const struct stat& status) {
  return {.bytes = static_cast<uint64_t>(status.st_size),
          .device = static_cast<uint64_t>(status.st_dev),
          .inode = status.st_ino,
          .modified_ns = modified_ns(status)};
}

uint64_t held_bytes_of(const struct stat& status) {
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

Error disk_full(const std::string& path, uint64_t needed_bytes, uint64_t free_bytes) {
  return {ErrorCode::kOutOfMemory,
          fmt::format("{}: the disk is too small: needs {} more bytes, {} are free", path,
                      needed_bytes, free_bytes)};
}

uint64_t free_bytes_of(int descriptor) {
  struct statvfs status {};
  if (::fstatvfs(descriptor, &status) != 0) return 0;
  return uint64_t{status.f_bavail} * status.f_frsize;
}

class PosixFile final : public StorageFile {
 public:
  PosixFile(std::string path, Descriptor descriptor, uint64_t alignment)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), alignment_(alignment) {}

  const std::string& path() const override { return path_; }
  uint64_t alignment() const override { return alignment_; }
  int descriptor() const override { return descriptor_.get(); }

  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    const ssize_t got =
        ::pread(descriptor_.get(), target.data(), target.size(), static_cast<off_t>(offset));
    return got >= 0 ? got : -errno;
  }

  Result<void> write(uint64_t offset, std::span<const std::byte> source) override {
    uint64_t done = 0;
    while (done < source.size()) {
      const ssize_t put = ::pwrite(descriptor_.get(), source.data() + done, source.size() - done,
                                   static_cast<off_t>(offset + done));
      if (put > 0) {
        done += static_cast<uint64_t>(put);
        continue;
      }
      if (put < 0 && errno == EINTR) continue;
      const int error = put == 0 ? EIO : errno;
      if (error == ENOSPC || error == EDQUOT) {
        return disk_full(path_, source.size() - done, free_bytes_of(descriptor_.get()));
      }
      return Error{ErrorCode::kIo,
                   fmt::format("write of {} bytes at {:#x} of {}: {}", source.size() - done,
                               offset + done, path_, reason_of(error))};
    }
    return {};
  }

  Result<void> reserve(uint64_t bytes) override {
    struct stat status {};
    if (::fstat(descriptor_.get(), &status) != 0) return system_error("stat", path_, errno);
    const uint64_t held = held_bytes_of(status);
    const uint64_t missing = bytes > held ? bytes - held : 0;
    if (missing == 0) return {};
    const uint64_t free = free_bytes_of(descriptor_.get());
    // None at all may mean that the file system does not tell; then the writes will.
    if (free > 0 && missing > free) return disk_full(path_, missing, free);
    const int error = reserve_room(descriptor_.get(), bytes);
    if (error == ENOSPC || error == EDQUOT) {
      return disk_full(path_, missing, free_bytes_of(descriptor_.get()));
    }
    // File systems that cannot: the comparison above is all that can be done.
    if (error != 0 && error != EOPNOTSUPP && error != ENOSYS) {
      return system_error("reserve", path_, error);
    }
    return {};
  }

  // Not repeated after a failure: the kernel may have dropped the dirty pages, and a second fsync
  // would report success for bytes that are lost.
  Result<void> sync() override {
    const int error = make_durable(descriptor_.get());
    if (error != 0) return system_error("sync", path_, error);
    return {};
  }

  Result<FileStat> stat() const override {
    struct stat status {};
    if (::fstat(descriptor_.get(), &status) != 0) return system_error("stat", path_, errno);
    return to_file_stat(status);
  }

  void drop_cached(uint64_t offset, uint64_t bytes) const override {
    drop_from_cache(descriptor_.get(), offset, bytes);
  }

 private:
  std::string path_;
  Descriptor descriptor_;
  uint64_t alignment_;
};

// What is written to a pipe or a device has no places: each write follows the one before.
class StreamFile final : public StorageFile {
 public:
  StreamFile(std::string path, Descriptor descriptor)
      : path_(std::move(path)), descriptor_(std::move(descriptor)) {}

  const std::string& path() const override { return path_; }
  uint64_t alignment() const override { return 1; }
  int descriptor() const override { return descriptor_.get(); }
  int64_t try_read(uint64_t, std::span<std::byte>) const override { return -ESPIPE; }

  Result<void> write(uint64_t offset, std::span<const std::byte> source) override {
    PENSTOCK_CHECK(offset == position_);
    while (!source.empty()) {
      const ssize_t put = ::write(descriptor_.get(), source.data(), source.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EAGAIN) {
        pollfd writable{descriptor_.get(), POLLOUT, 0};
        static_cast<void>(::poll(&writable, 1, -1));
        continue;
      }
      if (put <= 0) return system_error("write to", path_, put == 0 ? EIO : errno);
      source = source.subspan(static_cast<size_t>(put));
      position_ += static_cast<uint64_t>(put);
    }
    return {};
  }

  Result<void> reserve(uint64_t) override { return {}; }
  Result<void> sync() override { return {}; }
  Result<FileStat> stat() const override {
    struct stat status {};
    if (::fstat(descriptor_.get(), &status) != 0) return system_error("stat", path_, errno);
    return to_file_stat(status);
  }
  void drop_cached(uint64_t, uint64_t) const override {}

 private:
  std::string path_;
  Descriptor descriptor_;
  uint64_t position_ = 0;
};

PlaceKind kind_of(const struct stat& status) {
  if (S_ISREG(status.st_mode)) return PlaceKind::kFile;
  if (S_ISDIR(status.st_mode)) return PlaceKind::kDirectory;
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) return PlaceKind::kStream;
  return PlaceKind::kOther;  // a disk, a socket: nothing of ours belongs there
}

// Whether the open file is what the path leads to.
bool is_still_at(int descriptor, const std::string& path) {
  struct stat open_file {};
  struct stat named {};
  return ::fstat(descriptor, &open_file) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

class PosixLock final : public Storage::Lock {
 public:
  explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  Descriptor descriptor_;  // closing it gives the lock back
};

class PosixStorage final : public Storage, public Places, public HeldRoom {
 public:
  Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) override {
    // Asked first because to open a pipe is to wait for its other end.
    struct stat status {};
    const bool exists = ::stat(path.c_str(), &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
      return Error{ErrorCode::kIo, fmt::format("open {}: not a regular file", path)};
    }
    if (mode == OpenMode::kReadDirect) {
      Descriptor direct(open_past_cache(path));
      const uint64_t alignment = direct.get() >= 0 ? direct_alignment(direct.get()) : 0;
      if (alignment != 0) return make_file(path, std::move(direct), alignment);
    }
    int flags = O_RDONLY;
    if (mode == OpenMode::kWrite) flags = O_RDWR;
    if (mode == OpenMode::kCreate) flags = O_RDWR | O_CREAT | O_TRUNC;
    Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0644));
    if (descriptor.get() < 0) return system_error("open", path, errno);
    return make_file(path, std::move(descriptor), 1);
  }

  Result<FileStat> stat(const std::string& path) const override {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return to_file_stat(status);
    if (errno == ENOENT || errno == ENOTDIR) {
      return Error{ErrorCode::kNotFound, path + ": there is no such file or folder"};
    }
    return system_error("stat", path, errno);
  }

  Result<uint64_t> held_bytes(const std::string& path) const override {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return held_bytes_of(status);
    return system_error("stat", path, errno);
  }

  Result<bool> is_directory(const std::string& path) const override {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return S_ISDIR(status.st_mode);
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return system_error("stat", path, errno);
  }

  Result<NamedPlace> place_of(const std::string& path) const override {
    struct stat status {};
    std::string place = path;
    // As many links as the kernel follows; one at a time, because the last may lead to nothing.
    for (int links = 0; links < 40; ++links) {
      if (::stat(place.c_str(), &status) == 0 && !S_ISREG(status.st_mode) &&
          !S_ISDIR(status.st_mode)) {
        return NamedPlace{place, kind_of(status)};  // as named: /dev/stdout leads to no path
      }
      if (::lstat(place.c_str(), &status) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return NamedPlace{place, PlaceKind::kAbsent};
        return system_error("stat", place, errno);
      }
      if (!S_ISLNK(status.st_mode)) return NamedPlace{place, kind_of(status)};
      std::error_code error;
      const fs::path target = fs::read_symlink(place, error);
      if (error) return system_error("read link", place, error.value());
      place = target.is_absolute() ? target : fs::path(place).parent_path() / target;
    }
    return system_error("follow", path, ELOOP);
  }

  Result<std::vector<std::string>> list(const std::string& directory) const override {
    std::error_code error;
    std::vector<std::string> names;
    fs::directory_iterator entry(directory, error);
    while (!error && entry != fs::directory_iterator()) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    if (error) return system_error("list", directory, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<void> make_directory(const std::string& path) override {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) return system_error("make directory", path, error.value());
    return {};
  }

  Result<void> copy_permissions(const std::string& from, const std::string& to) override {
    struct stat status {};
    if (::stat(from.c_str(), &status) != 0) return system_error("stat", from, errno);
    if (::chmod(to.c_str(), status.st_mode & 07777) != 0) {
      return system_error("set permissions of", to, errno);
    }
    return {};
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return system_error("rename to " + to + " of", from, errno);
    }
    return {};
  }

  Result<void> remove(const std::string& path) override {
    if (::remove(path.c_str()) != 0) return system_error("remove", path, errno);
    return {};
  }

  Result<void> remove_tree(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) return system_error("remove", path, error.value());
    return {};
  }

  Result<void> sync_directory(const std::string& path) override {
    const Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0) return system_error("open", path, errno);
    // Some network file systems cannot sync a directory; they make its entries durable at once.
    if (::fsync(directory.get()) != 0 && errno != EINVAL) {
      return system_error("sync", path, errno);
    }
    return {};
  }

  Result<uint64_t> free_bytes(const std::string& path) const override {
    struct statvfs status {};
    if (::statvfs(path.c_str(), &status) != 0) return system_error("free space of", path, errno);
    return uint64_t{status.f_bavail} * status.f_frsize;
  }

  Result<std::unique_ptr<Lock>> lock(const std::string& path) override {
    for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
      Descriptor descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
      if (descriptor.get() < 0) return system_error("open", path, errno);
      if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) return locked_error(path);
        // A file system without locks: two writers at once are the user's to avoid there.
        const bool has_no_locks = errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP;
        if (!has_no_locks) return system_error("lock", path, errno);
      }
      // Between the two calls its holder may have renamed or removed it: that is no lock of `path`.
      if (is_still_at(descriptor.get(), path)) {
        return std::unique_ptr<Lock>(std::make_unique<PosixLock>(std::move(descriptor)));
      }
    }
    return locked_error(path);
  }

  Result<std::unique_ptr<StorageFile>> open_stream(const std::string& path) override {
    // To open a pipe for writing is to wait until somebody reads: asked without waiting.
    Descriptor descriptor(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (descriptor.get() < 0 && errno == ENXIO) {
      return Error{ErrorCode::kIo, fmt::format("open {}: nobody reads from this pipe", path)};
    }
    if (descriptor.get() < 0) return system_error("open", path, errno);
    return std::unique_ptr<StorageFile>(std::make_unique<StreamFile>(path, std::move(descriptor)));
  }

 private:
  static Result<std::unique_ptr<StorageFile>> make_file(const std::string& path,
                                                        Descriptor descriptor, uint64_t alignment) {
    return std::unique_ptr<StorageFile>(
        std::make_unique<PosixFile>(path, std::move(descriptor), alignment));
  }
};

}  // namespace

Storage& posix_storage() {
  static PosixStorage storage;
  return storage;
}

}  // namespace penstock
