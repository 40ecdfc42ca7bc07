#include "pack/shrinking_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/byte_cursor.h"
#include "base/check.h"
#include "format/corrupt.h"
#include "format/text.h"
#include "io/checksum.h"
#include "io/output_file.h"
#include "io/paths.h"

namespace penstock {
namespace {

constexpr std::string_view kMagic = "PSSOURCE";
constexpr uint64_t kRecordBytesMax = uint64_t{4} << 30;

// A folder of the name is somebody else's.
Result<bool> is_file_there(const Storage& storage, const std::string& path) {
  if (!PENSTOCK_TRY(exists(storage, path))) return false;
  return !PENSTOCK_TRY(storage.is_directory(path));
}

// The number of a disk may be another after a restart.
bool is_same_file(const FileStat& now, const FileStat& then) {
  return now.bytes == then.bytes && now.inode == then.inode && now.modified_ns == then.modified_ns;
}

void append_number(std::vector<std::byte>& out, uint64_t number) {
  const auto bytes = std::as_bytes(std::span(&number, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// Bytes of a file by where they lie; no two ranges overlap.
using Ranges = std::map<uint64_t, std::vector<std::byte>>;

uint64_t end_of(const Ranges::value_type& range) {
  return range.first + range.second.size();
}

void keep(Ranges& ranges, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto next = ranges.upper_bound(offset);
    const auto before = next == ranges.begin() ? ranges.end() : std::prev(next);
    if (before != ranges.end() && end_of(*before) > offset) {  // known already
      const uint64_t known = std::min<uint64_t>(end_of(*before) - offset, bytes.size());
      offset += known;
      bytes = bytes.subspan(known);
      continue;
    }
    const uint64_t count = next == ranges.end()
                               ? bytes.size()
                               : std::min<uint64_t>(next->first - offset, bytes.size());
    const auto fresh = bytes.first(count);
    if (before != ranges.end() && end_of(*before) == offset) {
      before->second.insert(before->second.end(), fresh.begin(), fresh.end());
    } else {
      ranges.emplace(offset, std::vector<std::byte>(fresh.begin(), fresh.end()));
    }
    offset += count;
    bytes = bytes.subspan(count);
  }
}

}  // namespace

struct ShrinkingSource::Entry {
  std::string path;
  FileStat stat;
  Ranges ranges;
  bool keeps_reads = false;
  bool is_gone = false;
  mutable std::atomic<bool> was_read = false;
  std::vector<std::weak_ptr<std::unique_ptr<StorageFile>>> open;  // emptied when the file goes
};

struct ShrinkingSource::Record {
  uint64_t model_id = 0;
  std::vector<std::shared_ptr<Entry>> files;
};

class ShrinkingSource::Reading final : public StorageFile {
 public:
  Reading(std::shared_ptr<Entry> entry, std::shared_ptr<std::unique_ptr<StorageFile>> real)
      : entry_(std::move(entry)), real_(std::move(real)) {}

  const std::string& path() const override { return entry_->path; }
  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    entry_->was_read = true;
    if (*real_ == nullptr) return read_kept(offset, target);
    const int64_t got = (*real_)->try_read(offset, target);
    if (got > 0 && entry_->keeps_reads) {
      keep(entry_->ranges, offset, target.first(static_cast<size_t>(got)));
    }
    return got;
  }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return read_only(); }
  Result<void> reserve(uint64_t) override { return read_only(); }
  Result<void> sync() override { return read_only(); }
  Result<FileStat> stat() const override {
    return *real_ == nullptr ? Result<FileStat>(entry_->stat) : (*real_)->stat();
  }
  void drop_cached(uint64_t offset, uint64_t bytes) const override {
    if (*real_ != nullptr) (*real_)->drop_cached(offset, bytes);
  }
  uint64_t alignment() const override { return *real_ == nullptr ? 1 : (*real_)->alignment(); }
  int descriptor() const override { return -1; }  // no reader goes past this

