#include "pack/source_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread.h"
#include "format/text.h"
#include "pack/identity.h"
#include "pack/loss_survey.h"
#include "source/normal_tensors.h"
#include "source/source_experts.h"
#include "source/stored_form.h"

namespace penstock {
namespace {

void add_files_of(const StoredMatrix& matrix, std::vector<uint32_t>& files) {
  const RowBytes bytes = plane_bytes(matrix.coding, matrix.rows, matrix.columns);
  if (bytes.codes > 0) files.push_back(matrix.codes.file);
  if (bytes.scales > 0) files.push_back(matrix.scales.file);
  if (bytes.biases > 0) files.push_back(matrix.biases.file);
}

class SourceInput final : public PackInput {
 public:
  static Result<std::unique_ptr<PackInput>> open(Storage& storage, const PackOptions& options,
                                                 const std::stop_token& stop);

  const std::vector<ResidentTensor>& resident() const override { return resident_; }
  const ExpertParts& experts() const override { return experts_; }
  const ModelConfig& config() const override { return config_; }
  const StoredTypes& types() const override { return types_; }
  std::vector<SourceFile> sources() const override;
  std::vector<std::string> source_paths() const override;
  std::vector<uint32_t> files_of_resident(size_t index) const override;
  std::vector<uint32_t> files_of_expert(int64_t layer, int64_t expert) const override;
  std::vector<uint32_t> files_of_kept() const override { return {}; }
  std::vector<std::string> left_out() const override;
  const std::vector<std::string>& notes() const override { return notes_; }
  uint64_t model_id() const override { return model_id_; }
  Hash128 pack_key() const override { return derive_pack_key(source_, model_id_); }

  Result<void> make_resident(size_t index, const ByteSink& sink,
                             const std::stop_token& stop) override;
  Result<void> make_part(int64_t layer, int64_t expert, PackedPart part, std::span<std::byte> out,
                         const std::stop_token& stop) override;
  uint64_t bytes_read() const override { return bytes_read_; }

  Result<void> add_files(const AddFile& add) override;
  uint64_t file_bytes() const override;
  Result<void> keep_tensors(const std::string&, Manifest&, const std::stop_token&) override {
    return {};
  }
  Result<void> check_unchanged() const override { return source_.check_unchanged(); }

 private:
  SourceInput(ModelSource source, int num_threads)
      : source_(std::move(source)), pool_(num_threads), config_(source_.config()) {}

  void choose_types(const PackOptions& options);
  void plan_resident();
  Result<void> plan_experts();
  Result<void> choose_bits(const PackOptions& options, const std::stop_token& stop);
  Result<void> read_values(const SourceTensor& tensor, std::vector<float>& values);
  // Of the matrix whose first byte is `out`; the planes of what is coded one after the other.
  Result<void> make_matrix(const SourceTensor& tensor, const MatrixForm& form,
                           std::span<std::byte> out, const std::stop_token& stop);
  Result<void> check_codes(const SourceTensor& tensor, const CodedRows& coded);
  void count_read(const SourceTensor& tensor);
  MakeOptions make_options() {
    return {.team = &pool_, .refuses_bad_values = true, .quantiser = types_.quantiser};
  }

  ModelSource source_;
  ThreadPool pool_;
  ModelConfig config_;
  StoredTypes types_;
  std::vector<const SourceTensor*> tensors_;  // of resident_
  std::vector<ResidentTensor> resident_;
  ExpertParts experts_;
  std::vector<std::string> notes_;
  uint64_t model_id_ = 0;
  uint64_t bytes_read_ = 0;
};

Result<std::unique_ptr<PackInput>> SourceInput::open(Storage& storage, const PackOptions& options,
                                                     const std::stop_token& stop) {
  if (options.calibrate) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: --calibrate is for folders of BF16, F16 or F32; pack without it",
                             options.source)};
  }
  ModelSource opened = PENSTOCK_TRY(ModelSource::open(storage, options.source));
  std::unique_ptr<SourceInput> made(new SourceInput(std::move(opened), options.num_threads));
  PENSTOCK_TRY(check_team(made->pool_, options.num_threads));
  made->choose_types(options);
  made->plan_resident();
  PENSTOCK_TRY(made->plan_experts());
  if (made->types_.target_bytes) PENSTOCK_TRY(made->choose_bits(options, stop));
  if (options.arriving) PENSTOCK_TRY(options.arriving->expect(sample_ranges(made->source_)));
  made->model_id_ = PENSTOCK_TRY(derive_model_id(made->source_, made->types_));
  return std::unique_ptr<PackInput>(std::move(made));
}

