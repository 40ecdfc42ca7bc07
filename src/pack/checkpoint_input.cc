#include "pack/checkpoint_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "format/checkpoint.h"
#include "format/text.h"
#include "pack/calibrated_experts.h"
#include "pack/convert.h"
#include "pack/identity.h"
#include "pack/loss_survey.h"
#include "pack/plan.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

constexpr uint64_t kCopyBytes = 4 << 20;

class CheckpointInput final : public PackInput {
 public:
  static Result<std::unique_ptr<PackInput>> open(Storage& storage, const PackOptions& options,
                                                 const std::stop_token& stop);

  const std::vector<ResidentTensor>& resident() const override { return resident_; }
  const ExpertParts& experts() const override { return plan_->experts(); }
  const ModelConfig& config() const override { return plan_->config(); }
  const StoredTypes& types() const override { return types_; }
  std::vector<SourceFile> sources() const override;
  std::vector<std::string> source_paths() const override;
  std::vector<uint32_t> files_of_resident(size_t index) const override {
    return files_of(plan_->resident()[index].source);
  }
  std::vector<uint32_t> files_of_expert(int64_t layer, int64_t expert) const override;
  std::vector<uint32_t> files_of_kept() const override;
  std::vector<std::string> left_out() const override;
  const std::vector<std::string>& notes() const override { return plan_->notes(); }
  uint64_t model_id() const override { return model_id_; }
  Hash128 pack_key() const override { return derive_pack_key(checkpoint_, model_id_); }

  Result<void> make_resident(size_t index, const ByteSink& sink,
                             const std::stop_token& stop) override;
  Result<void> make_part(int64_t layer, int64_t expert, PackedPart part, std::span<std::byte> out,
                         const std::stop_token& stop) override;
  uint64_t bytes_read() const override { return converter_->source_bytes_read(); }

  Result<void> add_files(const AddFile& add) override;
  uint64_t file_bytes() const override;
  Result<void> keep_tensors(const std::string& directory, Manifest& manifest,
                            const std::stop_token& stop) override;
  Result<void> check_unchanged() const override { return checkpoint_.check_unchanged(); }

 private:
  CheckpointInput(Storage& storage, Checkpoint checkpoint)
      : storage_(storage), checkpoint_(std::move(checkpoint)) {}

  static std::vector<uint32_t> files_of(const MatrixSource& source);
  Result<void> calibrate(const PackOptions& options);
  Result<void> choose_bits(const PackOptions& options, const std::stop_token& stop);
  Result<void> read_values(const MatrixSource& source, std::vector<float>& values,
                           const std::stop_token& stop);
  Result<void> make_calibrated(int64_t layer, int64_t expert, PackedPart part,
                               std::span<std::byte> out, const std::stop_token& stop);

  Storage& storage_;
  Checkpoint checkpoint_;
  StoredTypes types_;
  std::optional<PackPlan> plan_;  // points into the checkpoint
  std::optional<Converter> converter_;
  std::optional<Calibration> calibration_;
  std::optional<CalibratedExperts> calibrated_;
  std::vector<float> gate_up_, down_;  // of the expert at work
  std::vector<ResidentTensor> resident_;
  uint64_t model_id_ = 0;
};

Result<std::unique_ptr<PackInput>> CheckpointInput::open(Storage& storage,
                                                         const PackOptions& options,
                                                         const std::stop_token& stop) {
  Checkpoint opened = PENSTOCK_TRY(Checkpoint::open(storage, options.source));
  std::unique_ptr<CheckpointInput> made(new CheckpointInput(storage, std::move(opened)));
  Checkpoint& checkpoint = made->checkpoint_;
  const ModelConfig config =
      PENSTOCK_TRY(parse_model_config(checkpoint.config(), checkpoint.path_of("config.json")));
  const StoredTypes& types = made->types_ = stored_types(options);
  made->plan_.emplace(PENSTOCK_TRY(PackPlan::make(checkpoint, config, types)));
  if (types.target_bytes) {
    PENSTOCK_TRY(check_target_bytes(made->experts(), *types.target_bytes));
  }
  if (options.calibrate) PENSTOCK_TRY(made->calibrate(options));
  made->converter_.emplace(
      PENSTOCK_TRY(Converter::create(checkpoint, *made->plan_, options.num_threads)));
  if (types.target_bytes) PENSTOCK_TRY(made->choose_bits(options, stop));
  if (options.arriving) PENSTOCK_TRY(options.arriving->expect(sample_ranges(checkpoint)));
  made->model_id_ = PENSTOCK_TRY(derive_model_id(checkpoint, types));
  for (const ResidentPiece& piece : made->plan_->resident()) {
    made->resident_.push_back(piece.tensor);
  }
  return std::unique_ptr<PackInput>(std::move(made));
}

