#include "pack/workspace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/byte_text.h"
#include "format/manifest.h"
#include "format/text.h"
#include "io/paths.h"
#include "pack/shrinking_source.h"

namespace penstock {
namespace {

constexpr std::array<std::string_view, 6> kCopiedNames = {
    "config.json",           "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "added_tokens.json",      "chat_template.jinja"};

std::string old_path(const std::string& target) {
  return target + ".old";
}

bool is_ours(std::string_view name) {
  constexpr std::array<std::string_view, 6> kOurs = {
      kManifestName, kResidentName, kResidentSumsName, kExpertsName, kExpertSumsName, kMtpName};
  // As OutputFile leaves them when the power fails.
  if (name.ends_with(".partial")) name.remove_suffix(std::string_view(".partial").size());
  return std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end() ||
         std::find(kCopiedNames.begin(), kCopiedNames.end(), name) != kCopiedNames.end();
}

// kInvalidArgument when a directory holds what no packer has made: then it is not ours to delete.
Result<void> check_ours(const Storage& storage, const std::string& directory) {
  for (const std::string& name : PENSTOCK_TRY(storage.list(directory))) {
    if (is_ours(name)) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{} is in the way and holds {}, which is not part of a penstock model; "
                    "move it away",
                    directory, escaped(name))};
  }
  return {};
}

Result<void> remove_ours(Storage& storage, const std::string& directory) {
  if (!PENSTOCK_TRY(exists(storage, directory))) return {};
  PENSTOCK_TRY(check_ours(storage, directory));
  return storage.remove_tree(directory);
}

// With its ancestors, and with all their names durable.
Result<void> make_durable_directory(Storage& storage, const std::string& path) {
  std::vector<std::string> made;
  for (std::string place = path; place != parent_of(place); place = parent_of(place)) {
    if (PENSTOCK_TRY(exists(storage, place))) break;
    made.push_back(place);
  }
  if (made.empty()) return {};
  PENSTOCK_TRY(storage.make_directory(path));
  for (const std::string& place : made) PENSTOCK_TRY(storage.sync_directory(parent_of(place)));
  return {};
}

Result<void> check_free_space(const Storage& storage, const WorkspaceOptions& options) {
  if (options.in_place) return {};
  const std::string place = PENSTOCK_TRY(place_for(storage, options.target));
  const uint64_t needed =
      options.resident_bytes + options.experts_bytes + options.other_bytes + kSpareBytes;
  const uint64_t free = PENSTOCK_TRY(storage.free_bytes(place));
  // Some network and user-space file systems tell no free space at all.
  if (free >= needed || options.replace) return {};
  return Error{ErrorCode::kOutOfMemory,
               fmt::format("the disk of {} is too small: the packed model needs {}, {} are free; "
                           "--force tries all the same",
                           place, format_bytes(needed), format_bytes(free))};
}

}  // namespace

std::span<const std::string_view> copied_file_names() {
  return kCopiedNames;
}

std::string partial_path(const std::string& target) {
  return target + ".partial";
}
std::string journal_path(const std::string& target) {
  return target + ".journal";
}

Result<std::string> place_for(const Storage& storage, const std::string& target) {
  std::string place = parent_of(target);
  while (place != parent_of(place) && !PENSTOCK_TRY(exists(storage, place))) {
    place = parent_of(place);
  }
  return place;
}

Workspace::Workspace(Storage& storage, const WorkspaceOptions& options, Journal journal)
    : storage_(&storage),
      options_(options),
      directory_(partial_path(options.target)),
      journal_(std::move(journal)) {}

Result<void> Workspace::check_target(Storage& storage, const std::string& target, bool replace) {
  if (!PENSTOCK_TRY(exists(storage, target))) return {};
  if (!replace) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} exists; choose another target, or --force to replace it once the "
                             "new model is complete",
                             target)};
  }
  if (!PENSTOCK_TRY(exists(storage, target + "/" + std::string(kManifestName)))) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{} exists and is not a penstock model, so it is not replaced; move it "
                    "away",
                    target)};
  }
  return check_ours(storage, target);
}

Result<void> Workspace::open_files(OpenMode mode) {
  resident_ = PENSTOCK_TRY(storage_->open(directory_ + "/" + std::string(kResidentName), mode));
  experts_ = PENSTOCK_TRY(storage_->open(directory_ + "/" + std::string(kExpertsName), mode));
  if (options_.in_place) return {};
  PENSTOCK_TRY(resident_->reserve(options_.resident_bytes));
  PENSTOCK_TRY(experts_->reserve(options_.experts_bytes));
  return {};
}

