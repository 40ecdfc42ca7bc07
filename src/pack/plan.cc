#include "pack/plan.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <unordered_set>

#include "format/text.h"

namespace penstock {
namespace {

constexpr std::array<std::string_view, 2> kTextPrefixes = {"model.language_model.", "model."};
constexpr std::array<std::string_view, 2> kVisionPrefixes = {"model.visual.", "visual."};
constexpr std::string_view kMtpPrefix = "mtp.";

using Shape = std::vector<int64_t>;

enum class Precision { kAsAsked, kSource };

}  // namespace

class PlanMaker {
 public:
  PlanMaker(const Checkpoint& checkpoint, const ModelConfig& config, const StoredTypes& types)
      : checkpoint_(checkpoint), config_(config), types_(types) {}

  Result<PackPlan> make();

 private:
  // A tensor that must be there with this shape; from now on it is not left over.
  Result<const CheckpointTensor*> take(const std::string& name, const Shape& shape);
  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }
  // The prediction block's layer has the number after the last one.
  bool is_prediction(int64_t layer) const { return layer == config_.num_hidden_layers; }
  std::string layer_name(int64_t layer, std::string_view rest) const {
    if (is_prediction(layer)) return fmt::format("{}layers.0.{}", kMtpPrefix, rest);
    return fmt::format("{}layers.{}.{}", prefix_, layer, rest);
  }
  std::string target_name(int64_t layer, std::string_view rest) const {
    if (is_prediction(layer)) return fmt::format("{}{}", kMtpPrefix, rest);
    return fmt::format("layers.{}.{}", layer, rest);
  }

  Result<void> find_prefix();
  void add(std::string name, ResidentTensor tensor, MatrixSource source, Change change);
  void add_matrix(const std::string& name, MatrixSource source, Precision precision);
  Result<void> matrix(const std::string& source, const std::string& name, int64_t rows,
                      int64_t columns, Precision precision);
  Result<void> plain(const std::string& source, const std::string& name, const Shape& shape,
                     Change change);

  Result<void> plan_layer(int64_t layer);
  bool has_prediction_block() const;
  Result<void> plan_prediction_block();
  Result<void> plan_attention(int64_t layer);
  Result<void> plan_delta_net(int64_t layer);
  Result<void> plan_delta_inputs(int64_t layer);
  Result<void> plan_fused_delta_inputs(int64_t layer);
  Result<void> plan_mlp(int64_t layer);
  Result<void> plan_experts(int64_t layer);
  Result<void> lay_out_records();
  Result<void> check_leftovers();
  void count_parameters();

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const StoredTypes& types_;
  std::string prefix_;
  std::unordered_set<const CheckpointTensor*> taken_;
  bool all_experts_bf16_ = true;
  PackPlan plan_;
};

Result<const CheckpointTensor*> PlanMaker::take(const std::string& name, const Shape& shape) {
  const CheckpointTensor* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: tensor {} {} is missing", checkpoint_.directory(), name,
                             shape_text(shape))};
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

Result<void> PlanMaker::find_prefix() {
  for (const std::string_view prefix : kTextPrefixes) {
    if (!has(std::string(prefix) + "embed_tokens.weight")) continue;
    prefix_ = prefix;
    return {};
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no tensor embed_tokens.weight under {}", checkpoint_.directory(),
                           fmt::join(kTextPrefixes, " or "))};
}

void PlanMaker::add(std::string name, ResidentTensor tensor, MatrixSource source, Change change) {
  tensor.name = std::move(name);
  tensor.offset = plan_.resident_bytes_;
  plan_.resident_bytes_ = align_file(tensor.offset + tensor.bytes);
  plan_.resident_.push_back({std::move(tensor), std::move(source), change});
}

void PlanMaker::add_matrix(const std::string& name, MatrixSource source, Precision precision) {
  const CheckpointTensor& first = *source.ranges.front().tensor;
  ResidentTensor tensor;
  tensor.panels = true;
  tensor.columns = first.columns();
  for (const RowRange& range : source.ranges) tensor.rows += range.rows;
  tensor.dtype = first.info.float_dtype() == DType::kBF16 ? DType::kBF16 : DType::kF32;
  if (precision == Precision::kAsAsked && types_.resident && tensor.columns % kGroupColumns == 0) {
    tensor.dtype = *types_.resident;
  }
  const std::optional<uint64_t> bytes =
      stored_panel_bytes(tensor.dtype, tensor.rows, tensor.columns);
  PENSTOCK_CHECK(bytes.has_value());  // the config's ranges keep it far from wrapping
  tensor.bytes = *bytes;
  add(name, tensor, std::move(source), Change::kNone);
}

