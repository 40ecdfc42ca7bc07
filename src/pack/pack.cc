#include "pack/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/byte_text.h"
#include "base/json.h"
#include "base/memory.h"
#include "format/container.h"
#include "format/quantisation.h"
#include "format/text.h"
#include "pack/checkpoint_input.h"
#include "pack/identity.h"
#include "pack/pack_input.h"
#include "pack/source_input.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

constexpr uint64_t kCopyBytes = 4 << 20;
constexpr uint64_t kTextBytesMax = 256 << 20;

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

class Packer {
 public:
  struct Parts {
    const PackOptions& options;
    const PackCallback& callback;
    const std::stop_token& stop;
    PackInput& input;
    Workspace& workspace;
    AlignedMemory& record;
  };
  explicit Packer(const Parts& parts) : parts_(parts) {}

  Result<PackReport> run();

 private:
  size_t num_resident() const { return parts_.input.resident().size(); }
  const ResidentTensor& tensor_of(size_t piece) const { return parts_.input.resident()[piece]; }
  const ExpertParts& experts() const { return parts_.input.experts(); }
  Journal& journal() { return parts_.workspace.journal(); }

  Result<void> check_last_pieces();
  Result<bool> piece_is_good(size_t piece);
  Result<bool> resident_is_good(size_t piece);
  Result<bool> record_is_good(uint64_t record, const PieceSums& sums);
  uint64_t piece_bytes(size_t piece) const;

  Result<void> write_pieces();
  Result<void> write_resident(size_t piece);
  Result<void> write_record(uint64_t record);
  Result<void> end_piece(const PieceSums& sums, uint64_t bytes);

  Result<void> finish();
  Result<void> seal_resident(Manifest& manifest);
  Result<void> seal_experts(Manifest& manifest);
  Result<void> add_file(Manifest& manifest, std::string_view name,
                        std::span<const std::byte> bytes);

  void tell(std::string note = "");
  Result<void> stop_if_asked() const;

  Parts parts_;
  PackStage stage_ = PackStage::kResident;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_unsynced_ = 0;
  PackReport report_;
};

void Packer::tell(std::string note) {
  if (!parts_.callback) return;
  const uint64_t total = parts_.input.resident_bytes() + experts().file_bytes();
  parts_.callback({stage_, bytes_done_, total, std::move(note)});
}

