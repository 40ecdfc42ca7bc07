#include "source/folder_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "format/checkpoint.h"
#include "format/quantisation.h"
#include "format/text.h"
#include "io/paths.h"
#include "source/folder_tensors.h"
#include "source/normal_tensors.h"

namespace penstock {
namespace {

constexpr uint64_t kConfigBytesMax = 1 << 20;
constexpr std::array<std::string_view, 3> kPrefixes = {"model.language_model.",
                                                       "language_model.model.", "model."};
constexpr std::array<std::string_view, 4> kVisionPrefixes = {
    "model.visual.", "visual.", "vision_tower.", "model.vision_tower."};
constexpr std::string_view kMtpPrefix = "mtp.";

class FolderReader {
 public:
  FolderReader(const Checkpoint& checkpoint, const Quantisation& quantisation,
               const ModelConfig& config)
      : checkpoint_(checkpoint), tensors_(checkpoint, quantisation), config_(config) {}

  Result<void> read(SourceParts& parts);
  bool is_mlx() const { return is_mlx_; }

 private:
  Error corrupt(const std::string& reason) const {
    return {ErrorCode::kCorrupt, fmt::format("{}: {}", checkpoint_.directory(), reason)};
  }
  Result<void> find_names();
  bool has_prediction_block() const;
  // The name of the module, without .weight, of a tensor in normal form.
  std::string module_name(const std::string& name) const;
  std::string layer_name(int64_t layer, std::string_view rest) const;

  Result<SourceTensor> resident(const NormalTensor& wanted);
  Result<StoredMatrix> plain(const NormalTensor& wanted);
  bool is_fused_delta_input(const NormalName& name) const;
  Result<std::vector<StoredRows>> fused_delta_input(const NormalName& name);

  Result<LayerExperts> experts(int64_t layer);
  Result<LayerExperts> fused_experts(int64_t layer);
  Result<LayerExperts> stacked_experts(int64_t layer);
  Result<LayerExperts> single_experts(int64_t layer);
  Result<void> settle_left_over(SourceParts& parts) const;

  const Checkpoint& checkpoint_;
  FolderTensors tensors_;
  ModelConfig config_;
  std::string prefix_;
  std::string head_;
  bool is_mlx_ = false;
};

Result<void> FolderReader::find_names() {
  for (const std::string_view prefix : kPrefixes) {
    if (!tensors_.has_module(std::string(prefix) + "embed_tokens")) continue;
    prefix_ = prefix;
    break;
  }
  if (prefix_.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no tensor embed_tokens.weight under {}", checkpoint_.directory(),
                             fmt::join(kPrefixes, ", "))};
  }
  head_ = prefix_ == kPrefixes[1] ? "language_model.lm_head" : "lm_head";
  // The one reliable sign that norms are stored as 1 + w already.
  const std::vector<int64_t> mlx_shape = {config_.conv_channels(), config_.linear_conv_kernel_dim,
                                          1};
  bool is_first = true;
  for (size_t i = 0; i < config_.layer_types.size(); ++i) {
    const CheckpointTensor* conv =
        checkpoint_.find(layer_name(static_cast<int64_t>(i), "linear_attn.conv1d.weight"));
    if (conv == nullptr) continue;
    const bool is_mlx = conv->info.shape == mlx_shape && config_.linear_conv_kernel_dim > 1;
    if (!is_first && is_mlx != is_mlx_) {
      return corrupt(
          "the convolutions of its layers are laid out in two ways, as MLX and as "
          "Hugging Face have them: a folder put together from two?");
    }
    is_mlx_ = is_mlx;
    is_first = false;
  }
  return {};
}

bool FolderReader::has_prediction_block() const {
  const CheckpointTensor* fc = checkpoint_.find(std::string(kMtpPrefix) + "fc.weight");
  return fc != nullptr &&
         fc->info.shape == std::vector<int64_t>{config_.hidden_size, 2 * config_.hidden_size} &&
         tensors_.has_module(std::string(kMtpPrefix) + "layers.0.self_attn.q_proj");
}

std::string FolderReader::layer_name(int64_t layer, std::string_view rest) const {
  if (layer == config_.num_hidden_layers) return fmt::format("{}layers.0.{}", kMtpPrefix, rest);
  return fmt::format("{}layers.{}.{}", prefix_, layer, rest);
}

