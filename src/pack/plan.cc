#include "pack/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "format/text.h"
#include "model/registry.h"

namespace penstock {

std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape, const StoredTypes& types,
                                           DType otherwise) {
  const MatrixForm gate_up = panel_form(types.experts.value_or(otherwise));
  const MatrixForm down = types.experts && types.down ? panel_form(*types.down) : gate_up;
  const RecordForms forms = {.is_fused = true, .gate = gate_up, .up = gate_up, .down = down};
  if (!lay_out_experts(shape, gate_up.dtype)) return std::nullopt;  // counts that wrap
  if (!types.layers.empty()) return lay_out_experts(shape, record_forms(types.layers));
  return lay_out_experts(shape, std::vector(static_cast<size_t>(shape.num_layers), forms));
}

class PlanMaker {
 public:
  PlanMaker(const Checkpoint& checkpoint, const ModelConfig& config, const StoredTypes& types)
      : checkpoint_(checkpoint), types_(types) {
    plan_.config_ = config;
  }

  Result<PackPlan> make();

 private:
  // A tensor that must be there with this shape; from now on it is not left over.
  Result<const CheckpointTensor*> take(const std::string& name, const std::vector<int64_t>& shape);
  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }
  const SourceForm& choose(const std::vector<SourceForm>& forms) const;

  Result<void> make_list();
  Result<std::string_view> find_prefix(const Family& family) const;
  Result<MatrixSource> find_source(const TensorSpec& tensor);
  Result<void> plan_tensor(const TensorSpec& tensor);
  Result<void> plan_experts(const ExpertSpec& layer);
  Result<std::vector<PackPlan::ExpertRange>> find_ranges(const SourceForm& form);
  Result<void> lay_out_records();
  Result<void> check_leftovers();

  const Checkpoint& checkpoint_;
  const StoredTypes& types_;
  std::string advice_;  // for whoever lacks the tensor that is looked for
  TensorList list_;
  std::unordered_set<const CheckpointTensor*> taken_;
  bool all_experts_bf16_ = true;
  PackPlan plan_;
};

Result<const CheckpointTensor*> PlanMaker::take(const std::string& name,
                                                const std::vector<int64_t>& shape) {
  const CheckpointTensor* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: tensor {} {} is missing{}{}", checkpoint_.directory(), name,
                             shape_text(shape), checkpoint_.where_missing(name), advice_)};
  }
  if (tensor->info.shape != shape) {
    return Error{
        ErrorCode::kCorrupt,
        fmt::format("{}: tensor {} has shape {}, config.json asks for {}", checkpoint_.directory(),
                    name, shape_text(tensor->info.shape), shape_text(shape))};
  }
  PENSTOCK_TRY(Checkpoint::float_dtype(*tensor));
  taken_.insert(tensor);
  return tensor;
}

// The first form whose marker is there; the last has none.
const SourceForm& PlanMaker::choose(const std::vector<SourceForm>& forms) const {
  for (const SourceForm& form : forms) {
    if (form.marker.empty() || has(form.marker)) return form;
  }
  return forms.back();
}

Result<std::string_view> PlanMaker::find_prefix(const Family& family) const {
  for (const std::string_view prefix : family.text_prefixes) {
    if (has(std::string(prefix) + "embed_tokens.weight")) return prefix;
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no tensor embed_tokens.weight under {}", checkpoint_.directory(),
                           fmt::join(family.text_prefixes, " or "))};
}

// With the prediction block where the checkpoint has one, whatever its configuration says, unless it
// is not wanted; some releases carry only pieces of it, which are kept as they are.
Result<void> PlanMaker::make_list() {
  const std::string_view prefix = PENSTOCK_TRY(find_prefix(family_of(plan_.config_)));
  plan_.config_.mtp_num_hidden_layers = types_.without_prediction ? 0 : 1;
  list_ = list_tensors(plan_.config_, prefix);
  if (types_.without_prediction) return {};
  const auto is_there = [&](const SourceRange& marker) {
    const CheckpointTensor* tensor = checkpoint_.find(marker.tensor);
    return tensor != nullptr && (marker.shape.empty() || tensor->info.shape == marker.shape);
  };
  const std::vector<SourceRange>& markers = list_.prediction_markers;
  if (!markers.empty() && std::ranges::all_of(markers, is_there)) return {};
  plan_.config_.mtp_num_hidden_layers = 0;
  list_ = list_tensors(plan_.config_, prefix);
  return {};
}