 private:
  Error read_only() const {
    return {ErrorCode::kIo, fmt::format("{}: of a source, which is not written to", path())};
  }
  int64_t read_kept(uint64_t offset, std::span<std::byte> target) const {
    if (offset >= entry_->stat.bytes || target.empty()) return 0;
    const auto next = entry_->ranges.upper_bound(offset);
    if (next == entry_->ranges.begin() || end_of(*std::prev(next)) <= offset) return -ENODATA;
    const auto& range = *std::prev(next);
    const uint64_t count = std::min<uint64_t>(end_of(range) - offset, target.size());
    std::memcpy(target.data(), range.second.data() + (offset - range.first), count);
    return static_cast<int64_t>(count);
  }

  std::shared_ptr<Entry> entry_;
  std::shared_ptr<std::unique_ptr<StorageFile>> real_;  // null inside: gone
};

ShrinkingSource::ShrinkingSource(Storage& real, std::string target)
    : real_(real), target_(std::move(target)) {}
ShrinkingSource::~ShrinkingSource() = default;

std::string source_record_path(const std::string& target) {
  return target + ".in-place";
}

// Nothing where there is no record.
Result<std::unique_ptr<ShrinkingSource::Record>> ShrinkingSource::read_record(
    Storage& real, const std::string& target) {
  const std::string path = source_record_path(target);
  if (!PENSTOCK_TRY(is_file_there(real, path))) return std::unique_ptr<Record>();
  const std::string text = PENSTOCK_TRY(read_text(real, path, kRecordBytesMax));
  const auto all = std::as_bytes(std::span(text));
  const Error damaged = {
      ErrorCode::kCorrupt,
      fmt::format("{}: what it tells of the source of an unfinished pack is damaged; remove it if "
                  "that pack is given up",
                  path)};
  if (all.size() < kMagic.size() + sizeof(Hash128) || !text.starts_with(kMagic)) return damaged;
  const auto body = all.first(all.size() - sizeof(Hash128));
  const Hash128 sum = checksum(body, 0);
  if (std::memcmp(all.data() + body.size(), &sum, sizeof(sum)) != 0) return damaged;
  ByteCursor cursor(body.subspan(kMagic.size()));
  auto record = std::make_unique<Record>();
  record->model_id = cursor.read<uint64_t>();
  for (uint64_t left = cursor.read<uint64_t>(); left > 0 && cursor.ok(); --left) {
    auto entry = std::make_shared<Entry>();
    const auto name = cursor.take(cursor.read<uint64_t>());
    entry->path.assign(reinterpret_cast<const char*>(name.data()), name.size());
    entry->stat.bytes = cursor.read<uint64_t>();
    entry->stat.inode = cursor.read<uint64_t>();
    entry->stat.modified_ns = cursor.read<int64_t>();
    for (uint64_t ranges = cursor.read<uint64_t>(); ranges > 0 && cursor.ok(); --ranges) {
      const auto offset = cursor.read<uint64_t>();
      const auto bytes = cursor.take(cursor.read<uint64_t>());
      entry->ranges.emplace(offset, std::vector<std::byte>(bytes.begin(), bytes.end()));
    }
    entry->is_gone = !PENSTOCK_TRY(exists(real, entry->path));
    record->files.push_back(std::move(entry));
  }
  if (!cursor.ok() || cursor.remaining() != 0) return damaged;
  return record;
}

Result<std::unique_ptr<ShrinkingSource>> ShrinkingSource::open(Storage& real,
                                                               const std::string& target) {
  std::unique_ptr<ShrinkingSource> made(new ShrinkingSource(real, target));
  made->record_ = PENSTOCK_TRY(read_record(real, target));
  if (made->record_ == nullptr) return made;
  const auto& files = made->record_->files;
  made->goes_on_ = std::ranges::any_of(files, [](const auto& file) { return file->is_gone; });
  if (!made->goes_on_) return made;
  for (const std::shared_ptr<Entry>& file : files) {
    made->entries_[file->path] = file;
    if (file->is_gone) continue;
    const FileStat now = PENSTOCK_TRY(real.stat(file->path));
    if (!is_same_file(now, std::exchange(file->stat, now)))
      return corrupt(file->path,
                     fmt::format("is not the file any more that was there when {} was begun; put "
                                 "that one back",
                                 target + ".partial"));
  }
  return made;
}

Result<void> ShrinkingSource::check_nothing_consumed(Storage& real, const std::string& target) {
  const std::unique_ptr<Record> record = PENSTOCK_TRY(read_record(real, target));
  if (record == nullptr) return {};
  const auto gone = std::ranges::count_if(record->files, &Entry::is_gone);
  if (gone == 0) return {};
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{0}.partial was begun with --in-place and is not started over: {1} files of its "
                  "source, such as {2}, are gone, and what was made of them is there alone. Go on "
                  "with the same source and flags; if it is given up, remove {0}.partial, "
                  "{0}.journal and {0}.in-place",
                  target, gone,
                  escaped((*std::ranges::find_if(record->files, &Entry::is_gone))->path))};
}