Result<void> PlanMaker::matrix(const std::string& source, const std::string& name, int64_t rows,
                               int64_t columns, Precision precision) {
  const CheckpointTensor* tensor = PENSTOCK_TRY(take(source, {rows, columns}));
  add_matrix(name, {{{tensor, 0, rows}}}, precision);
  return {};
}

Result<void> PlanMaker::plain(const std::string& source, const std::string& name,
                              const Shape& shape, Change change) {
  const CheckpointTensor* tensor = PENSTOCK_TRY(take(source, shape));
  ResidentTensor stored;
  stored.dtype = DType::kF32;
  stored.rows = tensor->rows();
  stored.columns = tensor->columns();
  stored.bytes = static_cast<uint64_t>(stored.rows * stored.columns) * sizeof(float);
  add(name, stored, {{{tensor, 0, stored.rows}}}, change);
  return {};
}

Result<void> PlanMaker::plan_attention(int64_t layer) {
  const int64_t hidden = config_.hidden_size;
  const int64_t width = config_.num_attention_heads * config_.head_dim;
  const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
  struct Projection {
    std::string_view name;
    int64_t rows, columns;
  };
  const std::array<Projection, 4> projections = {{{"q_proj", 2 * width, hidden},
                                                  {"k_proj", kv_width, hidden},
                                                  {"v_proj", kv_width, hidden},
                                                  {"o_proj", hidden, width}}};
  const std::string target = target_name(layer, "self_attn.");
  for (const Projection& projection : projections) {
    const std::string source = layer_name(layer, fmt::format("self_attn.{}", projection.name));
    const std::string name = target + std::string(projection.name);
    PENSTOCK_TRY(
        matrix(source + ".weight", name, projection.rows, projection.columns, Precision::kAsAsked));
    if (config_.attention_bias) {
      PENSTOCK_TRY(plain(source + ".bias", name + ".bias", {projection.rows}, Change::kNone));
    }
  }
  for (const std::string_view norm : {"q_norm", "k_norm"}) {
    PENSTOCK_TRY(plain(layer_name(layer, fmt::format("self_attn.{}.weight", norm)),
                       target + std::string(norm), {config_.head_dim}, Change::kAddOne));
  }
  return {};
}

// Four matrices, or two whose rows are grouped by key head (spec section 3.2).
Result<void> PlanMaker::plan_delta_inputs(int64_t layer) {
  if (has(layer_name(layer, "linear_attn.in_proj_qkvz.weight"))) {
    return plan_fused_delta_inputs(layer);
  }
  const int64_t hidden = config_.hidden_size;
  const int64_t value_heads = config_.linear_num_value_heads;
  struct Projection {
    std::string_view name;
    int64_t rows;
    Precision precision;
  };
  const std::array<Projection, 4> projections = {
      {{"in_proj_qkv", config_.conv_channels(), Precision::kAsAsked},
       {"in_proj_z", value_heads * config_.linear_value_head_dim, Precision::kAsAsked},
       {"in_proj_b", value_heads, Precision::kSource},
       {"in_proj_a", value_heads, Precision::kSource}}};
  for (const Projection& projection : projections) {
    PENSTOCK_TRY(matrix(layer_name(layer, fmt::format("linear_attn.{}.weight", projection.name)),
                        target_name(layer, fmt::format("linear_attn.{}", projection.name)),
                        projection.rows, hidden, projection.precision));
  }
  return {};
}