Result<MatrixSource> PlanMaker::find_source(const TensorSpec& tensor) {
  MatrixSource source;
  for (const SourceRange& range : choose(tensor.sources).ranges) {
    source.ranges.push_back(
        {PENSTOCK_TRY(take(range.tensor, range.shape)), range.first_row, range.rows});
  }
  return source;
}

Result<void> PlanMaker::plan_tensor(const TensorSpec& spec) {
  ResidentPiece piece;
  piece.source = PENSTOCK_TRY(find_source(spec));
  piece.change = spec.change;
  ResidentTensor& tensor = piece.tensor;
  tensor.name = spec.name;
  tensor.rows = spec.rows;
  tensor.columns = spec.columns;
  if (spec.stored == StoredAs::kVector) {
    tensor.form = plain_form();
    tensor.bytes = static_cast<uint64_t>(spec.elements()) * sizeof(float);
  } else {
    const CheckpointTensor& first = *piece.source.ranges.front().tensor;
    const bool may_quantise =
        spec.stored == StoredAs::kMatrix && tensor.columns % kGroupColumns == 0;
    tensor.form = panel_form(first.info.float_dtype() == DType::kBF16 ? DType::kBF16 : DType::kF32);
    if (may_quantise && types_.resident) tensor.form = *types_.resident;
    const std::optional<PlacedPlanes> planes =
        place_matrix(tensor.form, tensor.rows, tensor.columns);
    PENSTOCK_CHECK(planes.has_value());  // the config's ranges keep it far from wrapping
    tensor.bytes = planes->bytes;
  }
  tensor.offset = plan_.resident_bytes_;
  plan_.resident_bytes_ = align_file(tensor.offset + tensor.bytes);
  plan_.resident_.push_back(std::move(piece));
  return {};
}

Result<std::vector<PackPlan::ExpertRange>> PlanMaker::find_ranges(const SourceForm& form) {
  std::vector<PackPlan::ExpertRange> ranges;
  for (const SourceRange& range : form.ranges) {
    PackPlan::ExpertRange& found = ranges.emplace_back();
    found.first_row = range.first_row;
    found.rows = range.rows;
    found.rows_per_expert = range.rows_per_expert;
    const size_t place = range.tensor.find("{}");
    const int64_t count = place == std::string::npos ? 1 : plan_.config_.num_experts;
    for (int64_t expert = 0; expert < count; ++expert) {
      std::string name = range.tensor;
      if (place != std::string::npos) name.replace(place, 2, fmt::format("{}", expert));
      const CheckpointTensor* tensor = PENSTOCK_TRY(take(name, range.shape));
      all_experts_bf16_ = all_experts_bf16_ && tensor->info.float_dtype() == DType::kBF16;
      found.tensors.push_back(tensor);
    }
  }
  // The rows of one matrix are read as one type.
  for (size_t i = 1; i < ranges.size(); ++i) {
    PENSTOCK_CHECK(ranges[i].tensors.size() == ranges[0].tensors.size());
    for (size_t expert = 0; expert < ranges[i].tensors.size(); ++expert) {
      const TensorInfo& first = ranges[0].tensors[expert]->info;
      const TensorInfo& other = ranges[i].tensors[expert]->info;
      if (first.type == other.type) continue;
      return Error{
          ErrorCode::kUnsupported,
          fmt::format("{}: tensors {} and {} are of different types ({} and {})",
                      checkpoint_.directory(), first.name, other.name, first.type, other.type)};
    }
  }
  return ranges;
}

Result<void> PlanMaker::plan_experts(const ExpertSpec& layer) {
  PackPlan::LayerExperts entry;
  entry.gate_up = PENSTOCK_TRY(find_ranges(choose(layer.gate_up)));
  entry.down = PENSTOCK_TRY(find_ranges(choose(layer.down)));
  plan_.layers_.push_back(std::move(entry));
  return {};
}