uint64_t ShrinkingSource::recorded_model() const {
  return record_->model_id;
}

std::vector<ShrinkingSource::File> ShrinkingSource::recorded_files() const {
  std::vector<File> files;
  for (const std::shared_ptr<Entry>& file : record_->files) {
    files.push_back({file->path, file->stat, file->is_gone});
  }
  return files;
}

Result<void> ShrinkingSource::remove_recorded_files(
    const std::function<void(const File&)>& on_removed) {
  for (const File& file : recorded_files()) {
    if (file.is_gone || !is_same_file(PENSTOCK_TRY(real_.stat(file.path)), file.stat)) continue;
    PENSTOCK_TRY(real_.remove(file.path));
    PENSTOCK_TRY(real_.sync_directory(parent_of(file.path)));
    on_removed(file);
  }
  return {};
}

Result<void> ShrinkingSource::settle(std::span<const std::string> paths) {
  PENSTOCK_CHECK(!is_settled_);
  is_settled_ = true;
  for (auto& [path, entry] : entries_) entry->keeps_reads = false;
  std::map<std::string, std::shared_ptr<Entry>> kept;
  for (const std::string& path : paths) {
    const auto found = entries_.find(path);
    if (found == entries_.end()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}.partial was begun with --in-place and of another source, which "
                               "{} is no part of; give the same SOURCE",
                               target_, escaped(path))};
    }
    const std::shared_ptr<Entry>& entry = found->second;
    if (!goes_on_) entry->stat = PENSTOCK_TRY(real_.stat(path));
    files_.push_back({path, entry->stat, entry->is_gone});
    of_files_.push_back(entry);
    kept[path] = entry;
  }
  entries_ = std::move(kept);
  return {};
}