Result<void> PlanMaker::plan_fused_delta_inputs(int64_t layer) {
  const int64_t key_heads = config_.linear_num_key_heads;
  const int64_t per_key = config_.linear_num_value_heads / key_heads;
  const int64_t key_width = config_.linear_key_head_dim;
  const int64_t value_width = per_key * config_.linear_value_head_dim;
  const int64_t group = 2 * key_width + 2 * value_width;
  const CheckpointTensor* qkvz =
      PENSTOCK_TRY(take(layer_name(layer, "linear_attn.in_proj_qkvz.weight"),
                        {key_heads * group, config_.hidden_size}));
  const CheckpointTensor* ba = PENSTOCK_TRY(take(layer_name(layer, "linear_attn.in_proj_ba.weight"),
                                                 {key_heads * 2 * per_key, config_.hidden_size}));
  // The block of key head j holds: q | k | its values | its gates; and in ba: b | a.
  const auto gather = [&](MatrixSource& out, const CheckpointTensor* tensor, int64_t stride,
                          int64_t first, int64_t rows) {
    for (int64_t head = 0; head < key_heads; ++head) {
      out.ranges.push_back({tensor, head * stride + first, rows});
    }
  };
  MatrixSource qkv, z, b, a;
  gather(qkv, qkvz, group, 0, key_width);
  gather(qkv, qkvz, group, key_width, key_width);
  gather(qkv, qkvz, group, 2 * key_width, value_width);
  gather(z, qkvz, group, 2 * key_width + value_width, value_width);
  gather(b, ba, 2 * per_key, 0, per_key);
  gather(a, ba, 2 * per_key, per_key, per_key);
  const std::string target = target_name(layer, "linear_attn.");
  add_matrix(target + "in_proj_qkv", std::move(qkv), Precision::kAsAsked);
  add_matrix(target + "in_proj_z", std::move(z), Precision::kAsAsked);
  add_matrix(target + "in_proj_b", std::move(b), Precision::kSource);
  add_matrix(target + "in_proj_a", std::move(a), Precision::kSource);
  return {};
}

Result<void> PlanMaker::plan_delta_net(int64_t layer) {
  PENSTOCK_TRY(plan_delta_inputs(layer));
  const int64_t value_heads = config_.linear_num_value_heads;
  const std::string target = target_name(layer, "linear_attn.");
  PENSTOCK_TRY(plain(layer_name(layer, "linear_attn.conv1d.weight"), target + "conv1d",
                     {config_.conv_channels(), 1, config_.linear_conv_kernel_dim}, Change::kNone));
  PENSTOCK_TRY(plain(layer_name(layer, "linear_attn.A_log"), target + "decay", {value_heads},
                     Change::kMinusExp));
  PENSTOCK_TRY(plain(layer_name(layer, "linear_attn.dt_bias"), target + "dt_bias", {value_heads},
                     Change::kNone));
  PENSTOCK_TRY(plain(layer_name(layer, "linear_attn.norm.weight"), target + "norm",
                     {config_.linear_value_head_dim}, Change::kNone));
  return matrix(layer_name(layer, "linear_attn.out_proj.weight"), target + "out_proj",
                config_.hidden_size, value_heads * config_.linear_value_head_dim,
                Precision::kAsAsked);
}

Result<void> PlanMaker::plan_mlp(int64_t layer) {
  const int64_t hidden = config_.hidden_size;
  const int64_t shared = config_.shared_expert_intermediate_size;
  struct Projection {
    std::string_view name;
    int64_t rows, columns;
    Precision precision;
  };
  // The router and the shared gate decide which way a token goes; they stay as they are.
  const std::array<Projection, 5> projections = {
      {{"gate", config_.num_experts, hidden, Precision::kSource},
       {"shared_expert_gate", 1, hidden, Precision::kSource},
       {"shared_expert.gate_proj", shared, hidden, Precision::kAsAsked},
       {"shared_expert.up_proj", shared, hidden, Precision::kAsAsked},
       {"shared_expert.down_proj", hidden, shared, Precision::kAsAsked}}};
  for (const Projection& projection : projections) {
    PENSTOCK_TRY(matrix(layer_name(layer, fmt::format("mlp.{}.weight", projection.name)),
                        target_name(layer, fmt::format("mlp.{}", projection.name)), projection.rows,
                        projection.columns, projection.precision));
  }
  return {};
}