Result<void> PlanMaker::lay_out_records() {
  const ModelConfig& config = plan_.config_;
  const ExpertShape shape = {.num_layers = config.num_moe_layers(),
                             .num_experts = config.num_experts,
                             .hidden_size = config.hidden_size,
                             .intermediate_size = config.moe_intermediate_size};
  const DType kept = all_experts_bf16_ ? DType::kBF16 : DType::kF32;
  const DType dtype = types_.experts.value_or(kept);
  if (is_quantised(dtype) &&
      (shape.hidden_size % kGroupColumns != 0 || shape.intermediate_size % kGroupColumns != 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} needs hidden_size and moe_intermediate_size to be multiples "
                             "of {}, they are {} and {}; pack with --experts keep",
                             checkpoint_.directory(), name_of(dtype), kGroupColumns,
                             shape.hidden_size, shape.intermediate_size)};
  }
  const std::optional<ExpertParts> laid_out = lay_out_experts(shape, types_, kept);
  PENSTOCK_CHECK(laid_out.has_value());  // the source, which is on a disk, is of the same size
  plan_.experts_ = *laid_out;
  return {};
}

Result<void> PlanMaker::check_leftovers() {
  std::string names;
  int64_t count = 0;
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
    const std::string& name = tensor.info.name;
    if (taken_.contains(&tensor)) continue;
    const int64_t elements = tensor.rows() * tensor.columns();
    const auto rule = std::ranges::find_if(
        list_.leftovers, [&](const Leftover& known) { return name.starts_with(known.prefix); });
    if (rule == list_.leftovers.end()) {
      if (++count <= 5) names += (names.empty() ? "" : ", ") + escaped(name);
    } else if (rule->kind == Leftover::Kind::kVision) {
      plan_.vision_elements_ += elements;
    } else if (rule->kind == Leftover::Kind::kPrediction) {
      if (types_.without_prediction) continue;
      plan_.kept_elements_ += elements;
      plan_.mtp_.push_back(&tensor);
    }
  }
  if (!plan_.mtp_.empty()) {
    plan_.notes_.push_back(fmt::format(
        "its prediction block is not whole ({} tensors): kept, but not used", plan_.mtp_.size()));
  }
  if (count == 0) return {};
  return Error{ErrorCode::kCorrupt,
               fmt::format("{}: {} tensors that config.json does not explain, such as {}; is it "
                           "another architecture?",
                           checkpoint_.directory(), count, names)};
}

Result<PackPlan> PlanMaker::make() {
  plan_.notes_ = checkpoint_.notes();
  PENSTOCK_TRY(make_list());
  const auto advise = [&](bool of_prediction_block) {
    advice_ =
        of_prediction_block ? "; --without-prediction leaves the whole prediction block out" : "";
  };
  for (const TensorSpec& tensor : list_.resident) {
    advise(tensor.of_prediction_block);
    PENSTOCK_TRY(plan_tensor(tensor));
  }
  for (const ExpertSpec& layer : list_.experts) {
    advise(layer.of_prediction_block);
    PENSTOCK_TRY(plan_experts(layer));
  }
  PENSTOCK_TRY(lay_out_records());
  PENSTOCK_TRY(check_leftovers());
  return std::move(plan_);
}

Result<PackPlan> PackPlan::make(const Checkpoint& checkpoint, const ModelConfig& config,
                                const StoredTypes& types) {
  return PlanMaker(checkpoint, config, types).make();
}

MatrixSource PackPlan::source_of(const std::vector<ExpertRange>& ranges, int64_t expert) {
  MatrixSource source;
  for (const ExpertRange& range : ranges) {
    const bool shared = range.rows_per_expert > 0;
    const CheckpointTensor* tensor = range.tensors[shared ? 0 : static_cast<size_t>(expert)];
    source.ranges.push_back({tensor, range.first_row + expert * range.rows_per_expert, range.rows});
  }
  return source;
}

MatrixSource PackPlan::gate_up(int64_t layer, int64_t expert) const {
  return source_of(layers_[static_cast<size_t>(layer)].gate_up, expert);
}

MatrixSource PackPlan::down(int64_t layer, int64_t expert) const {
  return source_of(layers_[static_cast<size_t>(layer)].down, expert);
}

}  // namespace penstock
