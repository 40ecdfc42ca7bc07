#include "pack/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/memory.h"
#include "format/container.h"
#include "format/text.h"
#include "model/registry.h"
#include "pack/identity.h"
#include "pack/random_weights.h"
#include "pack/synth_layout.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

constexpr uint64_t kExpertMatrices = uint64_t{1} << 32;  // numbers above those of resident tensors

// Decay is -exp(A_log); a step forgets 1 - exp(decay * softplus(a)), with softplus(a) near 0.7.
constexpr float kDecayLow = 0.005f, kDecayHigh = 1.0f;

// What a model is made from: its id, and the key of its journal.
Hash128 identity_of(const SynthOptions& options) {
  const std::string text =
      fmt::format("synthetic penstock model, format {}, experts {}, resident {}, seed {}, {}",
                  kFormatVersion, name_of(options.experts), name_of(options.resident), options.seed,
                  to_text(normal_config(options.config)));
  return checksum(std::as_bytes(std::span(text)), 0);
}

Result<ExpertParts> expert_parts(const SynthOptions& options) {
  const ModelConfig& config = options.config;
  const std::optional<ExpertParts> laid_out =
      lay_out_experts({.num_layers = config.num_moe_layers(),
                       .num_experts = config.num_experts,
                       .hidden_size = config.hidden_size,
                       .intermediate_size = config.moe_intermediate_size},
                      options.experts);
  if (!laid_out) {
    return Error{ErrorCode::kInvalidArgument, "a model of this shape is too large for any file"};
  }
  return *laid_out;
}

Result<void> check_widths(const ModelConfig& config) {
  const auto check = [](int64_t width) -> Result<void> {
    if (width > 0 && width % kGroupColumns == 0) return {};
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a synthetic model needs widths that are multiples of {}; one of this "
                             "shape is {}",
                             kGroupColumns, width)};
  };
  PENSTOCK_TRY(check(config.hidden_size));
  PENSTOCK_TRY(check(config.moe_intermediate_size));
  for (const TensorSpec& tensor : list_tensors(config).resident) {
    if (tensor.stored != StoredAs::kVector) PENSTOCK_TRY(check(tensor.columns));
  }
  return {};
}

class Synthesiser {
 public:
  struct Parts {
    const SynthOptions& options;
    const PackCallback& callback;
    const std::stop_token& stop;
    const std::vector<SynthTensor>& tensors;
    const ExpertParts& experts;
    uint64_t resident_bytes;
    uint64_t model_id;
    Workspace& workspace;
    AlignedMemory& record;
    AlignedMemory& block;
  };
  explicit Synthesiser(const Parts& parts) : parts_(parts), weights_(parts.options.seed) {}

  Result<PackReport> run();

 private:
  Result<void> write_resident();
  Result<void> write_tensor(size_t index);
  Result<void> append(std::span<const std::byte> bytes);
  Result<void> end_block();
  Result<void> write_experts();
  PieceSums fill_record(uint64_t index);
  Result<void> finish();
  Result<void> add_file(Manifest& manifest, std::string_view name,
                        std::span<const std::byte> bytes);
  Result<void> commit_after(uint64_t bytes);
  void tell(std::string note = "");

  Parts parts_;
  RandomWeights weights_;
  PackStage stage_ = PackStage::kResident;
  std::vector<Hash128> resident_sums_;
  uint64_t block_filled_ = 0;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_unsynced_ = 0;
  PackReport report_;
};

void Synthesiser::tell(std::string note) {
  if (!parts_.callback) return;
  const uint64_t total = parts_.resident_bytes + parts_.experts.file_bytes();
  parts_.callback({stage_, bytes_done_, total, std::move(note)});
}

Result<void> Synthesiser::commit_after(uint64_t bytes) {
  bytes_done_ += bytes;
  bytes_unsynced_ += bytes;
  tell();
  if (parts_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  if (bytes_unsynced_ < parts_.options.sync_bytes) return {};
  bytes_unsynced_ = 0;
  return parts_.workspace.commit();
}

Result<void> Synthesiser::end_block() {
  const std::span<const std::byte> block = parts_.block.bytes().first(block_filled_);
  const uint64_t index = resident_sums_.size();
  resident_sums_.push_back(block_checksum(parts_.model_id, index, block));
  PENSTOCK_TRY(parts_.workspace.resident().write(index * kResidentBlockBytes, block));
  block_filled_ = 0;
  return commit_after(block.size());
}

// Blocks of resident.bin, whatever tensors they cut.
Result<void> Synthesiser::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto taken = std::min<uint64_t>(bytes.size(), kResidentBlockBytes - block_filled_);
    std::copy_n(bytes.begin(), taken, parts_.block.bytes().begin() + block_filled_);
    block_filled_ += taken;
    bytes = bytes.subspan(taken);
    if (block_filled_ == kResidentBlockBytes) PENSTOCK_TRY(end_block());
  }
  return {};
}

