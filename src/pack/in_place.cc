#include "pack/in_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "base/byte_text.h"
#include "format/container.h"
#include "format/text.h"
#include "io/held_bytes.h"
#include "io/locks.h"
#include "pack/consumption.h"
#include "pack/pack_input.h"
#include "pack/packer.h"
#include "pack/piece_check.h"
#include "pack/shrinking_source.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

Result<void> check_options(const PackOptions& options) {
  const char* other = nullptr;
  if (options.force) other = "--force, as it replaces nothing and has to know the room";
  if (options.target_bytes) other = "--target-bytes, as a pack that goes on measures all again";
  if (options.calibrate) other = "--calibrate, as a pack that goes on runs all of the source again";
  if (other == nullptr) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("--in-place does not go with {}", other)};
}

Result<void> check_record_name(const Storage& storage, const std::string& target) {
  const std::string path = source_record_path(target);
  const Result<bool> is_folder = storage.is_directory(path);
  if (!is_folder || !*is_folder) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is a folder, and --in-place keeps there what it has to know of the "
                           "source; give another TARGET",
                           path)};
}

// What each piece is made from, and in which order they are written.
struct Work {
  std::vector<PieceSource> pieces;
  std::vector<ConsumedFile> files;
  Consumption consumption;
};

Work plan_work(const PackInput& input, const ShrinkingSource& source, NextFile next) {
  Work work;
  const size_t num_resident = input.resident().size();
  for (size_t index = 0; index < num_resident; ++index) {
    work.pieces.push_back({piece_bytes(input, index), input.files_of_resident(index)});
  }
  for (int64_t layer = 0; layer < input.experts().num_layers; ++layer) {
    for (int64_t expert = 0; expert < input.experts().num_experts; ++expert) {
      const uint64_t bytes = piece_bytes(input, work.pieces.size());
      work.pieces.push_back({bytes, input.files_of_expert(layer, expert)});
    }
  }
  for (const ShrinkingSource::File& file : source.files()) {
    work.files.push_back({.bytes = file.stat.bytes, .is_gone = file.is_gone});
  }
  for (const uint32_t file : input.files_of_kept()) work.files[file].is_kept = true;
  work.consumption = plan_consumption(work.pieces, work.files, next);
  return work;
}

// Room that pieces take which were written and not made durable: they are written again, over these.
uint64_t unfinished_bytes(const Storage& storage, const PackOptions& options,
                          const std::string& target, const Work& work, size_t num_done) {
  uint64_t held = 0, done = 0;
  for (const std::string_view name : {kResidentName, kExpertsName}) {
    const std::string path = partial_path(target) + "/" + std::string(name);
    const Result<uint64_t> bytes = held_bytes(storage, path);
    if (bytes) held += *bytes;
  }
  for (size_t place = 0; place < std::min(num_done, work.pieces.size()); ++place) {
    done += work.pieces[work.consumption.order[place]].bytes;
  }
  // A file system may hold more for a file that grows, and take that back.
  return std::min(held - std::min(held, done), options.sync_bytes);
}

// With what there is of each now.
std::vector<ConsumedFile> files_as_they_lie(const PackOptions& options,
                                            const ShrinkingSource& source, const Work& work) {
  std::vector<ConsumedFile> files = work.files;
  for (size_t file = 0; file < files.size(); ++file) {
    files[file].here_bytes = options.arriving->bytes_here(source.files()[file].path);
  }
  return files;
}

uint64_t largest_file(const Work& work) {
  uint64_t largest = 0;
  for (const ConsumedFile& file : work.files) largest = std::max(largest, file.bytes);
  return largest;
}

// Of the first run: the disk never holds more than two of its files beside what it holds now.
Result<void> check_staging(const PackOptions& options, const Work& work, uint64_t staging) {
  const uint64_t largest = largest_file(work);
  if (staging <= 2 * largest + kSpareBytes) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: --in-place would need {} beside it at the worst moment, more than "
                           "two of its files ({} the largest), as its weights lie or grow; pack "
                           "without --in-place where there is room",
                           escaped(options.source), format_bytes(staging), format_bytes(largest))};
}