Result<void> ShrinkingSource::save(uint64_t model_id) {
  const auto magic = std::as_bytes(std::span(kMagic));
  std::vector<std::byte> out(magic.begin(), magic.end());
  append_number(out, model_id);
  append_number(out, of_files_.size());
  for (const std::shared_ptr<Entry>& file : of_files_) {
    append_number(out, file->path.size());
    const auto path = std::as_bytes(std::span(file->path));
    out.insert(out.end(), path.begin(), path.end());
    append_number(out, file->stat.bytes);
    append_number(out, file->stat.inode);
    append_number(out, static_cast<uint64_t>(file->stat.modified_ns));
    append_number(out, file->ranges.size());
    for (const auto& [offset, bytes] : file->ranges) {
      append_number(out, offset);
      append_number(out, bytes.size());
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
  }
  const Hash128 sum = checksum(out, 0);
  append_number(out, sum.low);
  append_number(out, sum.high);
  return write_output(real_, source_record_path(target_), out);
}

Result<void> ShrinkingSource::remove_file(size_t index) {
  Entry& entry = *of_files_[index];
  PENSTOCK_CHECK(!entry.is_gone);
  PENSTOCK_TRY(real_.remove(entry.path));
  entry.is_gone = files_[index].is_gone = true;
  // An open file keeps its room.
  for (const auto& open : entry.open) {
    if (const auto file = open.lock()) file->reset();
  }
  return real_.sync_directory(parent_of(entry.path));
}

Result<void> ShrinkingSource::remove_record() {
  return forget(real_, target_);
}

Result<void> ShrinkingSource::forget(Storage& real, const std::string& target) {
  const std::string path = source_record_path(target);
  if (!PENSTOCK_TRY(is_file_there(real, path))) return {};
  PENSTOCK_TRY(real.remove(path));
  // One that comes back after a power cut tells nothing wrong.
  static_cast<void>(real.sync_directory(parent_of(path)).has_value());
  return {};
}

bool ShrinkingSource::take_was_read(size_t index) {
  return of_files_[index]->was_read.exchange(false);
}

const ShrinkingSource::Entry* ShrinkingSource::find_gone(const std::string& path) const {
  const auto found = entries_.find(path);
  return found != entries_.end() && found->second->is_gone ? found->second.get() : nullptr;
}

Result<std::unique_ptr<StorageFile>> ShrinkingSource::open(const std::string& path, OpenMode mode) {
  const bool is_read = mode == OpenMode::kRead || mode == OpenMode::kReadDirect;
  const auto found = entries_.find(path);
  const bool is_known = found != entries_.end();
  if (!is_read || (is_settled_ && !is_known)) return real_.open(path, mode);
  auto real = std::make_shared<std::unique_ptr<StorageFile>>();
  if (!is_known || !found->second->is_gone) *real = PENSTOCK_TRY(real_.open(path, mode));
  std::shared_ptr<Entry>& entry = is_known ? found->second : entries_[path];
  if (!is_known) {
    entry = std::make_shared<Entry>();
    entry->path = path;
    entry->keeps_reads = !goes_on_;
  }
  std::erase_if(entry->open, [](const auto& open) { return open.expired(); });
  entry->open.push_back(real);
  return std::unique_ptr<StorageFile>(std::make_unique<Reading>(entry, std::move(real)));
}

Result<FileStat> ShrinkingSource::stat(const std::string& path) const {
  if (const Entry* gone = find_gone(path)) return gone->stat;
  return real_.stat(path);
}

Result<bool> ShrinkingSource::is_directory(const std::string& path) const {
  if (find_gone(path) != nullptr) return false;
  return real_.is_directory(path);
}

Result<std::vector<std::string>> ShrinkingSource::list(const std::string& directory) const {
  std::vector<std::string> names = PENSTOCK_TRY(real_.list(directory));
  for (const auto& [path, entry] : entries_) {
    if (entry->is_gone && parent_of(path) == directory) {
      names.push_back(path.substr(path.rfind('/') + 1));
    }
  }
  std::ranges::sort(names);
  return names;
}

Result<void> ShrinkingSource::make_directory(const std::string& path) {
  return real_.make_directory(path);
}
Result<void> ShrinkingSource::rename(const std::string& from, const std::string& to) {
  return real_.rename(from, to);
}
Result<void> ShrinkingSource::remove(const std::string& path) {
  return real_.remove(path);
}
Result<void> ShrinkingSource::remove_tree(const std::string& path) {
  return real_.remove_tree(path);
}
Result<void> ShrinkingSource::sync_directory(const std::string& path) {
  return real_.sync_directory(path);
}
Result<uint64_t> ShrinkingSource::free_bytes(const std::string& path) const {
  return real_.free_bytes(path);
}
Result<std::unique_ptr<Storage::Lock>> ShrinkingSource::lock(const std::string& path) {
  return real_.lock(path);
}

}  // namespace penstock