std::vector<SourceFile> CheckpointInput::sources() const {
  std::vector<SourceFile> files;
  for (const CheckpointShard& shard : checkpoint_.shards()) {
    files.push_back({shard.name, shard.stat.bytes});
  }
  return files;
}

std::vector<std::string> CheckpointInput::source_paths() const {
  std::vector<std::string> paths;
  for (const CheckpointShard& shard : checkpoint_.shards()) {
    paths.push_back(checkpoint_.path_of(shard.name));
  }
  return paths;
}

std::vector<uint32_t> CheckpointInput::files_of(const MatrixSource& source) {
  std::vector<uint32_t> files;
  for (const RowRange& range : source.ranges) {
    files.push_back(static_cast<uint32_t>(range.tensor->shard));
  }
  return in_order(std::move(files));
}

std::vector<uint32_t> CheckpointInput::files_of_expert(int64_t layer, int64_t expert) const {
  std::vector<uint32_t> files = files_of(plan_->gate_up(layer, expert));
  for (const uint32_t file : files_of(plan_->down(layer, expert))) files.push_back(file);
  return in_order(std::move(files));
}

std::vector<uint32_t> CheckpointInput::files_of_kept() const {
  std::vector<uint32_t> files;
  for (const CheckpointTensor* tensor : plan_->mtp()) {
    files.push_back(static_cast<uint32_t>(tensor->shard));
  }
  return in_order(std::move(files));
}

std::vector<std::string> CheckpointInput::left_out() const {
  std::vector<std::string> sentences;
  if (plan_->vision_elements() > 0) {
    sentences.push_back(fmt::format("the vision tower, {} weights", plan_->vision_elements()));
  }
  if (types_.without_prediction) sentences.push_back("the prediction block, if there is one");
  return sentences;
}

Result<void> CheckpointInput::make_resident(size_t index, const ByteSink& sink,
                                            const std::stop_token& stop) {
  const ResidentPiece& piece = plan_->resident()[index];
  const StoredForm form = {piece.tensor.form, piece.change, types_.quantiser};
  return converter_->convert(piece.source, form, sink, stop);
}

Result<void> CheckpointInput::calibrate(const PackOptions& options) {
  calibration_.emplace(PENSTOCK_TRY(options.calibrate()));
  types_.calibration = calibration_->texts();
  calibrated_.emplace(PENSTOCK_TRY(
      CalibratedExperts::create(*calibration_, plan_->experts(), options.num_threads)));
  return {};
}

Result<void> CheckpointInput::choose_bits(const PackOptions& options, const std::stop_token& stop) {
  SurveyWork work = survey_work(options, experts(), stop);
  if (calibrated_) work.calibrated = &*calibrated_;
  work.read = [&](int64_t layer, int64_t expert, PackedPart part, std::vector<float>& values) {
    const MatrixSource source =
        part == kGateUpPart ? plan_->gate_up(layer, expert) : plan_->down(layer, expert);
    return read_values(source, values, stop);
  };
  types_.layers = PENSTOCK_TRY(survey_and_plan(work, options));
  plan_->set_experts(*lay_out_experts(experts(), types_, DType::kQ8));
  return {};
}

Result<void> CheckpointInput::read_values(const MatrixSource& source, std::vector<float>& values,
                                          const std::stop_token& stop) {
  values.clear();
  const auto append = [&](std::span<const std::byte> bytes) -> Result<void> {
    const size_t before = values.size();
    values.resize(before + bytes.size() / sizeof(float));
    std::memcpy(values.data() + before, bytes.data(), bytes.size());
    return {};
  };
  return converter_->convert(source, {.form = plain_form()}, append, stop);
}