// The journal first: from then on it says that nothing is done, whatever is still lying there.
Result<Workspace> Workspace::start_over(Storage& storage, const WorkspaceOptions& options) {
  PENSTOCK_TRY(ShrinkingSource::check_nothing_consumed(storage, options.target));
  // Or the model that is made now would later count as read back, and the source as its own.
  PENSTOCK_TRY(ShrinkingSource::forget(storage, options.target));
  Journal journal =
      PENSTOCK_TRY(Journal::create(storage, journal_path(options.target), options.key));
  Workspace result(storage, options, std::move(journal));
  PENSTOCK_TRY(remove_ours(storage, result.directory_));
  PENSTOCK_TRY(check_free_space(storage, options));
  PENSTOCK_TRY(storage.make_directory(result.directory_));
  PENSTOCK_TRY(storage.sync_directory(parent_of(options.target)));
  PENSTOCK_TRY(result.open_files(OpenMode::kCreate));
  PENSTOCK_TRY(storage.sync_directory(result.directory_));
  return result;
}

Result<Workspace> Workspace::open(Storage& storage, const WorkspaceOptions& options) {
  const bool is_new = !PENSTOCK_TRY(exists(storage, partial_path(options.target)));
  // Asked before anything is made, so that nothing is left behind.
  if (is_new) PENSTOCK_TRY(check_free_space(storage, options));
  PENSTOCK_TRY(make_durable_directory(storage, parent_of(options.target)));
  const std::string journal_file = journal_path(options.target);
  const bool had_journal = PENSTOCK_TRY(exists(storage, journal_file));
  std::unique_ptr<Storage::Lock> lock = PENSTOCK_TRY(storage.lock(journal_file));
  const bool had_directory = PENSTOCK_TRY(exists(storage, partial_path(options.target)));

  std::string note;
  if (had_journal && had_directory) {
    Result<Journal> journal = Journal::resume(storage, journal_file, options.key);
    if (journal) {
      Workspace result(storage, options, std::move(*journal));
      const Result<void> opened = result.open_files(OpenMode::kWrite);
      if (opened) {
        result.lock_ = std::move(lock);
        return result;
      }
      if (opened.error().code != ErrorCode::kNotFound) return opened.error();
      note = opened.error().message;
    } else {
      if (journal.error().code != ErrorCode::kNotFound) return journal.error();
      note = journal.error().message;
    }
    note = fmt::format("starting over, the unfinished pack in {} cannot be continued: {}",
                       partial_path(options.target), note);
  }
  Workspace result = PENSTOCK_TRY(start_over(storage, options));
  result.lock_ = std::move(lock);
  result.note_ = std::move(note);
  return result;
}

Result<void> Workspace::commit() {
  if (resident_ == nullptr) return {};  // install() has begun: everything is durable
  // A sync that failed may have dropped the bytes; a later one would report success all the same.
  if (sync_failed_) return Error{ErrorCode::kIo, directory_ + ": an earlier sync failed"};
  for (StorageFile* file : {resident_.get(), experts_.get()}) {
    const Result<void> synced = file->sync();
    if (!synced) {
      sync_failed_ = true;
      return synced;
    }
    file->drop_cached(0, UINT64_MAX >> 1);
  }
  return journal_.commit();
}

Result<void> Workspace::write_file(std::string_view name, std::span<const std::byte> bytes) {
  const std::string path = directory_ + "/" + std::string(name);
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage_->open(path, OpenMode::kCreate));
  PENSTOCK_TRY(file->write(0, bytes));
  return file->sync();
}

Result<void> Workspace::install() {
  resident_.reset();
  experts_.reset();
  const std::string& target = options_.target;
  const std::string old = old_path(target);
  const std::string parent = parent_of(target);
  PENSTOCK_TRY(storage_->sync_directory(directory_));
  if (PENSTOCK_TRY(exists(*storage_, target))) {
    PENSTOCK_TRY(check_target(*storage_, target, options_.replace));
    PENSTOCK_TRY(remove_ours(*storage_, old));
    PENSTOCK_TRY(storage_->rename(target, old));
  }
  PENSTOCK_TRY(storage_->rename(directory_, target));
  return storage_->sync_directory(parent);
}

Result<void> Workspace::tidy() {
  // An old model may also be left from a crash between the two renames of an earlier run.
  PENSTOCK_TRY(remove_ours(*storage_, old_path(options_.target)));
  PENSTOCK_TRY(storage_->remove(journal_path(options_.target)));
  return storage_->sync_directory(parent_of(options_.target));
}

}  // namespace penstock