void SourceInput::choose_types(const PackOptions& options) {
  types_ = stored_types(options);
  const auto has_codes = [](const LayerExperts& layer) {
    return std::ranges::any_of(
        layer.parts, [](const ExpertMatrices& part) { return !is_float(part.first.coding); });
  };
  if (options.is_usual && std::ranges::any_of(source_.experts(), has_codes)) {
    types_.experts = std::nullopt;
  }
  if (types_.without_prediction) config_.mtp_num_hidden_layers = 0;
}

void SourceInput::plan_resident() {
  uint64_t end = 0;
  for (const NormalTensor& listed : normal_tensors(config_)) {
    const SourceTensor* tensor = source_.find(listed.name);
    PENSTOCK_CHECK(tensor != nullptr);  // opening has looked
    ResidentTensor made{.name = tensor->name,
                        .form = resident_form(*tensor),
                        .rows = tensor->rows,
                        .columns = tensor->columns};
    const bool may_quantise = listed.may_quantise && tensor->columns % kGroupColumns == 0;
    if (types_.resident && may_quantise) made.form = *types_.resident;
    if (keeps_codes(*tensor, made.form)) made.order = tensor->order;
    const std::optional<PlacedPlanes> planes = place_matrix(made.form, made.rows, made.columns);
    PENSTOCK_CHECK(planes.has_value());  // the source, which is on a disk, is of the same size
    made.offset = end;
    made.bytes = planes->bytes;
    end = align_file(end + made.bytes);
    tensors_.push_back(tensor);
    resident_.push_back(std::move(made));
  }
}

Result<void> SourceInput::plan_experts() {
  const ExpertShape shape = {.num_layers = config_.num_moe_layers(),
                             .num_experts = config_.num_experts,
                             .hidden_size = config_.hidden_size,
                             .intermediate_size = config_.moe_intermediate_size};
  PENSTOCK_CHECK(shape.num_layers <= std::ssize(source_.experts()));
  std::optional<ExpertParts> parts;
  if (types_.experts) {
    parts = lay_out_experts(shape, types_, *types_.experts);
    if (!parts) {
      const std::string flag =
          types_.target_bytes ? std::string("--target-bytes")
                              : fmt::format("--experts {}", name_of(*types_.experts).substr(1));
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: {} needs hidden_size and moe_intermediate_size to be "
                               "multiples of {}, they are {} and {}; pack with --experts keep",
                               source_.path(), flag, kGroupColumns, shape.hidden_size,
                               shape.intermediate_size)};
    }
  } else {
    PENSTOCK_TRY(check_codings(source_, static_cast<int>(shape.num_layers)));
    std::vector<RecordForms> forms;
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      forms.push_back(layer_forms(source_.experts()[static_cast<size_t>(layer)]));
    }
    parts = lay_out_experts(shape, forms);
    PENSTOCK_CHECK(parts.has_value());  // as above
  }
  experts_ = *std::move(parts);
  return {};
}

Result<void> SourceInput::read_values(const SourceTensor& tensor, std::vector<float>& values) {
  values.resize(static_cast<size_t>(tensor.rows * tensor.columns));
  PENSTOCK_TRY(source_.read_rows(tensor, 0, values));
  count_read(tensor);
  return check_values(tensor, 0, values);
}