Result<void> Packer::stop_if_asked() const {
  if (parts_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  return {};
}

uint64_t Packer::piece_bytes(size_t piece) const {
  if (piece >= num_resident()) return experts().record_of(piece - num_resident()).bytes;
  return align_file(tensor_of(piece).bytes);
}

Result<bool> Packer::resident_is_good(size_t piece) {
  const ResidentTensor& tensor = tensor_of(piece);
  std::vector<std::byte> bytes(kCopyBytes);
  RunningChecksum sum;
  const uint64_t end = align_file(tensor.bytes);
  for (uint64_t done = 0; done < end; done += kCopyBytes) {
    const std::span<std::byte> part = std::span(bytes).first(std::min(kCopyBytes, end - done));
    const Result<void> read = read_exactly(parts_.workspace.resident(), tensor.offset + done, part);
    if (!read && read.error().code == ErrorCode::kCorrupt) return false;  // the file ends before
    if (!read) return read.error();
    sum.update(part);
  }
  return sum.value() == journal().pieces()[piece].front();
}

Result<bool> Packer::record_is_good(uint64_t record, const PieceSums& sums) {
  const ExpertRecord& form = experts().record_of(record);
  const std::span<std::byte> bytes = parts_.record.bytes().first(form.bytes);
  const Result<void> read =
      read_exactly(parts_.workspace.experts(), experts().offset_of(record), bytes);
  if (!read && read.error().code == ErrorCode::kCorrupt) return false;
  if (!read) return read.error();
  const auto layer = static_cast<int>(experts().layer_of(record));
  const auto expert = static_cast<int>(static_cast<int64_t>(record) % experts().num_experts);
  return std::ranges::all_of(kPackedParts, [&](PackedPart part) {
    const auto [offset, part_bytes] = form.extent(part);
    const uint64_t end = offset + part_bytes;
    return part_checksum(parts_.input.model_id(), layer, expert, part,
                         bytes.subspan(offset, part_bytes)) == sums[static_cast<size_t>(part)] &&
           all_zero(bytes.subspan(end, form.padded_end(part) - end));
  });
}

Result<bool> Packer::piece_is_good(size_t piece) {
  if (piece < num_resident()) return resident_is_good(piece);
  return record_is_good(piece - num_resident(), journal().pieces()[piece]);
}

// What was written last before the interruption is read again; from a bad piece on all is redone.
Result<void> Packer::check_last_pieces() {
  size_t good = journal().pieces().size();
  if (good > num_resident() + experts().num_records()) good = 0;
  uint64_t checked = 0;
  for (size_t piece = good; piece > 0 && checked < parts_.options.sync_bytes; --piece) {
    PENSTOCK_TRY(stop_if_asked());
    if (PENSTOCK_TRY(piece_is_good(piece - 1))) {
      checked += piece_bytes(piece - 1);
    } else {
      good = piece - 1;
      checked = 0;
    }
  }
  PENSTOCK_TRY(journal().truncate(good));
  for (size_t piece = 0; piece < good; ++piece) bytes_done_ += piece_bytes(piece);
  report_.resumed_bytes = bytes_done_;
  if (good > 0) {
    tell(fmt::format("continuing the unfinished pack in {}: {} are done",
                     parts_.workspace.directory(), format_bytes(bytes_done_)));
  }
  return {};
}

Result<void> Packer::end_piece(const PieceSums& sums, uint64_t bytes) {
  journal().enter(sums);
  bytes_unsynced_ += bytes;
  if (bytes_unsynced_ < parts_.options.sync_bytes) return {};
  PENSTOCK_TRY(parts_.input.check_unchanged());
  PENSTOCK_TRY(parts_.workspace.commit());
  bytes_unsynced_ = 0;
  return {};
}

Result<void> Packer::write_resident(size_t piece) {
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
  return end_piece({sum.value(), {}}, align_file(tensor.bytes));
}

Result<void> Packer::write_record(uint64_t record) {
  const ExpertRecord& form = experts().record_of(record);
  const int64_t layer = experts().layer_of(record);
  const int64_t expert = static_cast<int64_t>(record) % experts().num_experts;
  const std::span<std::byte> bytes = parts_.record.bytes().first(form.bytes);
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
  return end_piece(sums, bytes.size());
}

Result<void> Packer::write_pieces() {
  for (size_t piece = journal().pieces().size(); piece < num_resident(); ++piece) {
    PENSTOCK_TRY(stop_if_asked());
    PENSTOCK_TRY(write_resident(piece));
  }
  stage_ = PackStage::kExperts;
  const uint64_t records = experts().num_records();
  for (uint64_t record = journal().pieces().size() - num_resident(); record < records; ++record) {
    PENSTOCK_TRY(stop_if_asked());
    PENSTOCK_TRY(write_record(record));
  }
  return {};
}

Result<void> Packer::add_file(Manifest& manifest, std::string_view name,
                              std::span<const std::byte> bytes) {
  PENSTOCK_TRY(parts_.workspace.write_file(name, bytes));
  manifest.files.push_back({std::string(name), bytes.size(), checksum(bytes, 0)});
  return {};
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
      if (running.value() != journal().pieces()[piece].front()) {
        PENSTOCK_TRY(journal().truncate(piece));
        return Error{ErrorCode::kIo,
                     fmt::format("{}: tensor {} reads back differently from what was written; the "
                                 "disk or the memory is at fault",
                                 parts_.workspace.resident().path(), tensor.name)};
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
    sums.insert(sums.end(), journal().pieces()[piece].begin(), journal().pieces()[piece].end());
  }
  PENSTOCK_CHECK(sums.size() == experts().num_sums());
  return add_file(manifest, kExpertSumsName, std::as_bytes(std::span(sums)));
}

Result<void> Packer::finish() {
  stage_ = PackStage::kFinishing;
  tell();
  PENSTOCK_TRY(parts_.workspace.commit());
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
  const Result<void> tidied = parts_.workspace.tidy();
  if (!tidied) tell("the model is complete, but " + tidied.error().message);
  return {};
}

Result<PackReport> Packer::run() {
  if (!parts_.workspace.note().empty()) tell(parts_.workspace.note());
  const auto work = [&]() -> Result<void> {
    PENSTOCK_TRY(check_last_pieces());
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
    if (can_continue) error.message += "; run the same command again to continue";
    return error;
  }
  report_.source_bytes_read = parts_.input.bytes_read();
  report_.resident_bytes = parts_.input.resident_bytes();
  report_.experts_bytes = experts().file_bytes();
  report_.unknown_keys = parts_.input.config().unknown_keys;
  return report_;
}

uint64_t other_bytes(const PackInput& input) {
  return input.experts().num_sums() * sizeof(Hash128) +
         (input.resident_bytes() / kResidentBlockBytes + 1) * sizeof(Hash128) + input.file_bytes();
}

// Folders in BF16, F16 and F32 are read as such; MLX has such folders too, with shapes of its own.
Result<std::unique_ptr<PackInput>> open_input(Storage& storage, const PackOptions& options,
                                              const std::stop_token& stop) {
  const Result<bool> is_folder = storage.is_directory(options.source);
  if (is_folder && !*is_folder) return open_source_input(storage, options, stop);
  const std::string config_path = options.source + "/config.json";
  const Result<FileStat> config = storage.stat(config_path);
  if (config) {
    const std::string text = PENSTOCK_TRY(read_text(storage, config_path, kTextBytesMax));
    const Json json = PENSTOCK_TRY(parse_json(text, config_path));
    const Quantisation quantisation = PENSTOCK_TRY(read_quantisation(json, config_path));
    if (quantisation.kind != Quantisation::Kind::kNone)
      return open_source_input(storage, options, stop);
  }
  Result<std::unique_ptr<PackInput>> input = open_checkpoint_input(storage, options, stop);
  if (input || input.error().code != ErrorCode::kCorrupt) return input;
  const Result<ModelSource> source = ModelSource::open(storage, options.source);
  if (!source || source->format() != SourceFormat::kMlx) return input;
  return open_source_input(storage, options, stop);
}

}  // namespace