Result<void> Synthesiser::write_tensor(size_t index) {
  const auto& [tensor, fill] = parts_.tensors[index];
  const auto value = static_cast<float>(fill.value);
  if (!tensor.form.is_plain()) {
    // Some panels at a time that begin with a whole piece.
    constexpr int64_t kPanels = RandomWeights::kPieceBlocks;
    const auto panel =
        static_cast<uint64_t>(panel_bytes(tensor.form.dtype, kPanelRows, tensor.columns));
    std::vector<std::byte> bytes;
    const int64_t num_panels = (tensor.rows + kPanelRows - 1) / kPanelRows;
    for (int64_t first = 0; first < num_panels; first += kPanels) {
      const int64_t count = std::min(kPanels, num_panels - first);
      bytes.resize(static_cast<uint64_t>(count) * panel);
      weights_.fill_blocks(tensor.form.dtype, value, index,
                           first * (tensor.columns / kGroupColumns), bytes);
      if (first + count == num_panels && tensor.rows % kPanelRows != 0) {
        clear_missing_rows(tensor.form.dtype, tensor.rows % kPanelRows,
                           std::span(bytes).last(panel));
      }
      PENSTOCK_TRY(append(bytes));
    }
  } else {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.columns), value);
    if (fill.kind == SyntheticFill::Kind::kRandom) {
      const float width = value * std::sqrt(3.0f);
      weights_.fill_values(index, -width, width, values);
    } else if (fill.kind == SyntheticFill::Kind::kDecay) {
      weights_.fill_values(index, std::log(kDecayLow), std::log(kDecayHigh), values);
      for (float& decay : values) decay = static_cast<float>(-std::exp(static_cast<double>(decay)));
    }
    PENSTOCK_TRY(append(std::as_bytes(std::span(values))));
  }
  const std::vector<std::byte> padding(align_file(tensor.bytes) - tensor.bytes);
  return append(padding);
}

Result<void> Synthesiser::write_resident() {
  for (size_t index = 0; index < parts_.tensors.size(); ++index) {
    PENSTOCK_TRY(write_tensor(index));
  }
  if (block_filled_ > 0) PENSTOCK_TRY(end_block());
  PENSTOCK_CHECK(bytes_done_ == parts_.resident_bytes);
  return {};
}

PieceSums Synthesiser::fill_record(uint64_t index) {
  const ExpertParts& experts = parts_.experts;
  const auto num_experts = static_cast<uint64_t>(experts.num_experts);
  const auto layer = static_cast<int>(index / num_experts);
  const auto expert = static_cast<int>(index % num_experts);
  const int64_t hidden = experts.hidden_size, ffn = experts.intermediate_size;
  PieceSums sums;
  for (const PackedPart part : kPackedParts) {
    const auto [offset, bytes] = experts.record(layer).extent(part);
    const auto [rows, columns] =
        part == kGateUpPart ? std::pair{2 * ffn, hidden} : std::pair{hidden, ffn};
    const std::span<std::byte> out = parts_.record.bytes().subspan(offset, bytes);
    const auto deviation = static_cast<float>(1 / std::sqrt(static_cast<double>(columns)));
    const uint64_t matrix = kExpertMatrices + ExpertParts::sum_index(index, part);
    weights_.fill_matrix(experts.record(layer).forms.gate.dtype, deviation, matrix, rows, columns,
                         out);
    sums[static_cast<size_t>(part)] = part_checksum(parts_.model_id, layer, expert, part, out);
  }
  return sums;
}

Result<void> Synthesiser::write_experts() {
  stage_ = PackStage::kExperts;
  Journal& journal = parts_.workspace.journal();
  const uint64_t records = parts_.experts.num_records();
  if (journal.pieces().size() > records) PENSTOCK_TRY(journal.truncate(0));
  report_.resumed_bytes = journal.pieces().size() * parts_.experts.largest_record();
  bytes_done_ += report_.resumed_bytes;
  for (uint64_t index = journal.pieces().size(); index < records; ++index) {
    const PieceSums sums = fill_record(index);
    PENSTOCK_TRY(
        parts_.workspace.experts().write(parts_.experts.offset_of(index), parts_.record.bytes()));
    journal.enter(sums);
    PENSTOCK_TRY(commit_after(parts_.experts.largest_record()));
  }
  return {};
}

