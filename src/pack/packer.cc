#include "pack/packer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/byte_text.h"
#include "format/text.h"
#include "pack/identity.h"
#include "pack/piece_check.h"

namespace penstock {

void Packer::tell(std::string note) {
  if (!parts_.callback) return;
  const uint64_t total = parts_.input.resident_bytes() + experts().file_bytes();
  parts_.callback({stage_, bytes_done_, total, std::move(note)});
}

Result<void> Packer::stop_if_asked() const {
  if (parts_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  return {};
}

// What was written last before the interruption is read again; from a bad piece on all is redone.
Result<void> Packer::check_last_pieces() {
  const NewFiles files = {parts_.workspace.resident(), parts_.workspace.experts()};
  size_t good = journal().pieces().size();
  if (good > parts_.consumption.order.size()) good = 0;
  uint64_t checked = 0;
  for (size_t piece = good; piece > 0 && checked < parts_.options.sync_bytes; --piece) {
    PENSTOCK_TRY(stop_if_asked());
    const PieceSums& sums = journal().pieces()[piece - 1];
    if (PENSTOCK_TRY(piece_is_good(parts_.input, files, parts_.memory.bytes(), piece - 1, sums))) {
      checked += piece_bytes(parts_.input, piece - 1);
    } else {
      good = piece - 1;
      checked = 0;
    }
  }
  return journal().truncate(good);
}

Result<void> Packer::begin() {
  if (!parts_.workspace.note().empty()) tell(parts_.workspace.note());
  PENSTOCK_TRY(parts_.source != nullptr ? begin_in_place() : check_last_pieces());
  const size_t num_done = journal().pieces().size();
  for (size_t place = 0; place < num_done; ++place) {
    bytes_done_ += piece_bytes(parts_.input, parts_.consumption.order[place]);
  }
  report_.resumed_bytes = bytes_done_;
  if (num_done > 0) {
    tell(fmt::format("continuing the unfinished pack in {}: {} are done",
                     parts_.workspace.directory(), format_bytes(bytes_done_)));
  }
  return {};
}

Result<void> Packer::commit_in_steps(uint64_t bytes) {
  bytes_unsynced_ += bytes;
  if (bytes_unsynced_ < parts_.options.sync_bytes) return {};
  PENSTOCK_TRY(parts_.input.check_unchanged());
  PENSTOCK_TRY(parts_.workspace.commit());
  bytes_unsynced_ = 0;
  return {};
}

Result<PieceSums> Packer::write_resident(size_t piece) {
  const ResidentTensor& tensor = tensor_of(piece);
  StorageFile& file = parts_.workspace.resident();
  RunningChecksum sum;
  uint64_t position = tensor.offset;
  const auto write = [&](std::span<const std::byte> bytes) -> Result<void> {
    PENSTOCK_TRY(file.write(position, bytes));
    sum.update(bytes);
    position += bytes.size();
    bytes_done_ += bytes.size();
    tell();
    return {};
  };
  PENSTOCK_TRY(parts_.input.make_resident(piece, write, parts_.stop));
  PENSTOCK_CHECK(position == tensor.offset + tensor.bytes);
  const std::vector<std::byte> padding(align_file(tensor.bytes) - tensor.bytes);
  PENSTOCK_TRY(write(padding));
  return PieceSums{sum.value(), {}};
}

Result<PieceSums> Packer::write_record(uint64_t record) {
  const ExpertRecord& form = experts().record_of(record);
  const int64_t layer = experts().layer_of(record);
  const int64_t expert = static_cast<int64_t>(record) % experts().num_experts;
  const std::span<std::byte> bytes = parts_.memory.bytes().first(form.bytes);
  PieceSums sums;
  for (const PackedPart part : kPackedParts) {
    const auto [offset, part_bytes] = form.extent(part);
    const auto payload = bytes.subspan(offset, part_bytes);
    PENSTOCK_TRY(parts_.input.make_part(layer, expert, part, payload, parts_.stop));
    const uint64_t end = offset + part_bytes;
    std::memset(bytes.data() + end, 0, form.padded_end(part) - end);
    sums[static_cast<size_t>(part)] = part_checksum(
        parts_.input.model_id(), static_cast<int>(layer), static_cast<int>(expert), part, payload);
  }
  PENSTOCK_TRY(parts_.workspace.experts().write(experts().offset_of(record), bytes));
  bytes_done_ += bytes.size();
  tell();
  return sums;
}

Result<void> Packer::bring(std::span<const uint32_t> files) {
  if (!parts_.options.arriving) return {};
  for (const uint32_t file : files) {
    PENSTOCK_TRY(parts_.options.arriving->bring(parts_.source->files()[file].path));
  }
  return {};
}

Result<PieceSums> Packer::write_piece(size_t piece) {
  if (!parts_.pieces.empty()) PENSTOCK_TRY(bring(parts_.pieces[piece].files));
  const bool is_resident = piece < num_resident();
  stage_ = is_resident ? PackStage::kResident : PackStage::kExperts;
  return is_resident ? write_resident(piece) : write_record(piece - num_resident());
}

Result<void> Packer::write_pieces() {
  const std::vector<size_t>& order = parts_.consumption.order;
  // What an earlier run left no room for, before another file comes.
  if (parts_.options.arriving) PENSTOCK_TRY(consume_spent(journal().pieces().size()));
  for (size_t place = journal().pieces().size(); place < order.size(); ++place) {
    PENSTOCK_TRY(stop_if_asked());
    journal().enter(PENSTOCK_TRY(write_piece(order[place])));
    PENSTOCK_TRY(commit_in_steps(piece_bytes(parts_.input, order[place])));
    if (parts_.source == nullptr) continue;
    check_files_read(order[place]);
    PENSTOCK_TRY(consume_spent(place + 1));
  }
  return {};
}

Result<void> Packer::add_file(Manifest& manifest, std::string_view name,
                              std::span<const std::byte> bytes) {
  PENSTOCK_TRY(parts_.workspace.write_file(name, bytes));
  manifest.files.push_back({std::string(name), bytes.size(), checksum(bytes, 0)});
  return {};
}

Error Packer::reads_back_differently(size_t piece) {
  const StorageFile& file =
      piece < num_resident() ? parts_.workspace.resident() : parts_.workspace.experts();
  return {ErrorCode::kIo, fmt::format("{}: {} reads back differently from what was written; the "
                                      "disk or the memory is at fault",
                                      file.path(), piece_name(parts_.input, piece))};
}

// Reads resident.bin back: the sums of its blocks are of what is on the disk, and that is what was
// meant to be there, because the sums of the pieces still match.
Result<void> Packer::seal_resident(Manifest& manifest) {
  std::vector<Hash128> sums;
  std::vector<std::byte> block(kResidentBlockBytes);
  size_t piece = 0;
  RunningChecksum running;
  for (uint64_t offset = 0; offset < parts_.input.resident_bytes(); offset += kResidentBlockBytes) {
    PENSTOCK_TRY(stop_if_asked());
    const uint64_t bytes = std::min(kResidentBlockBytes, parts_.input.resident_bytes() - offset);
    std::span<const std::byte> rest = std::span(block).first(bytes);
    PENSTOCK_TRY(read_exactly(parts_.workspace.resident(), offset, std::span(block).first(bytes)));
    sums.push_back(block_checksum(parts_.input.model_id(), sums.size(), rest));
    uint64_t position = offset;
    while (!rest.empty()) {
      const ResidentTensor& tensor = tensor_of(piece);
      const uint64_t end = tensor.offset + align_file(tensor.bytes);
      const uint64_t taken = std::min<uint64_t>(rest.size(), end - position);
      running.update(rest.first(taken));
      rest = rest.subspan(taken);
      position += taken;
      if (position < end) continue;
      if (running.value() != sums_of(piece).front()) {
        // What can be made again is; of a source that is consumed it may be the only copy.
        if (parts_.source == nullptr) PENSTOCK_TRY(journal().truncate(piece));
        return reads_back_differently(piece);
      }
      running = RunningChecksum();
      ++piece;
    }
  }
  return add_file(manifest, kResidentSumsName, std::as_bytes(std::span(sums)));
}

Result<void> Packer::seal_experts(Manifest& manifest) {
  std::vector<Hash128> sums;
  for (size_t piece = num_resident(); piece < journal().pieces().size(); ++piece) {
    const PieceSums& of_piece = sums_of(piece);
    sums.insert(sums.end(), of_piece.begin(), of_piece.end());
  }
  PENSTOCK_CHECK(sums.size() == experts().num_sums());
  return add_file(manifest, kExpertSumsName, std::as_bytes(std::span(sums)));
}

Result<void> Packer::finish() {
  stage_ = PackStage::kFinishing;
  tell();
  PENSTOCK_TRY(parts_.workspace.commit());
  if (parts_.source != nullptr) PENSTOCK_TRY(read_back_the_rest());
  Manifest manifest;
  manifest.model_id = parts_.input.model_id();
  manifest.experts_option = experts_text(parts_.input.types());
  manifest.resident_option = option_text(parts_.input.types().resident);
  manifest.quantiser_option = quantiser_text(parts_.input.types());
  manifest.config = normal_config(parts_.input.config());
  manifest.resident_bytes = parts_.input.resident_bytes();
  manifest.tensors = parts_.input.resident();
  manifest.experts = experts();
  manifest.sources = parts_.input.sources();
  PENSTOCK_TRY(seal_resident(manifest));
  PENSTOCK_TRY(seal_experts(manifest));
  PENSTOCK_TRY(bring(parts_.input.files_of_kept()));
  PENSTOCK_TRY(parts_.input.keep_tensors(parts_.workspace.directory(), manifest, parts_.stop));
  const auto add = [&](std::string_view name, std::span<const std::byte> bytes) -> Result<void> {
    PENSTOCK_TRY(stop_if_asked());
    return add_file(manifest, name, bytes);
  };
  PENSTOCK_TRY(parts_.input.add_files(add));
  PENSTOCK_TRY(parts_.input.check_unchanged());
  const std::string text = manifest_text(manifest);
  report_.id = hex_text(PENSTOCK_TRY(manifest_sum(text, std::string(kManifestName))));
  PENSTOCK_TRY(parts_.workspace.write_file(kManifestName, std::as_bytes(std::span(text))));
  PENSTOCK_TRY(parts_.workspace.install());
  if (parts_.source != nullptr) PENSTOCK_TRY(remove_the_rest());
  const Result<void> tidied = parts_.workspace.tidy();
  if (!tidied) tell("the model is complete, but " + tidied.error().message);
  // Last: as long as it is there, the same command does what is left to do.
  return parts_.source != nullptr && tidied ? parts_.source->remove_record() : Result<void>();
}

Result<PackReport> Packer::run() {
  const auto work = [&]() -> Result<void> {
    PENSTOCK_TRY(begin());
    PENSTOCK_TRY(write_pieces());
    return finish();
  };
  const Result<void> done = work();
  if (!done) {
    // What is finished may as well be kept; the reason we stop for is the one to tell.
    const Result<void> kept = parts_.workspace.commit();
    Error error = done.error();
    const bool can_continue = error.code == ErrorCode::kCancelled || error.code == ErrorCode::kIo ||
                              error.code == ErrorCode::kOutOfMemory;
    const bool is_told = error.message.find("the same command again") != std::string::npos;
    if (can_continue && !is_told) error.message += "; run the same command again to continue";
    return error;
  }
  report_.source_bytes_read = parts_.input.bytes_read();
  report_.resident_bytes = parts_.input.resident_bytes();
  report_.experts_bytes = experts().file_bytes();
  report_.unknown_keys = parts_.input.config().unknown_keys;
  return report_;
}

}  // namespace penstock