std::string_view name_of(PackStage stage) {
  switch (stage) {
    case PackStage::kResident: return "resident weights";
    case PackStage::kExperts: return "experts";
    case PackStage::kFinishing: return "finishing";
  }
  return "?";
}

Result<PackReport> pack_model(Storage& storage, const PackOptions& options,
                              const PackCallback& progress, std::stop_token stop) {
  PENSTOCK_CHECK(!options.experts || is_quantised(*options.experts));
  PENSTOCK_CHECK(!options.resident || options.resident->is_coded() ||
                 is_quantised(options.resident->dtype));
  WorkspaceOptions workspace_options;
  workspace_options.target = options.target;
  while (workspace_options.target.size() > 1 && workspace_options.target.ends_with('/')) {
    workspace_options.target.pop_back();
  }
  workspace_options.replace = options.force;
  PENSTOCK_TRY(Workspace::check_target(storage, workspace_options.target, options.force));

  const std::unique_ptr<PackInput> input = PENSTOCK_TRY(open_input(storage, options, stop));
  if (options.on_note) std::ranges::for_each(input->notes(), options.on_note);
  AlignedMemory record =
      PENSTOCK_TRY(AlignedMemory::create(input->experts().largest_record(), "one packed expert"));

  workspace_options.key = input->pack_key();
  workspace_options.resident_bytes = input->resident_bytes();
  workspace_options.experts_bytes = input->experts().file_bytes();
  workspace_options.other_bytes = other_bytes(*input);
  Workspace workspace = PENSTOCK_TRY(Workspace::open(storage, workspace_options));
  return Packer({options, progress, stop, *input, workspace, record}).run();
}

}  // namespace penstock