std::string FolderReader::module_name(const std::string& name) const {
  const NormalName split = split_normal_name(name, config_);
  if (split.layer >= 0) return layer_name(split.layer, split.rest);
  if (name == "lm_head") return head_;
  return split.is_prediction ? name : prefix_ + name;
}

Result<StoredMatrix> FolderReader::plain(const NormalTensor& wanted) {
  const std::string name = module_name(wanted.name);
  if (wanted.name.ends_with("conv1d")) {
    const std::vector<int64_t> shape = is_mlx_
                                           ? std::vector<int64_t>{wanted.rows, wanted.columns, 1}
                                           : std::vector<int64_t>{wanted.rows, 1, wanted.columns};
    StoredMatrix matrix = PENSTOCK_TRY(tensors_.floats(name + ".weight", shape));
    matrix.rows = wanted.rows;  // the axis of one moves no value
    matrix.columns = wanted.columns;
    matrix.codes.row_bytes = row_bytes(matrix.coding, matrix.columns).codes;
    return matrix;
  }
  constexpr std::string_view kDecay = "decay";
  if (name.ends_with(kDecay)) {
    return tensors_.floats(name.substr(0, name.size() - kDecay.size()) + "A_log", {wanted.columns});
  }
  const bool is_bare = name.ends_with("dt_bias") || name.ends_with(".bias");
  return tensors_.floats(is_bare ? name : name + ".weight", {wanted.columns});
}

bool FolderReader::is_fused_delta_input(const NormalName& name) const {
  return name.rest.starts_with("linear_attn.in_proj_") &&
         tensors_.has_module(layer_name(name.layer, "linear_attn.in_proj_qkvz"));
}

// The block of key head j holds q | k | its values | its gates; and in ba: b | a (spec 3.2).
Result<std::vector<StoredRows>> FolderReader::fused_delta_input(const NormalName& name) {
  const int64_t keys = config_.linear_num_key_heads;
  const int64_t per_key = config_.linear_num_value_heads / keys;
  const int64_t key_width = config_.linear_key_head_dim;
  const int64_t value_width = per_key * config_.linear_value_head_dim;
  const bool is_ba = name.rest.ends_with("_a") || name.rest.ends_with("_b");
  const int64_t group = is_ba ? 2 * per_key : 2 * key_width + 2 * value_width;
  const StoredMatrix fused = PENSTOCK_TRY(tensors_.module(
      layer_name(name.layer, is_ba ? "linear_attn.in_proj_ba" : "linear_attn.in_proj_qkvz"), 0,
      keys * group, config_.hidden_size));
  std::vector<StoredRows> ranges;
  const auto gather = [&](int64_t first, int64_t rows) {
    for (int64_t head = 0; head < keys; ++head) {
      ranges.push_back({fused, head * group + first, rows});
    }
  };
  if (name.rest.ends_with("_b")) {
    gather(0, per_key);
  } else if (name.rest.ends_with("_a")) {
    gather(per_key, per_key);
  } else if (name.rest.ends_with("_z")) {
    gather(2 * key_width + value_width, value_width);
  } else {
    gather(0, key_width);
    gather(key_width, key_width);
    gather(2 * key_width, value_width);
  }
  return ranges;
}

Result<SourceTensor> FolderReader::resident(const NormalTensor& wanted) {
  SourceTensor tensor;
  tensor.name = wanted.name;
  tensor.is_plain = wanted.is_plain;
  tensor.rows = wanted.rows;
  tensor.columns = wanted.columns;
  const NormalName split = split_normal_name(wanted.name, config_);
  if (is_fused_delta_input(split)) {
    tensor.ranges = PENSTOCK_TRY(fused_delta_input(split));
    return tensor;
  }
  const StoredMatrix matrix =
      wanted.is_plain
          ? PENSTOCK_TRY(plain(wanted))
          : PENSTOCK_TRY(tensors_.module(module_name(wanted.name), 0, wanted.rows, wanted.columns));
  tensor.ranges = {{matrix, 0, wanted.rows}};
  if (wanted.name.ends_with("decay")) tensor.change = ValueChange::kMinusExp;
  if (wanted.is_zero_centred && !is_mlx_) tensor.change = ValueChange::kAddOne;
  return tensor;
}

