// What a pack does with a source that it consumes: nothing of it goes before what was made of it was
// read back from the disk.

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"
#include "format/text.h"
#include "pack/packer.h"
#include "pack/piece_check.h"

namespace penstock {
namespace {

bool holds(std::span<const uint32_t> files, size_t file) {
  return std::ranges::binary_search(files, static_cast<uint32_t>(file));
}

}  // namespace

Result<void> Packer::begin_in_place() {
  const size_t num_done = journal().pieces().size();
  const auto& files = parts_.source->files();
  if (num_done > parts_.consumption.order.size()) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: its journal has more pieces than the model",
                                                  parts_.workspace.directory())};
  }
  was_read_back_.assign(parts_.pieces.size(), false);
  pieces_of_file_.assign(files.size(), {});
  for (size_t piece = 0; piece < parts_.pieces.size(); ++piece) {
    for (const uint32_t file : parts_.pieces[piece].files) pieces_of_file_[file].push_back(piece);
  }
  const std::vector<uint32_t> kept = parts_.input.files_of_kept();
  for (size_t file = 0; file < files.size(); ++file) {
    static_cast<void>(parts_.source->take_was_read(file));
    if (!files[file].is_gone) continue;
    const auto missing = std::ranges::find_if(pieces_of_file_[file], [&](size_t piece) {
      return parts_.consumption.place[piece] >= num_done;
    });
    if (missing == pieces_of_file_[file].end() && !holds(kept, file)) continue;
    const std::string what = missing == pieces_of_file_[file].end()
                                 ? std::string("the tensors that are kept")
                                 : piece_name(parts_.input, *missing);
    return Error{ErrorCode::kNotFound,
                 fmt::format("{} is gone, and {} was not made from it yet; put it back",
                             escaped(files[file].path), what)};
  }
  return check_what_is_left_alone();
}

// Pieces whose files are gone cannot be made again: damage of theirs is told before more goes.
Result<void> Packer::check_what_is_left_alone() {
  const auto& files = parts_.source->files();
  for (size_t file = 0; file < files.size(); ++file) {
    if (!files[file].is_gone) continue;
    for (const size_t piece : pieces_of_file_[file]) {
      if (was_read_back_[piece]) continue;
      PENSTOCK_TRY(stop_if_asked());
      if (!PENSTOCK_TRY(reads_back_well(piece))) {
        return Error{ErrorCode::kCorrupt,
                     fmt::format("{}: {} is not any more as it was written, and {}, from which it "
                                 "was made, is gone; nothing more was removed: put that file back, "
                                 "and the same command makes it again",
                                 parts_.workspace.directory(), piece_name(parts_.input, piece),
                                 escaped(files[file].path))};
      }
      was_read_back_[piece] = true;
    }
  }
  return {};
}

// A piece that needed a file nobody knew of might need one that is gone.
void Packer::check_files_read(size_t piece) {
  for (size_t file = 0; file < parts_.source->files().size(); ++file) {
    const bool was_read = parts_.source->take_was_read(file);
    PENSTOCK_CHECK(!was_read || holds(parts_.pieces[piece].files, file));
  }
}

Result<void> Packer::consume_spent(size_t pieces_written) {
  for (size_t file = 0; file < parts_.source->files().size(); ++file) {
    const bool is_spent = parts_.consumption.spent_after[file] <= pieces_written;
    if (!is_spent || parts_.source->files()[file].is_gone) continue;
    PENSTOCK_TRY(read_back(file));
    PENSTOCK_TRY(remove_file(file));
  }
  return {};
}

Result<void> Packer::read_back(size_t file) {
  PENSTOCK_TRY(stop_if_asked());
  PENSTOCK_TRY(parts_.input.check_unchanged());
  PENSTOCK_TRY(parts_.workspace.commit());
  bytes_unsynced_ = 0;
  for (const size_t piece : pieces_of_file_[file]) {
    if (was_read_back_[piece]) continue;
    PENSTOCK_TRY(stop_if_asked());
    stage_ = PackStage::kReadingBack;
    tell();
    if (!PENSTOCK_TRY(reads_back_well(piece))) PENSTOCK_TRY(mend(piece));
    was_read_back_[piece] = true;
  }
  return {};
}

// Past the page cache where the disk allows it: what counts is what lies there.
Result<bool> Packer::reads_back_well(size_t piece) {
  const auto open = [&](const StorageFile& file) {
    return parts_.source->open(file.path(), OpenMode::kReadDirect);
  };
  const std::unique_ptr<StorageFile> resident = PENSTOCK_TRY(open(parts_.workspace.resident()));
  const std::unique_ptr<StorageFile> experts = PENSTOCK_TRY(open(parts_.workspace.experts()));
  return piece_is_good(parts_.input, {*resident, *experts}, parts_.memory.bytes(), piece,
                       sums_of(piece));
}

Result<void> Packer::mend(size_t piece) {
  for (const uint32_t file : parts_.pieces[piece].files) {
    if (!parts_.source->files()[file].is_gone) continue;
    return reads_back_differently(piece).with_context(fmt::format(
        "{} is gone and cannot make it again", escaped(parts_.source->files()[file].path)));
  }
  const uint64_t bytes_done = bytes_done_;
  const PieceSums made = PENSTOCK_TRY(write_piece(piece));
  bytes_done_ = bytes_done;
  check_files_read(piece);
  PENSTOCK_TRY(parts_.workspace.commit());
  if (made != sums_of(piece) || !PENSTOCK_TRY(reads_back_well(piece))) {
    return reads_back_differently(piece);
  }
  return {};
}

Result<void> Packer::remove_file(size_t file) {
  PENSTOCK_TRY(parts_.source->remove_file(file));
  if (parts_.options.arriving) return {};  // what went is no loss
  const ShrinkingSource::File& gone = parts_.source->files()[file];
  report_.removed.push_back({gone.path, gone.stat.bytes});
  tell(fmt::format("{}: {} removed, what was made of it was read back", escaped(gone.path),
                   format_bytes(gone.stat.bytes)));
  return {};
}

Result<void> Packer::read_back_the_rest() {
  for (size_t file = 0; file < parts_.source->files().size(); ++file) {
    if (!parts_.source->files()[file].is_gone) PENSTOCK_TRY(read_back(file));
  }
  stage_ = PackStage::kFinishing;
  return {};
}

Result<void> Packer::remove_the_rest() {
  PENSTOCK_TRY(parts_.input.check_unchanged());
  for (size_t file = 0; file < parts_.source->files().size(); ++file) {
    if (!parts_.source->files()[file].is_gone) PENSTOCK_TRY(remove_file(file));
  }
  return {};
}

}  // namespace penstock