Result<void> PlanMaker::plan_experts(int64_t layer) {
  const int64_t experts = config_.num_experts;
  const int64_t hidden = config_.hidden_size;
  const int64_t ffn = config_.moe_intermediate_size;
  PackPlan::LayerExperts entry;
  std::vector<const CheckpointTensor*> tensors;
  if (has(layer_name(layer, "mlp.experts.gate_up_proj"))) {
    entry.gate_up = PENSTOCK_TRY(
        take(layer_name(layer, "mlp.experts.gate_up_proj"), {experts, 2 * ffn, hidden}));
    entry.down =
        PENSTOCK_TRY(take(layer_name(layer, "mlp.experts.down_proj"), {experts, hidden, ffn}));
    tensors = {entry.gate_up, entry.down};
  } else {
    for (int64_t expert = 0; expert < experts; ++expert) {
      const std::string base = layer_name(layer, fmt::format("mlp.experts.{}.", expert));
      entry.single.push_back(PENSTOCK_TRY(take(base + "gate_proj.weight", {ffn, hidden})));
      entry.single.push_back(PENSTOCK_TRY(take(base + "up_proj.weight", {ffn, hidden})));
      entry.single.push_back(PENSTOCK_TRY(take(base + "down_proj.weight", {hidden, ffn})));
      const auto gate = entry.single.end() - 3;
      if ((*gate)->info.type != (*(gate + 1))->info.type) {
        return Error{
            ErrorCode::kUnsupported,
            fmt::format("{}: tensors {} and {} are of different types ({} and {})",
                        checkpoint_.directory(), (*gate)->info.name, (*(gate + 1))->info.name,
                        (*gate)->info.type, (*(gate + 1))->info.type)};
      }
    }
    tensors = entry.single;
  }
  for (const CheckpointTensor* tensor : tensors) {
    all_experts_bf16_ = all_experts_bf16_ && tensor->info.float_dtype() == DType::kBF16;
  }
  plan_.layers_.push_back(std::move(entry));
  return {};
}

Result<void> PlanMaker::plan_layer(int64_t layer) {
  const std::string target = target_name(layer, "");
  PENSTOCK_TRY(plain(layer_name(layer, "input_layernorm.weight"), target + "input_layernorm",
                     {config_.hidden_size}, Change::kAddOne));
  if (is_prediction(layer) ||
      config_.layer_types[static_cast<size_t>(layer)] == LayerType::kFullAttention) {
    PENSTOCK_TRY(plan_attention(layer));
  } else {
    PENSTOCK_TRY(plan_delta_net(layer));
  }
  PENSTOCK_TRY(plain(layer_name(layer, "post_attention_layernorm.weight"),
                     target + "post_attention_layernorm", {config_.hidden_size}, Change::kAddOne));
  PENSTOCK_TRY(plan_mlp(layer));
  return plan_experts(layer);
}

// Some releases carry only pieces of the block; those are kept as they are (copy_mtp).
bool PlanMaker::has_prediction_block() const {
  const CheckpointTensor* fc = checkpoint_.find(fmt::format("{}fc.weight", kMtpPrefix));
  return fc != nullptr && fc->info.shape == Shape{config_.hidden_size, 2 * config_.hidden_size} &&
         has(fmt::format("{}layers.0.self_attn.q_proj.weight", kMtpPrefix));
}

Result<void> PlanMaker::plan_prediction_block() {
  const std::string prefix(kMtpPrefix);
  const int64_t hidden = config_.hidden_size;
  for (const std::string_view norm : {"pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"}) {
    const std::string name = prefix + std::string(norm);
    PENSTOCK_TRY(plain(name + ".weight", name, {hidden}, Change::kAddOne));
  }
  PENSTOCK_TRY(
      matrix(prefix + "fc.weight", prefix + "fc", hidden, 2 * hidden, Precision::kAsAsked));
  plan_.prediction_layers_ = 1;
  return plan_layer(config_.num_hidden_layers);
}