// The matrices of expert 0 and the distance to the next, from one stacked tensor.
ExpertMatrices stacked(StoredMatrix first, int64_t first_row, int64_t rows,
                       int64_t rows_of_expert) {
  ExpertMatrices result;
  const auto skip = static_cast<uint64_t>(first_row);
  const auto distance = static_cast<uint64_t>(rows_of_expert);
  first.rows = rows;
  for (Plane* plane : {&first.codes, &first.scales, &first.biases}) {
    plane->offset += skip * plane->row_bytes;
  }
  result.stride = {distance * first.codes.row_bytes, distance * first.scales.row_bytes,
                   distance * first.biases.row_bytes};
  result.first = first;
  return result;
}

Result<LayerExperts> FolderReader::fused_experts(int64_t layer) {
  const int64_t count = config_.num_experts, ffn = config_.moe_intermediate_size;
  const int64_t hidden = config_.hidden_size;
  const StoredMatrix gate_up = PENSTOCK_TRY(
      tensors_.floats(layer_name(layer, "mlp.experts.gate_up_proj"), {count, 2 * ffn, hidden}));
  const StoredMatrix down = PENSTOCK_TRY(
      tensors_.floats(layer_name(layer, "mlp.experts.down_proj"), {count, hidden, ffn}));
  LayerExperts result;
  result[ExpertPart::kGate] = stacked(gate_up, 0, ffn, 2 * ffn);
  result[ExpertPart::kUp] = stacked(gate_up, ffn, ffn, 2 * ffn);
  result[ExpertPart::kDown] = stacked(down, 0, hidden, hidden);
  return result;
}

Result<LayerExperts> FolderReader::stacked_experts(int64_t layer) {
  const int64_t ffn = config_.moe_intermediate_size, hidden = config_.hidden_size;
  LayerExperts result;
  const auto part = [&](ExpertPart which, std::string_view name, int64_t rows,
                        int64_t columns) -> Result<void> {
    const StoredMatrix first =
        PENSTOCK_TRY(tensors_.module(layer_name(layer, fmt::format("mlp.switch_mlp.{}_proj", name)),
                                     config_.num_experts, rows, columns));
    result[which] = stacked(first, 0, rows, rows);
    return {};
  };
  PENSTOCK_TRY(part(ExpertPart::kGate, "gate", ffn, hidden));
  PENSTOCK_TRY(part(ExpertPart::kUp, "up", ffn, hidden));
  PENSTOCK_TRY(part(ExpertPart::kDown, "down", hidden, ffn));
  return result;
}

Result<LayerExperts> FolderReader::single_experts(int64_t layer) {
  const int64_t ffn = config_.moe_intermediate_size, hidden = config_.hidden_size;
  LayerExperts result;
  for (int64_t expert = 0; expert < config_.num_experts; ++expert) {
    const std::string base = layer_name(layer, fmt::format("mlp.experts.{}.", expert));
    result[ExpertPart::kGate].single.push_back(
        PENSTOCK_TRY(tensors_.module(base + "gate_proj", 0, ffn, hidden)));
    result[ExpertPart::kUp].single.push_back(
        PENSTOCK_TRY(tensors_.module(base + "up_proj", 0, ffn, hidden)));
    result[ExpertPart::kDown].single.push_back(
        PENSTOCK_TRY(tensors_.module(base + "down_proj", 0, hidden, ffn)));
  }
  for (ExpertMatrices& part : result.parts) part.first = part.single.front();
  return result;
}

Result<LayerExperts> FolderReader::experts(int64_t layer) {
  if (tensors_.has(layer_name(layer, "mlp.experts.gate_up_proj"))) return fused_experts(layer);
  if (tensors_.has_module(layer_name(layer, "mlp.switch_mlp.gate_proj"))) {
    return stacked_experts(layer);
  }
  return single_experts(layer);
}

Result<void> FolderReader::settle_left_over(SourceParts& parts) const {
  std::string names;
  int64_t count = 0;
  for (const CheckpointTensor* tensor : tensors_.left_over()) {
    const std::string& name = tensor->info.name;
    const bool is_vision =
        std::any_of(kVisionPrefixes.begin(), kVisionPrefixes.end(),
                    [&](std::string_view prefix) { return name.starts_with(prefix); });
    // Pieces of a prediction block that is not whole; a second copy of a tied embedding.
    const bool is_known = is_vision || name.starts_with(kMtpPrefix) ||
                          (config_.tie_word_embeddings && name.starts_with(head_ + "."));
    if (is_known) {
      parts.skipped.push_back(name);
    } else if (++count <= 5) {
      names += (names.empty() ? "" : ", ") + escaped(name);
    }
  }
  if (count == 0) return {};
  return corrupt(
      fmt::format("{} tensors that config.json does not explain, such as {}; is it "
                  "another architecture?",
                  count, names));
}