Result<void> check_room(const Storage& storage, const std::string& target, const Work& work,
                        uint64_t staging) {
  const uint64_t needed = staging + kSpareBytes;
  const std::string place = PENSTOCK_TRY(place_for(storage, target));
  const uint64_t free = PENSTOCK_TRY(storage.free_bytes(place));
  if (free >= needed) return {};
  return Error{ErrorCode::kOutOfMemory,
               fmt::format("the disk of {} is too small: packing in place needs {} beside the "
                           "source at the worst moment, {} are free; the source is {} files, {} "
                           "the largest, and one goes only when all of it was packed",
                           place, format_bytes(needed), format_bytes(free), work.files.size(),
                           format_bytes(largest_file(work)))};
}

Result<void> check_one_disk(const Storage& storage, const std::string& target,
                            const ShrinkingSource& source) {
  const std::string place = PENSTOCK_TRY(place_for(storage, target));
  const uint64_t device = PENSTOCK_TRY(storage.stat(place)).device;
  for (const ShrinkingSource::File& file : source.files()) {
    if (file.is_gone || file.stat.device == device) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is on another disk than {}, where its room would be of no use; "
                             "pack without --in-place",
                             escaped(file.path), place)};
  }
  return {};
}

// Of files that arrive: that two at a time are enough, and that the disk has room for what they become
// and for them.
Result<void> check_arrivals(const Storage& storage, const PackOptions& options,
                            const std::string& target, const Work& work, const ArrivalRoom& all,
                            uint64_t left_bytes) {
  constexpr size_t kFilesMax = 2;
  if (all.num_files > kFilesMax) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: its weights lie scattered, so that {} of its {} files would have "
                             "to be here at a time; pull without --shard-by-shard",
                             escaped(options.source), all.num_files, work.files.size())};
  }
  const uint64_t needed = left_bytes + kSpareBytes;
  const std::string place = PENSTOCK_TRY(place_for(storage, target));
  const uint64_t free = PENSTOCK_TRY(storage.free_bytes(place));
  if (free >= needed) return {};
  return Error{
      ErrorCode::kOutOfMemory,
      fmt::format("the disk of {} is too small: what is packed, with {} of the source's {} "
                  "files at a time, needs {} more at the worst moment, {} are free; make "
                  "room, or give a TARGET on another disk",
                  place, all.num_files, work.files.size(), format_bytes(needed),
                  format_bytes(free))};
}

// What a person might not have meant: the flag is usual where the source stays.
Result<void> check_precision(const PackOptions& options, const StoredTypes& types) {
  if (!options.is_usual || !types.experts) return {};
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{}: its experts would get {} bits, and the precision they have would "
                  "be gone with the files; say --experts {} if that is meant, or --experts "
                  "keep",
                  escaped(options.source), name_of(*types.experts).substr(1),
                  name_of(*types.experts).substr(1))};
}

std::vector<std::string> what_is_lost(const PackInput& input) {
  std::vector<std::string> lost;
  const StoredTypes& types = input.types();
  if (types.experts) {
    lost.push_back(fmt::format(
        "the precision of the experts, which become {}",
        types.down ? fmt::format("{}, down {}", name_of(*types.experts), name_of(*types.down))
                   : std::string(name_of(*types.experts))));
  }
  if (types.resident) {
    lost.push_back(fmt::format("the precision of the other matrices, which become {}",
                               name_of(*types.resident)));
  }
  for (std::string& sentence : input.left_out()) lost.push_back(std::move(sentence));
  return lost;
}

// Another order of pieces would make another journal: it belongs to the key.
Hash128 key_of(const PackInput& input, const Consumption& consumption) {
  const Hash128 source = input.pack_key();
  RunningChecksum sum;
  sum.update(std::as_bytes(std::span("in place")));
  sum.update(std::as_bytes(std::span(&source, 1)));
  sum.update(std::as_bytes(std::span(consumption.order)));
  return sum.value();
}

InPlaceFacts facts_of(const std::vector<ShrinkingSource::File>& files) {
  InPlaceFacts facts;
  for (const ShrinkingSource::File& file : files) {
    if (file.is_gone) {
      ++facts.num_gone;
      continue;
    }
    facts.files.push_back({file.path, file.stat.bytes});
    facts.bytes += file.stat.bytes;
  }
  return facts;
}