Result<void> SourceInput::choose_bits(const PackOptions& options, const std::stop_token& stop) {
  PENSTOCK_TRY(check_target_bytes(experts_, *types_.target_bytes));
  SurveyWork work = survey_work(options, experts_, stop);
  work.read = [&](int64_t layer, int64_t expert, PackedPart part, std::vector<float>& values) {
    const LayerExperts& stored = source_.experts()[static_cast<size_t>(layer)];
    SourceTensor tensor = part == kDownPart ? tensor_of(stored[ExpertPart::kDown].of(expert))
                                            : tensor_of(stored[ExpertPart::kGate].of(expert),
                                                        stored[ExpertPart::kUp].of(expert));
    tensor.name = fmt::format("{} of expert {} in layer {}",
                              part == kDownPart ? "down" : "gate and up", expert, layer);
    return read_values(tensor, values);
  };
  types_.layers = PENSTOCK_TRY(survey_and_plan(work, options));
  experts_ = *lay_out_experts(experts_, types_, DType::kQ8);
  return {};
}

std::vector<SourceFile> SourceInput::sources() const {
  std::vector<SourceFile> files;
  for (const CheckpointFile& file : source_.files()) {
    files.push_back({file.name(), file.stat.bytes});
  }
  return files;
}

std::vector<std::string> SourceInput::source_paths() const {
  std::vector<std::string> paths;
  for (const CheckpointFile& file : source_.files()) paths.push_back(file.path);
  return paths;
}

std::vector<uint32_t> SourceInput::files_of_resident(size_t index) const {
  std::vector<uint32_t> files;
  for (const StoredRows& range : tensors_[index]->ranges) add_files_of(range.matrix, files);
  return in_order(std::move(files));
}

std::vector<uint32_t> SourceInput::files_of_expert(int64_t layer, int64_t expert) const {
  std::vector<uint32_t> files;
  for (const ExpertMatrices& part : source_.experts()[static_cast<size_t>(layer)].parts) {
    add_files_of(part.of(expert), files);
  }
  return in_order(std::move(files));
}

std::vector<std::string> SourceInput::left_out() const {
  std::vector<std::string> sentences;
  if (!source_.skipped().empty()) {
    sentences.push_back(fmt::format("{} tensors that are not used, such as {}",
                                    source_.skipped().size(), escaped(source_.skipped().front())));
  }
  if (types_.without_prediction && source_.config().mtp_num_hidden_layers > 0) {
    sentences.push_back("the prediction block");
  }
  return sentences;
}

Result<void> SourceInput::make_resident(size_t index, const ByteSink& sink,
                                        const std::stop_token& stop) {
  const ResidentTensor& piece = resident_[index];
  const SourceTensor& tensor = *tensors_[index];
  const PlacedPlanes planes = *place_matrix(piece.form, piece.rows, piece.columns);
  uint64_t position = 0;
  std::vector<std::byte> bytes;
  std::vector<float> values;
  const auto pad_to = [&](uint64_t place) -> Result<void> {
    bytes.assign(place - position, std::byte{0});
    position = place;
    return bytes.empty() ? Result<void>() : sink(bytes);
  };
  for (const CodedPlane plane : kCodedPlanes) {
    if (bytes_of(planes.sizes, plane) == 0) continue;
    PENSTOCK_TRY(pad_to(bytes_of(planes.at, plane)));
    for (int64_t first = 0; first < tensor.rows; first += kRowsAtOnce) {
      if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
      const RowsWanted wanted = {plane, first, std::min(kRowsAtOnce, tensor.rows - first)};
      bytes.resize(rows_bytes(piece.form, tensor.columns, wanted));
      PENSTOCK_TRY(make_rows(source_, tensor, piece.form, wanted, make_options(), bytes));
      position += bytes.size();
      PENSTOCK_TRY(sink(bytes));
      if (!keeps_codes(tensor, piece.form) || plane != CodedPlane::kCodes) continue;
      values.resize(static_cast<size_t>(wanted.count * tensor.columns));
      PENSTOCK_TRY(source_.read_rows(tensor, first, values));
      PENSTOCK_TRY(check_values(tensor, first, values));
    }
  }
  count_read(tensor);
  return pad_to(piece.bytes);
}