Result<void> FolderReader::read(SourceParts& parts) {
  PENSTOCK_TRY(find_names());
  config_.mtp_num_hidden_layers = has_prediction_block() ? 1 : 0;
  for (const NormalTensor& wanted : normal_tensors(config_)) {
    parts.tensors.push_back(PENSTOCK_TRY(resident(wanted)));
  }
  for (const int64_t layer : expert_layers(config_)) {
    parts.experts.push_back(PENSTOCK_TRY(experts(layer)));
  }
  PENSTOCK_TRY(settle_left_over(parts));
  parts.config = config_;
  for (const CheckpointShard& shard : checkpoint_.shards()) {
    parts.files.push_back({checkpoint_.path_of(shard.name), shard.stat, shard.header_sum});
  }
  return {};
}

// Stop tokens that only config.json has belong to generation_config.json.
Result<void> add_stop_tokens(const Json& config, const std::string& path, SourceParts& parts) {
  const Json* stop = json_find(config, "eos_token_id");
  if (stop == nullptr) return {};
  const auto found = std::ranges::find(parts.texts, "generation_config.json", &SourceText::name);
  if (found == parts.texts.end()) {
    parts.texts.push_back({"generation_config.json", to_text(Json{{"eos_token_id", *stop}})});
    return {};
  }
  Json generation = PENSTOCK_TRY(parse_json(found->text, path));
  if (!generation.is_object() || generation.contains("eos_token_id")) return {};
  generation["eos_token_id"] = *stop;
  found->text = to_text(generation);
  return {};
}

// The texts as they are, but for that.
Result<void> read_texts(Storage& storage, const Checkpoint& checkpoint, SourceParts& parts) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "added_tokens.json",
                           "chat_template.jinja", "generation_config.json"}) {
    const std::string path = checkpoint.path_of(name);
    if (!PENSTOCK_TRY(exists(storage, path))) continue;
    std::string text = PENSTOCK_TRY(read_text(storage, path, kModelTextBytesMax));
    parts.texts.push_back({name, std::move(text)});
  }
  return add_stop_tokens(checkpoint.config(), checkpoint.path_of("generation_config.json"), parts);
}

// What to tell someone whose folder has no config.json.
Error no_config(const std::string& directory, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (!name.ends_with(".gguf")) continue;
    return {ErrorCode::kNotFound,
            fmt::format("{}: a folder with GGUF files; name the file itself, such as {}, or the "
                        "first of its shards",
                        directory, escaped(name))};
  }
  return {ErrorCode::kNotFound, fmt::format("{}: no config.json in it", directory)};
}

}  // namespace

Result<SourceParts> open_folder_source(Storage& storage, const std::string& directory) {
  const std::string config_path = directory + "/config.json";
  if (!PENSTOCK_TRY(exists(storage, config_path))) {
    return no_config(directory, PENSTOCK_TRY(storage.list(directory)));
  }
  const std::string text = PENSTOCK_TRY(read_text(storage, config_path, kConfigBytesMax));
  const Json config = PENSTOCK_TRY(parse_json(text, config_path));
  const Quantisation quantisation = PENSTOCK_TRY(read_quantisation(config, config_path));
  const std::string nvidia = directory + "/hf_quant_config.json";
  if (quantisation.kind == Quantisation::Kind::kNone && PENSTOCK_TRY(exists(storage, nvidia))) {
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("{}: the weights are quantised with NVIDIA's Model Optimizer, which is "
                    "not read; use the model's BF16 or FP8 repository, an MLX one, or a "
                    "GGUF file",
                    nvidia)};
  }
  const ModelConfig model = PENSTOCK_TRY(parse_model_config(config, config_path));
  const Checkpoint checkpoint = PENSTOCK_TRY(Checkpoint::open(storage, directory));
  SourceParts parts;
  parts.path = directory;
  FolderReader reader(checkpoint, quantisation, model);
  PENSTOCK_TRY(reader.read(parts));
  parts.format = reader.is_mlx() || quantisation.kind == Quantisation::Kind::kMlx
                     ? SourceFormat::kMlx
                     : SourceFormat::kHuggingFace;
  PENSTOCK_TRY(read_texts(storage, checkpoint, parts));
  return parts;
}

}  // namespace penstock