// Only the run that read all of it back removes what is left, and only of the source that is named.
Result<void> check_may_clear_up(const Storage& storage, const PackOptions& options,
                                const std::string& target, const ShrinkingSource& source) {
  const auto refused = [&](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is there, and {} tells of a pack in place that {}; nothing was "
                             "removed: take that file away, or the model",
                             target, source_record_path(target), why)};
  };
  const std::filesystem::path named(options.source);
  const std::vector<ShrinkingSource::File> files = source.recorded_files();
  const bool is_file = std::ranges::any_of(
      files, [&](const ShrinkingSource::File& file) { return file.path == options.source; });
  const std::filesystem::path folder = is_file ? named.parent_path() : named;
  for (const ShrinkingSource::File& file : files) {
    if (std::filesystem::path(file.path).parent_path() != folder) {
      return refused(fmt::format("was of another source, {}", escaped(file.path)));
    }
    if (!file.is_gone && !storage.stat(journal_path(target))) return refused("did not make it");
  }
  return {};
}

// Held by who consumes it, on a file of it that stays, or of a GGUF file's shards on the first.
Result<std::unique_ptr<Storage::Lock>> lock_source(Storage& storage, const PackOptions& options,
                                                   const ShrinkingSource& source) {
  const Result<bool> is_folder = storage.is_directory(options.source);
  const std::string path =
      is_folder && *is_folder ? options.source + "/config.json" : options.source;
  std::unique_ptr<Storage::Lock> held;
  if (storage.stat(path)) {  // taking it would make the file
    Result<std::unique_ptr<Storage::Lock>> lock = storage.lock(path);
    if (!lock && is_locked_error(lock.error())) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: another program consumes it; nothing was removed here",
                               escaped(options.source))};
    }
    if (lock) held = std::move(*lock);  // a file that may not be written to is not locked
  }
  for (const ShrinkingSource::File& file : source.files()) {
    if (file.is_gone || storage.stat(file.path)) continue;
    return Error{
        ErrorCode::kNotFound,
        fmt::format("{} was removed meanwhile; nothing was removed here", escaped(file.path))};
  }
  return held;
}

// The model has its name already; what is left are files that were packed and read back before.
Result<PackReport> clear_up(Storage& storage, const PackOptions& options, const std::string& target,
                            ShrinkingSource& source, const PackCallback& progress) {
  const Container model = PENSTOCK_TRY(Container::open(storage, target));
  if (model.model_id() != source.recorded_model()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is another model than the one that {} tells of; move it away",
                             target, source_record_path(target))};
  }
  PENSTOCK_TRY(check_may_clear_up(storage, options, target, source));
  PENSTOCK_TRY(options.in_place(facts_of(source.recorded_files())));
  std::unique_ptr<Storage::Lock> lock = PENSTOCK_TRY(storage.lock(journal_path(target)));
  PackReport report;
  report.id = model.id_text();
  report.resident_bytes = model.resident_bytes();
  report.experts_bytes = model.experts().file_bytes();
  report.resumed_bytes = report.resident_bytes + report.experts_bytes;
  PENSTOCK_TRY(source.remove_recorded_files([&](const ShrinkingSource::File& gone) {
    report.removed.push_back({gone.path, gone.stat.bytes});
    if (!progress) return;
    progress(
        {.stage = PackStage::kFinishing,
         .bytes_done = report.resumed_bytes,
         .bytes_total = report.resumed_bytes,
         .note = fmt::format("{}: {} removed", escaped(gone.path), format_bytes(gone.stat.bytes))});
  }));
  const Result<void> removed = storage.remove(journal_path(target));
  if (!removed && removed.error().code != ErrorCode::kNotFound) return removed.error();
  PENSTOCK_TRY(source.remove_record());
  return report;
}

