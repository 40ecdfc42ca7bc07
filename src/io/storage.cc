#include "io/storage.h"

#include <fmt/format.h>

#include "io/read_progress.h"
#include "io/system_error.h"

namespace penstock {

Result<uint64_t> StorageFile::read_some(uint64_t offset, std::span<std::byte> target) const {
  for (int repeats = 0;; ++repeats) {
    const int64_t got = try_read(offset, target);
    if (got >= 0) return static_cast<uint64_t>(got);
    const int error = static_cast<int>(-got);
    if ((error == EINTR || error == EAGAIN) && repeats < kTransientRepeatsMax) continue;
    return Error{ErrorCode::kIo, fmt::format("read of {} bytes at {:#x} of {}: {}", target.size(),
                                             offset, path(), reason_of(error))};
  }
}

Result<void> read_exactly(const StorageFile& file, uint64_t offset, std::span<std::byte> target) {
  uint64_t done = 0;
  while (done < target.size()) {
    const uint64_t got = PENSTOCK_TRY(file.read_some(offset + done, target.subspan(done)));
    if (got == 0) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{} ends at byte {}, expected {} bytes at {:#x}; is it complete?",
                               file.path(), offset + done, target.size(), offset)};
    }
    done += got;
  }
  return {};
}

Result<std::string> read_text(Storage& storage, const std::string& path, uint64_t bytes_max) {
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  const FileStat stat = PENSTOCK_TRY(file->stat());
  if (stat.bytes > bytes_max) {
    return Error{ErrorCode::kCorrupt, fmt::format("{} has {} bytes; at most {} are expected here",
                                                  path, stat.bytes, bytes_max)};
  }
  std::string text(stat.bytes, '\0');
  PENSTOCK_TRY(read_exactly(*file, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

}  // namespace penstock