Result<void> SourceInput::make_matrix(const SourceTensor& tensor, const MatrixForm& form,
                                      std::span<std::byte> out, const std::stop_token& stop) {
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  const PlacedPlanes planes = *place_matrix(form, tensor.rows, tensor.columns);
  for (const CodedPlane plane : kCodedPlanes) {
    const RowsWanted wanted = {plane, 0, tensor.rows};
    PENSTOCK_TRY(make_rows(source_, tensor, form, wanted, make_options(),
                           out.subspan(bytes_of(planes.at, plane), bytes_of(planes.sizes, plane))));
  }
  if (form.is_coded()) {
    PENSTOCK_TRY(
        check_codes(tensor, {.coding = form.coding,
                             .codes = out.data() + planes.at.codes,
                             .scales = out.data() + planes.at.scales,
                             .biases = out.data() + planes.at.biases,
                             .scale_rows = form.layout == MatrixLayout::kCodedPanels ? 0 : 1}));
  }
  count_read(tensor);
  return {};
}

// A scale that is no number makes no code wrong and every answer.
Result<void> SourceInput::check_codes(const SourceTensor& tensor, const CodedRows& coded) {
  const int64_t num_tasks = (tensor.rows + kPanelRows - 1) / kPanelRows;
  std::vector<std::optional<Error>> found(static_cast<size_t>(num_tasks));
  pool_.run(num_tasks, [&](int64_t task, int) {
    std::vector<float> values(static_cast<size_t>(tensor.columns)), stored(values.size());
    const int64_t end = std::min(tensor.rows, (task + 1) * kPanelRows);
    for (int64_t row = task * kPanelRows; row < end; ++row) {
      decode_row(coded, row, values, stored);
      const Result<void> checked = check_values(tensor, row, values);
      if (checked) continue;
      found[static_cast<size_t>(task)] = checked.error();
      return;
    }
  });
  for (std::optional<Error>& error : found) {
    if (error) return *std::move(error);
  }
  return {};
}

void SourceInput::count_read(const SourceTensor& tensor) {
  for (const StoredRows& range : tensor.ranges) {
    bytes_read_ += stored_bytes(range.matrix.coding, range.rows, range.matrix.columns);
  }
}

Result<void> SourceInput::make_part(int64_t layer, int64_t expert, PackedPart part,
                                    std::span<std::byte> out, const std::stop_token& stop) {
  const LayerExperts& stored = source_.experts()[static_cast<size_t>(layer)];
  const ExpertRecord& record = experts_.record(layer);
  const RecordForms& forms = record.forms;
  const auto named = [&](SourceTensor tensor, std::string_view name) {
    tensor.name = fmt::format("{} of expert {} in layer {}", name, expert, layer);
    return tensor;
  };
  std::memset(out.data(), 0, out.size());  // what lies between planes
  if (part == kDownPart) {
    const StoredMatrix down = stored[ExpertPart::kDown].of(expert);
    return make_matrix(named(tensor_of(down), "down"), forms.down, out, stop);
  }
  const StoredMatrix gate = stored[ExpertPart::kGate].of(expert);
  const StoredMatrix up = stored[ExpertPart::kUp].of(expert);
  if (forms.is_fused) {
    return make_matrix(named(tensor_of(gate, up), "gate and up"), forms.gate, out, stop);
  }
  PENSTOCK_TRY(make_matrix(named(tensor_of(gate), "gate"), forms.gate, out, stop));
  return make_matrix(named(tensor_of(up), "up"), forms.up, out.subspan(record.up_offset), stop);
}

Result<void> SourceInput::add_files(const AddFile& add) {
  for (const SourceText& text : source_.texts()) {
    PENSTOCK_TRY(add(text.name, std::as_bytes(std::span(text.text))));
  }
  return {};
}

uint64_t SourceInput::file_bytes() const {
  uint64_t bytes = 0;
  for (const SourceText& text : source_.texts()) bytes += text.text.size();
  return bytes;
}

}  // namespace

Result<std::unique_ptr<PackInput>> open_source_input(Storage& storage, const PackOptions& options,
                                                     const std::stop_token& stop) {
  return SourceInput::open(storage, options, stop);
}

}  // namespace penstock