// Of a source that is here and goes: asks whether it may, and holds it.
Result<std::unique_ptr<Storage::Lock>> agree(Storage& storage, const PackOptions& options,
                                             const std::string& target, const PackInput& input,
                                             const ShrinkingSource& source, const Work& work,
                                             uint64_t staging) {
  PENSTOCK_TRY(check_precision(options, input.types()));
  PENSTOCK_TRY(check_one_disk(storage, target, source));
  InPlaceFacts facts = facts_of(source.files());
  facts.lost = what_is_lost(input);
  if (!source.goes_on()) {
    facts.staging_bytes = staging;
    PENSTOCK_TRY(check_staging(options, work, staging));
    // Before anything is made, so that nothing is left behind.
    if (!storage.stat(partial_path(target))) {
      PENSTOCK_TRY(check_room(storage, target, work, staging));
    }
  }
  PENSTOCK_TRY(options.in_place(facts));
  return lock_source(storage, options, source);
}

}  // namespace

Result<PackReport> pack_in_place(Storage& storage, const PackOptions& options,
                                 const std::string& target, const PackCallback& progress,
                                 const std::stop_token& stop) {
  const bool arrives = options.arriving.has_value();
  if (arrives) {
    PENSTOCK_TRY(ShrinkingSource::check_nothing_consumed(storage, target));
  } else {
    PENSTOCK_TRY(check_options(options));
    PENSTOCK_TRY(check_record_name(storage, target));
  }
  const std::unique_ptr<ShrinkingSource> source =
      PENSTOCK_TRY(ShrinkingSource::open(storage, target));
  if (!arrives && source->has_record() && storage.stat(target)) {
    return clear_up(storage, options, target, *source, progress);
  }
  PENSTOCK_TRY(Workspace::check_target(storage, target, false));
  const std::unique_ptr<PackInput> input = PENSTOCK_TRY(open_pack_input(*source, options, stop));
  if (options.on_note) std::ranges::for_each(input->notes(), options.on_note);
  PENSTOCK_TRY(source->settle(input->source_paths()));
  const Work work =
      plan_work(*input, *source, arrives ? NextFile::kBegun : NextFile::kFewestMissing);
  WorkspaceOptions workspace_options = workspace_options_of(*input, target);
  workspace_options.in_place = true;
  workspace_options.key = key_of(*input, work.consumption);
  const auto staging_after = [&](size_t pieces_done) {
    return staging_bytes(work.consumption, work.pieces, work.files, pieces_done,
                         workspace_options.other_bytes);
  };
  const auto check_arrivals_after = [&](size_t pieces_done) {
    const auto room = [&](std::span<const ConsumedFile> files, size_t done) {
      return arrival_room(work.consumption, work.pieces, files, done,
                          workspace_options.other_bytes);
    };
    const uint64_t left = room(files_as_they_lie(options, *source, work), pieces_done).bytes;
    const uint64_t again = unfinished_bytes(storage, options, target, work, pieces_done);
    return check_arrivals(storage, options, target, work, room(work.files, 0),
                          left - std::min(left, again));
  };
  std::unique_ptr<Storage::Lock> source_lock;
  if (arrives) PENSTOCK_TRY(options.arriving->on_model(input->model_id()));
  if (!arrives) {
    source_lock =
        PENSTOCK_TRY(agree(storage, options, target, *input, *source, work, staging_after(0)));
  } else if (!storage.stat(partial_path(target))) {
    // Before anything is made, so that nothing is left behind.
    PENSTOCK_TRY(check_arrivals_after(0));
  }
  AlignedMemory memory =
      PENSTOCK_TRY(AlignedMemory::create(piece_check_bytes(*input), "one packed expert"));
  Workspace workspace = PENSTOCK_TRY(Workspace::open(storage, workspace_options));
  const size_t num_done = workspace.journal().pieces().size();
  if (arrives) {
    PENSTOCK_TRY(check_arrivals_after(num_done));
  } else {
    const uint64_t staging = staging_after(num_done);
    const uint64_t again = unfinished_bytes(storage, options, target, work, num_done);
    PENSTOCK_TRY(check_room(storage, target, work, staging - std::min(staging, again)));
    if (!source->goes_on()) PENSTOCK_TRY(source->save(input->model_id()));
  }
  return Packer({options, progress, stop, *input, workspace, memory, work.consumption, source.get(),
                 work.pieces})
      .run();
}

}  // namespace penstock