Result<void> PlanMaker::lay_out_records() {
  ExpertParts parts;
  parts.dtype = types_.experts.value_or(all_experts_bf16_ ? DType::kBF16 : DType::kF32);
  parts.num_layers = config_.num_hidden_layers + plan_.prediction_layers_;
  parts.num_experts = config_.num_experts;
  parts.hidden_size = config_.hidden_size;
  parts.intermediate_size = config_.moe_intermediate_size;
  if (is_quantised(parts.dtype) &&
      (parts.hidden_size % kGroupColumns != 0 || parts.intermediate_size % kGroupColumns != 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} needs hidden_size and moe_intermediate_size to be multiples "
                             "of {}, they are {} and {}; pack with --experts keep",
                             checkpoint_.directory(), name_of(parts.dtype), kGroupColumns,
                             parts.hidden_size, parts.intermediate_size)};
  }
  const std::optional<ExpertParts> laid_out = lay_out_experts(parts);
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
    const bool is_vision =
        name.starts_with(kVisionPrefixes[0]) || name.starts_with(kVisionPrefixes[1]);
    if (is_vision) {
      plan_.parameters_.vision += elements;
    } else if (name.starts_with(kMtpPrefix)) {
      plan_.parameters_.mtp += elements;
      plan_.mtp_.push_back(&tensor);
    } else if (config_.tie_word_embeddings && name == "lm_head.weight") {
      continue;  // a second copy of the embedding, which tied models may carry
    } else if (++count <= 5) {
      names += (names.empty() ? "" : ", ") + escaped(name);
    }
  }
  if (count == 0) return {};
  return Error{ErrorCode::kCorrupt,
               fmt::format("{}: {} tensors that config.json does not explain, such as {}; is it "
                           "another architecture?",
                           checkpoint_.directory(), count, names)};
}

void PlanMaker::count_parameters() {
  PackPlan::Parameters& count = plan_.parameters_;
  for (const ResidentPiece& piece : plan_.resident_) {
    const int64_t elements = piece.tensor.rows * piece.tensor.columns;
    (piece.tensor.name.starts_with(kMtpPrefix) ? count.mtp : count.resident) += elements;
  }
  const int64_t one_expert = 3 * config_.hidden_size * config_.moe_intermediate_size;
  count.mtp += plan_.prediction_layers_ * config_.num_experts * one_expert;
  count.experts = config_.num_hidden_layers * config_.num_experts * one_expert;
  count.active =
      count.resident + config_.num_hidden_layers * config_.num_experts_per_tok * one_expert;
  // Of an embedding of its own one row is read; a tied one is also the head.
  if (!config_.tie_word_embeddings) count.active -= config_.vocab_size * config_.hidden_size;
}

Result<PackPlan> PlanMaker::make() {
  PENSTOCK_TRY(find_prefix());
  PENSTOCK_TRY(matrix(prefix_ + "embed_tokens.weight", "embed_tokens", config_.vocab_size,
                      config_.hidden_size, Precision::kAsAsked));
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    PENSTOCK_TRY(plan_layer(layer));
  }
  PENSTOCK_TRY(plain(prefix_ + "norm.weight", "norm", {config_.hidden_size}, Change::kAddOne));
  if (!config_.tie_word_embeddings) {
    PENSTOCK_TRY(matrix("lm_head.weight", "lm_head", config_.vocab_size, config_.hidden_size,
                        Precision::kAsAsked));
  }
  if (has_prediction_block()) PENSTOCK_TRY(plan_prediction_block());
  PENSTOCK_TRY(lay_out_records());
  PENSTOCK_TRY(check_leftovers());
  count_parameters();
  return std::move(plan_);
}

Result<PackPlan> PackPlan::make(const Checkpoint& checkpoint, const ModelConfig& config,
                                const StoredTypes& types) {
  return PlanMaker(checkpoint, config, types).make();
}

MatrixSource PackPlan::gate_up(int64_t layer, int64_t expert) const {
  const LayerExperts& entry = layers_[static_cast<size_t>(layer)];
  const int64_t ffn = experts_.intermediate_size;
  if (entry.gate_up != nullptr) return {{{entry.gate_up, expert * 2 * ffn, 2 * ffn}}};
  const auto first = static_cast<size_t>(expert) * 3;
  return {{{entry.single[first], 0, ffn}, {entry.single[first + 1], 0, ffn}}};
}

MatrixSource PackPlan::down(int64_t layer, int64_t expert) const {
  const LayerExperts& entry = layers_[static_cast<size_t>(layer)];
  const int64_t hidden = experts_.hidden_size;
  if (entry.down != nullptr) return {{{entry.down, expert * hidden, hidden}}};
  return {{{entry.single[static_cast<size_t>(expert) * 3 + 2], 0, hidden}}};
}

}  // namespace penstock
