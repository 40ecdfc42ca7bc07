#include "support/mlx_checkpoint.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <random>

#include "base/json.h"
#include "format/test_gguf.h"
#include "model/registry.h"
#include "model/tensors.h"
#include "source/normal_tensors.h"
#include "support/gguf_checkpoint.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

class MlxCheckpoint {
 public:
  MlxCheckpoint(const ModelConfig& config, const Coding& coding)
      : config_(config), coding_(coding) {
    const bool is_affine = coding.kind == Coding::Kind::kAffine;
    quantization_ = Json{{"group_size", is_affine ? coding.affine.group : kMlxMxfp4Group},
                         {"bits", is_affine ? coding.affine.bits : 4},
                         {"mode", is_affine ? "affine" : "mxfp4"}};
    for (const TensorSpec& tensor : list_tensors(config).resident) add_resident(tensor);
    for (const int64_t layer : expert_layers(config)) {
      const int64_t hidden = config.hidden_size, width = config.moe_intermediate_size;
      const std::string experts = fmt::format("{}layers.{}.mlp.switch_mlp.", kModel, layer);
      add_coded(experts + "gate_proj", {config.num_experts, width, hidden});
      add_coded(experts + "up_proj", {config.num_experts, width, hidden});
      add_coded(experts + "down_proj", {config.num_experts, hidden, width});
    }
  }

  std::string weights() const {
    const std::string head = header_.dump();
    const uint64_t bytes = head.size();
    return std::string(reinterpret_cast<const char*>(&bytes), sizeof(bytes)) + head + data_;
  }

  std::string config() const {
    const ModelConfig& c = config_;
    std::vector<std::string> types;
    for (const LayerType type : c.layer_types) {
      types.push_back(type == LayerType::kLinearAttention ? "linear_attention" : "full_attention");
    }
    const Json text{
        {"model_type", "qwen3_5_moe_text"},
        {"vocab_size", c.vocab_size},
        {"hidden_size", c.hidden_size},
        {"num_hidden_layers", c.num_hidden_layers},
        {"layer_types", types},
        {"num_attention_heads", c.num_attention_heads},
        {"num_key_value_heads", c.num_key_value_heads},
        {"head_dim", c.head_dim},
        {"attention_bias", false},
        {"linear_num_key_heads", c.linear_num_key_heads},
        {"linear_num_value_heads", c.linear_num_value_heads},
        {"linear_key_head_dim", c.linear_key_head_dim},
        {"linear_value_head_dim", c.linear_value_head_dim},
        {"linear_conv_kernel_dim", c.linear_conv_kernel_dim},
        {"num_experts", c.num_experts},
        {"num_experts_per_tok", c.num_experts_per_tok},
        {"moe_intermediate_size", c.moe_intermediate_size},
        {"shared_expert_intermediate_size", c.shared_expert_intermediate_size},
        {"rms_norm_eps", c.rms_norm_eps},
        {"max_position_embeddings", c.max_position_embeddings},
        {"tie_word_embeddings", c.tie_word_embeddings},
        {"rope_parameters",
         {{"rope_theta", c.rope.theta}, {"partial_rotary_factor", 0.25}, {"type", "default"}}}};
    return Json{{"model_type", "qwen3_5_moe"},
                {"quantization", quantization_},
                {"quantization_config", quantization_},
                {"text_config", text}}
        .dump();
  }

 private:
  static constexpr const char* kModel = "language_model.model.";

  void add(const std::string& name, const char* dtype, const std::vector<int64_t>& shape,
           const std::string& bytes) {
    header_[name] = Json{{"dtype", dtype},
                         {"shape", shape},
                         {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
  }

  static void put_bf16(std::string& bytes, float value) {
    const uint16_t half = f32_to_bf16(value);
    bytes.append(reinterpret_cast<const char*>(&half), sizeof(half));
  }

  // Groups of a deviation of about 1/16 around zero.
  void add_coded(const std::string& name, std::vector<int64_t> shape) {
    const int64_t columns = shape.back();
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    const RowBytes row = row_bytes(coding_, columns);
    std::string codes(static_cast<size_t>(rows) * row.codes, '\0');
    for (char& byte : codes) byte = static_cast<char>(random_());
    shape.back() = static_cast<int64_t>(row.codes / 4);
    add(name + ".weight", "U32", shape, codes);
    const int64_t groups = columns / group_columns(coding_);
    shape.back() = groups;
    std::string scales, biases;
    for (int64_t i = 0; i < rows * groups; ++i) {
      if (coding_.kind == Coding::Kind::kMlxMxfp4) {
        scales += static_cast<char>(121 + random_() % 2);
        continue;
      }
      const auto steps = static_cast<float>((1 << coding_.affine.bits) - 1);
      const float scale = 0.2f / steps * (0.75f + 0.5f * static_cast<float>(random_() % 64) / 64);
      put_bf16(scales, scale);
      put_bf16(biases, -scale * steps / 2);
    }
    add(name + ".scales", biases.empty() ? "U8" : "BF16", shape, scales);
    if (!biases.empty()) add(name + ".biases", "BF16", shape, biases);
  }

  void add_resident(const TensorSpec& tensor) {
    const std::string name =
        tensor.name == "lm_head" ? "language_model.lm_head" : kModel + tensor.name;
    if (tensor.stored == StoredAs::kMatrix) return add_coded(name, {tensor.rows, tensor.columns});
    if (tensor.stored == StoredAs::kExactMatrix) quantization_[name] = false;
    const auto ends_with = [&](const std::string& end) { return name.ends_with(end); };
    std::normal_distribution<float> normal;
    std::string bytes;
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      const auto size = static_cast<float>(tensor.fill.value);
      const bool is_random = tensor.fill.kind == SyntheticFill::Kind::kRandom;
      put_bf16(bytes, is_random ? size * normal(random_) : ends_with("decay") ? -1.5f : size);
    }
    std::vector<int64_t> shape = {tensor.columns};
    if (tensor.rows > 1 || tensor.stored != StoredAs::kVector)
      shape.insert(shape.begin(), tensor.rows);
    if (ends_with("conv1d")) shape.push_back(1);
    if (ends_with("decay")) {
      add(name.substr(0, name.size() - 5) + "A_log", "BF16", shape, bytes);
    } else {
      add(ends_with("dt_bias") ? name : name + ".weight", "BF16", shape, bytes);
    }
  }

  const ModelConfig config_;
  const Coding coding_;
  Json quantization_, header_ = Json::object();
  std::mt19937 random_{6};
  std::string data_;
};

}  // namespace

std::string mlx_checkpoint(const std::string& name, const Coding& coding) {
  static std::map<std::string, std::string> made;
  auto [place, is_new] = made.try_emplace(name);
  if (!is_new) return place->second;
  place->second = temporary_folder() + "/" + name;
  std::filesystem::create_directory(place->second);
  const MlxCheckpoint checkpoint(small_coded_config(), coding);
  store(posix_storage(), place->second + "/config.json", checkpoint.config());
  store(posix_storage(), place->second + "/model.safetensors", checkpoint.weights());
  return place->second;
}

}  // namespace penstock::test