Result<void> Synthesiser::add_file(Manifest& manifest, std::string_view name,
                                   std::span<const std::byte> bytes) {
  PENSTOCK_TRY(parts_.workspace.write_file(name, bytes));
  manifest.files.push_back({std::string(name), bytes.size(), checksum(bytes, 0)});
  return {};
}

Result<void> Synthesiser::finish() {
  stage_ = PackStage::kFinishing;
  tell();
  PENSTOCK_TRY(parts_.workspace.commit());
  const SynthOptions& options = parts_.options;
  const auto option = [](DType dtype) {
    return option_text(is_quantised(dtype) ? std::optional(dtype) : std::nullopt);
  };
  Manifest manifest;
  manifest.model_id = parts_.model_id;
  manifest.experts_option = option(options.experts);
  manifest.resident_option = option(options.resident);
  manifest.config = normal_config(options.config);
  manifest.resident_bytes = parts_.resident_bytes;
  for (const SynthTensor& tensor : parts_.tensors) manifest.tensors.push_back(tensor.tensor);
  manifest.experts = parts_.experts;
  manifest.sources = {{fmt::format("synthetic: {}, seed {}", options.name, options.seed), 0}};
  std::vector<Hash128> sums;
  for (const PieceSums& piece : parts_.workspace.journal().pieces()) {
    sums.insert(sums.end(), piece.begin(), piece.end());
  }
  PENSTOCK_TRY(add_file(manifest, kResidentSumsName, std::as_bytes(std::span(resident_sums_))));
  PENSTOCK_TRY(add_file(manifest, kExpertSumsName, std::as_bytes(std::span(sums))));
  const std::string text = manifest_text(manifest);
  report_.id = hex_text(PENSTOCK_TRY(manifest_sum(text, std::string(kManifestName))));
  PENSTOCK_TRY(parts_.workspace.write_file(kManifestName, std::as_bytes(std::span(text))));
  PENSTOCK_TRY(parts_.workspace.install());
  const Result<void> tidied = parts_.workspace.tidy();
  if (!tidied) tell("the model is complete, but " + tidied.error().message);
  return {};
}

Result<PackReport> Synthesiser::run() {
  if (!parts_.workspace.note().empty()) tell(parts_.workspace.note());
  const auto write = [&]() -> Result<void> {
    PENSTOCK_TRY(write_resident());
    return write_experts();
  };
  Result<void> done = write();
  if (done) {
    done = finish();
  } else {
    // What is finished may as well be kept; the reason we stop for is the one to tell.
    const Result<void> kept = parts_.workspace.commit();
  }
  if (!done) {
    Error error = done.error();
    error.message += "; run the same command again to continue";
    return error;
  }
  report_.resident_bytes = parts_.resident_bytes;
  report_.experts_bytes = parts_.experts.file_bytes();
  return report_;
}

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

Result<PackReport> synthesise_model(Storage& storage, const SynthOptions& options,
                                    const PackCallback& progress, std::stop_token stop) {
  PENSTOCK_TRY(check_widths(options.config));
  const std::vector<SynthTensor> tensors = synthetic_tensors(options.config, options.resident);
  const ExpertParts experts = PENSTOCK_TRY(expert_parts(options));
  const ResidentTensor& last = tensors.back().tensor;
  const Hash128 identity = identity_of(options);

  WorkspaceOptions workspace_options;
  workspace_options.target = without_slashes(options.target);
  workspace_options.replace = options.force;
  workspace_options.key = identity;
  workspace_options.resident_bytes = align_file(last.offset + last.bytes);
  workspace_options.experts_bytes = experts.file_bytes();
  workspace_options.other_bytes =
      (experts.num_sums() + workspace_options.resident_bytes / kResidentBlockBytes + 1) *
      sizeof(Hash128);
  PENSTOCK_TRY(Workspace::check_target(storage, workspace_options.target, options.force));
  AlignedMemory record =
      PENSTOCK_TRY(AlignedMemory::create(experts.largest_record(), "one expert"));
  AlignedMemory block =
      PENSTOCK_TRY(AlignedMemory::create(kResidentBlockBytes, "a block of weights"));
  Workspace workspace = PENSTOCK_TRY(Workspace::open(storage, workspace_options));
  return Synthesiser({options, progress, stop, tensors, experts, workspace_options.resident_bytes,
                      identity.low, workspace, record, block})
      .run();
}

}  // namespace penstock
