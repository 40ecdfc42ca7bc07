#include "io/output_file.h"

#include <fmt/format.h>

#include <filesystem>

#include "io/locks.h"
#include "io/places.h"

namespace penstock {
namespace {

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder;
}

Error refused(const std::string& path, const char* what) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} is {} and is not replaced; name a file", path, what)};
}

// A link of this name would lead the bytes elsewhere, and a file may be another program's of long
// ago: what is written starts with a file of its own.
Result<void> remove_leftover(Storage& storage, const std::string& partial) {
  const Result<void> removed = storage.remove(partial);
  if (!removed && removed.error().code != ErrorCode::kNotFound) return removed;
  return {};
}

}  // namespace

Result<NamedPlace> place_of(const Storage& storage, const std::string& path) {
  if (const auto* real = dynamic_cast<const Places*>(&storage)) return real->place_of(path);
  const Result<FileStat> found = storage.stat(path);
  if (!found && found.error().code == ErrorCode::kNotFound)
    return NamedPlace{path, PlaceKind::kAbsent};
  if (!found) return found.error();
  const bool holds_others = PENSTOCK_TRY(storage.is_directory(path));
  return NamedPlace{path, holds_others ? PlaceKind::kDirectory : PlaceKind::kFile};
}

Result<OutputFile> OutputFile::create(Storage& storage, const std::string& path) {
  return create(storage, path, std::chrono::milliseconds(0));
}

Result<OutputFile> OutputFile::create(Storage& storage, const std::string& path,
                                      std::chrono::milliseconds wait_at_most) {
  if (path.empty()) return Error{ErrorCode::kInvalidArgument, "the path of the file is empty"};
  const NamedPlace place = PENSTOCK_TRY(place_of(storage, path));
  OutputFile out;
  out.storage_ = &storage;
  out.path_ = place.path;
  switch (place.kind) {
    case PlaceKind::kDirectory: return refused(path, "a folder");
    case PlaceKind::kOther: return refused(path, "a disk or a socket");
    case PlaceKind::kStream:
      out.file_ = PENSTOCK_TRY(dynamic_cast<Places&>(storage).open_stream(place.path));
      return out;
    case PlaceKind::kFile:
      // Asked now: rename() would replace a file that may not be written.
      PENSTOCK_TRY(storage.open(place.path, OpenMode::kWrite));
      break;
    case PlaceKind::kAbsent: break;
  }
  out.partial_ = place.path + ".partial";
  const NamedPlace leftover = PENSTOCK_TRY(place_of(storage, out.partial_));
  const bool is_ours = leftover.kind == PlaceKind::kFile || leftover.kind == PlaceKind::kAbsent;
  // What is absent is not removed: it may be there by now, as the file of another writer.
  if (!is_ours || leftover.path != out.partial_) {
    PENSTOCK_TRY(remove_leftover(storage, out.partial_));
  }
  out.lock_ = PENSTOCK_TRY(lock_in_turn(storage, out.partial_, wait_at_most));
  out.file_ = PENSTOCK_TRY(storage.open(out.partial_, OpenMode::kCreate));
  auto* const real = dynamic_cast<Places*>(&storage);
  if (place.kind == PlaceKind::kFile && real != nullptr) {
    PENSTOCK_TRY(real->copy_permissions(place.path, out.partial_));
  }
  return out;
}

OutputFile::~OutputFile() {
  if (file_ == nullptr || partial_.empty()) return;
  file_.reset();
  // Nobody can go on with half a file; the error to tell is the one that ended it.
  static_cast<void>(storage_->remove(partial_).has_value());
}

Result<void> OutputFile::append(std::span<const std::byte> bytes) {
  PENSTOCK_TRY(file_->write(position_, bytes));
  position_ += bytes.size();
  return {};
}

Result<void> OutputFile::finish() {
  PENSTOCK_TRY(file_->sync());
  if (!partial_.empty()) {
    PENSTOCK_TRY(storage_->rename(partial_, path_));
    file_.reset();
    PENSTOCK_TRY(storage_->sync_directory(folder_of(path_)));
  }
  file_.reset();
  lock_.reset();
  return {};
}

Result<void> check_output(Storage& storage, const std::string& path) {
  const NamedPlace place = PENSTOCK_TRY(place_of(storage, path));
  // Who reads from a pipe would see its end.
  if (place.kind == PlaceKind::kStream) return {};
  const Result<OutputFile> created = OutputFile::create(storage, path);
  if (!created) return created.error();
  return {};
}

Result<void> write_output(Storage& storage, const std::string& path,
                          std::span<const std::byte> bytes) {
  OutputFile out = PENSTOCK_TRY(OutputFile::create(storage, path, kTurnOfAnother));
  PENSTOCK_TRY(out.append(bytes));
  return out.finish();
}

}  // namespace penstock