// Down is quantised for what gate and up make, so these are read for it as well.
Result<void> CheckpointInput::make_calibrated(int64_t layer, int64_t expert, PackedPart part,
                                              std::span<std::byte> out,
                                              const std::stop_token& stop) {
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  const RecordForms& forms = experts().record(layer).forms;
  PENSTOCK_TRY(read_values(plan_->gate_up(layer, expert), gate_up_, stop));
  if (part == kGateUpPart) {
    PENSTOCK_TRY(calibrated_->quantise_gate_up(layer, expert, forms.gate.dtype, gate_up_, out));
    return {};
  }
  PENSTOCK_TRY(read_values(plan_->down(layer, expert), down_, stop));
  PENSTOCK_TRY(calibrated_->quantise_down(layer, expert, forms.down.dtype, gate_up_, down_, out));
  return {};
}

Result<void> CheckpointInput::make_part(int64_t layer, int64_t expert, PackedPart part,
                                        std::span<std::byte> out, const std::stop_token& stop) {
  const MatrixForm& wanted =
      part == kGateUpPart ? experts().record(layer).forms.gate : experts().record(layer).forms.down;
  if (calibrated_ && calibrated_->has(layer) && is_quantised(wanted.dtype)) {
    return make_calibrated(layer, expert, part, out, stop);
  }
  const auto copy = [&](std::span<const std::byte> bytes) -> Result<void> {
    std::memcpy(out.data(), bytes.data(), bytes.size());
    out = out.subspan(bytes.size());
    return {};
  };
  const MatrixSource source =
      part == kGateUpPart ? plan_->gate_up(layer, expert) : plan_->down(layer, expert);
  const StoredForm form = {wanted, Change::kNone, types_.quantiser};
  PENSTOCK_TRY(converter_->convert(source, form, copy, stop));
  PENSTOCK_CHECK(out.empty());
  return {};
}

Result<void> CheckpointInput::add_files(const AddFile& add) {
  for (const std::string_view name : copied_file_names()) {
    const Result<std::string> text =
        read_text(storage_, checkpoint_.path_of(name), kModelTextBytesMax);
    if (!text && text.error().code == ErrorCode::kNotFound) continue;
    if (!text) return text.error();
    PENSTOCK_TRY(add(name, std::as_bytes(std::span(*text))));
  }
  return {};
}

uint64_t CheckpointInput::file_bytes() const {
  uint64_t bytes = 0;
  for (const CheckpointTensor* tensor : plan_->mtp()) bytes += tensor->info.bytes;
  for (const std::string_view name : copied_file_names()) {
    const Result<FileStat> stat = storage_.stat(checkpoint_.path_of(name));
    if (stat) bytes += stat->bytes;
  }
  return bytes;
}

Result<void> CheckpointInput::keep_tensors(const std::string& directory, Manifest& manifest,
                                           const std::stop_token& stop) {
  if (plan_->mtp().empty()) return {};
  std::vector<SafetensorsWriter::Plan> tensors;
  for (const CheckpointTensor* tensor : plan_->mtp()) {
    tensors.push_back({tensor->info.name, tensor->info.type, tensor->info.shape});
  }
  const std::string path = directory + "/" + std::string(kMtpName);
  SafetensorsWriter writer = PENSTOCK_TRY(SafetensorsWriter::create(storage_, path, tensors, {}));
  std::vector<std::byte> bytes(kCopyBytes);
  for (const CheckpointTensor* tensor : plan_->mtp()) {
    for (uint64_t done = 0; done < tensor->info.bytes; done += kCopyBytes) {
      if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
      const auto part = std::span(bytes).first(std::min(kCopyBytes, tensor->info.bytes - done));
      PENSTOCK_TRY(checkpoint_.read(*tensor, done, part));
      PENSTOCK_TRY(writer.append(part));
    }
  }
  PENSTOCK_TRY(writer.finish());
  manifest.files.push_back({std::string(kMtpName), writer.file_bytes(), writer.sum()});
  return {};
}

}  // namespace

Result<std::unique_ptr<PackInput>> open_checkpoint_input(Storage& storage,
                                                         const PackOptions& options,
                                                         const std::stop_token& stop) {
  return CheckpointInput::open(storage, options, stop);
}

}  // namespace penstock
