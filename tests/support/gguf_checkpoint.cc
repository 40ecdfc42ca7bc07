#include "support/gguf_checkpoint.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <random>

#include "model/registry.h"
#include "model/shapes.h"
#include "model/tensors.h"
#include "quant/k_blocks.h"
#include "source/normal_tensors.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

// By the end of a normal name. The architecture is qwen3next: its heads are in the model's order.
const std::map<std::string, std::string> kNames = {
    {"embed_tokens", "token_embd.weight"},
    {"norm", "output_norm.weight"},
    {"lm_head", "output.weight"},
    {"input_layernorm", "attn_norm.weight"},
    {"post_attention_layernorm", "post_attention_norm.weight"},
    {"self_attn.q_proj", "attn_q.weight"},
    {"self_attn.k_proj", "attn_k.weight"},
    {"self_attn.v_proj", "attn_v.weight"},
    {"self_attn.o_proj", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.q_norm", "attn_q_norm.weight"},
    {"self_attn.k_norm", "attn_k_norm.weight"},
    {"linear_attn.in_proj_qkv", "attn_qkv.weight"},
    {"linear_attn.in_proj_z", "attn_gate.weight"},
    {"linear_attn.in_proj_b", "ssm_beta.weight"},
    {"linear_attn.in_proj_a", "ssm_alpha.weight"},
    {"linear_attn.conv1d", "ssm_conv1d.weight"},
    {"linear_attn.decay", "ssm_a"},
    {"linear_attn.dt_bias", "ssm_dt.bias"},
    {"linear_attn.norm", "ssm_norm.weight"},
    {"linear_attn.out_proj", "ssm_out.weight"},
    {"mlp.gate", "ffn_gate_inp.weight"},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp.weight"},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp.weight"},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp.weight"},
    {"fc", "nextn.eh_proj.weight"},
    {"pre_fc_norm_embedding", "nextn.enorm.weight"},
    {"pre_fc_norm_hidden", "nextn.hnorm.weight"},
    {"mtp.norm", "nextn.shared_head_norm.weight"}};

}  // namespace

std::string gguf_name(const std::string& normal, const ModelConfig& config) {
  const NormalName name = split_normal_name(normal, config);
  if (name.layer >= 0) {
    return fmt::format("blk.{}.{}", name.layer, kNames.at(std::string(name.rest)));
  }
  if (!name.is_prediction) return kNames.at(normal);
  const std::string key = name.rest == "norm" ? normal : std::string(name.rest);
  return fmt::format("blk.{}.{}", config.num_hidden_layers, kNames.at(key));
}

std::vector<std::string> gguf_keys(const ModelConfig& config) {
  std::vector<std::string> keys = {gguf_string("general.architecture", "qwen3next")};
  const auto number = [&](const char* name, int64_t value) {
    keys.push_back(gguf_u32(fmt::format("qwen3next.{}", name), static_cast<uint32_t>(value)));
  };
  const int64_t predicting = config.mtp_num_hidden_layers;
  number("block_count", config.num_hidden_layers + predicting);
  number("nextn_predict_layers", predicting);
  number("context_length", config.max_position_embeddings);
  number("embedding_length", config.hidden_size);
  number("attention.head_count", config.num_attention_heads);
  number("attention.head_count_kv", config.num_key_value_heads);
  number("attention.key_length", config.head_dim);
  number("attention.value_length", config.head_dim);
  number("rope.dimension_count", config.rotary_dim());
  number("expert_count", config.num_experts);
  number("expert_used_count", config.num_experts_per_tok);
  number("expert_feed_forward_length", config.moe_intermediate_size);
  number("expert_shared_feed_forward_length", config.shared_expert_intermediate_size);
  number("ssm.conv_kernel", config.linear_conv_kernel_dim);
  number("ssm.state_size", config.linear_key_head_dim);
  number("ssm.group_count", config.linear_num_key_heads);
  number("ssm.time_step_rank", config.linear_num_value_heads);
  number("ssm.inner_size", config.linear_num_value_heads * config.linear_value_head_dim);
  keys.push_back(gguf_f32("qwen3next.rope.freq_base", static_cast<float>(config.rope.theta)));
  keys.push_back(gguf_f32("qwen3next.attention.layer_norm_rms_epsilon",
                          static_cast<float>(config.rms_norm_eps)));
  std::vector<uint32_t> recurrent;
  for (const LayerType type : config.layer_types) {
    recurrent.push_back(type == LayerType::kLinearAttention ? 1 : 0);
  }
  for (int64_t i = 0; i < predicting; ++i) recurrent.push_back(0);
  keys.push_back(gguf_list("qwen3next.attention.recurrent_layers", GgufType::kU32, recurrent));
  return keys;
}

namespace {

// Two bytes at a place of a block: a half of about this size.
void put_half(std::string& block, size_t at, float size, std::mt19937& random) {
  const float value = size * (0.75f + 0.5f * static_cast<float>(random() % 1000) / 1000);
  // Rounded towards zero; halves below 2^-14 as well.
  const int exponent = std::max(std::ilogb(value), -14);
  const auto mantissa = static_cast<uint32_t>(std::ldexp(value, 10 - exponent));
  const uint32_t half =
      mantissa < 0x400 ? mantissa : static_cast<uint32_t>(exponent + 15) << 10 | (mantissa & 0x3ff);
  block[at] = static_cast<char>(half & 0xff);
  block[at + 1] = static_cast<char>(half >> 8);
}

// Of weights whose deviation is about 1/16: a row's of 256 columns.
std::string random_block(BlockType type, std::mt19937& random) {
  std::string block(static_cast<size_t>(layout_of(type).bytes), '\0');
  for (char& byte : block) byte = static_cast<char>(random());
  switch (type) {
    case BlockType::kQ8_0: put_half(block, 0, 8e-4f, random); break;
    case BlockType::kQ4_0: put_half(block, 0, 0.0135f, random); break;
    case BlockType::kQ5_0: put_half(block, 0, 6.8e-3f, random); break;
    case BlockType::kMxfp4: block[0] = static_cast<char>(121 + random() % 2); break;
    case BlockType::kQ4K:
      put_half(block, 0, 3e-4f, random);
      put_half(block, 2, 2.2e-3f, random);
      break;
    case BlockType::kQ5K:
      put_half(block, 0, 1.5e-4f, random);
      put_half(block, 2, 2.3e-3f, random);
      break;
    case BlockType::kQ6K: put_half(block, 208, 4.6e-5f, random); break;
    default: throw std::runtime_error("no random blocks of this type");
  }
  return block;
}

class CodedCheckpoint {
 public:
  CodedCheckpoint(const ModelConfig& config, const std::vector<BlockType>& types)
      : config_(config), types_(types) {
    spec_.keys = gguf_keys(config);
    const TensorList list = list_tensors(config);
    for (const TensorSpec& tensor : list.resident) add_resident(tensor);
    const std::vector<int64_t> layers = expert_layers(config);
    for (const int64_t layer : layers) {
      const int64_t hidden = config.hidden_size, width = config.moe_intermediate_size;
      // Gate and up of one type, as writers have them.
      const BlockType first = next_type();
      add_experts(layer, "gate", first, width, hidden);
      add_experts(layer, "up", first, width, hidden);
      add_experts(layer, "down", next_type(), hidden, width);
    }
  }
  std::string bytes() const { return spec_.bytes(); }

 private:
  BlockType next_type() { return types_[next_++ % types_.size()]; }

  std::string coded(BlockType type, int64_t elements) {
    std::string data;
    for (int64_t e = 0; e < elements; e += layout_of(type).elements) {
      data += random_block(type, random_);
    }
    return data;
  }
  std::string plain(const SyntheticFill& fill, int64_t count) {
    std::normal_distribution<float> normal;
    std::string data;
    for (int64_t i = 0; i < count; ++i) {
      const auto size = static_cast<float>(fill.value);
      float value = size;
      if (fill.kind == SyntheticFill::Kind::kRandom) value = size * normal(random_);
      if (fill.kind == SyntheticFill::Kind::kDecay)
        value = -0.1f * (1 + std::fabs(normal(random_)));
      data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    return data;
  }

  void add_resident(const TensorSpec& tensor) {
    std::vector<uint64_t> dimensions = {static_cast<uint64_t>(tensor.columns)};
    if (tensor.rows > 1) dimensions.push_back(static_cast<uint64_t>(tensor.rows));
    const bool is_coded = tensor.stored == StoredAs::kMatrix && tensor.columns % kSuperBlock == 0;
    const BlockType type = is_coded ? next_type() : BlockType::kF32;
    const int64_t elements = tensor.rows * tensor.columns;
    add(gguf_name(tensor.name, config_), type, std::move(dimensions),
        is_coded ? coded(type, elements) : plain(tensor.fill, elements));
  }
  void add_experts(int64_t layer, const char* part, BlockType type, int64_t rows, int64_t columns) {
    add(fmt::format("blk.{}.ffn_{}_exps.weight", layer, part), type,
        {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
         static_cast<uint64_t>(config_.num_experts)},
        coded(type, config_.num_experts * rows * columns));
  }
  void add(const std::string& name, BlockType type, std::vector<uint64_t> dimensions,
           std::string data) {
    spec_.tensors.push_back(
        {name, layout_of(type).gguf_id, std::move(dimensions), std::move(data)});
  }

  const ModelConfig config_;
  const std::vector<BlockType> types_;
  size_t next_ = 0;
  std::mt19937 random_{5};
  GgufSpec spec_;
};

}  // namespace

ModelConfig small_coded_config() {
  ModelConfig config = value_of(config_of(value_of(find_model_shape("demo")), 4));
  config.hidden_size = 256;
  config.moe_intermediate_size = config.shared_expert_intermediate_size = 256;
  config.num_attention_heads = 4;
  config.linear_num_value_heads = config.linear_num_key_heads = 4;
  config.num_experts = 12;
  config.num_experts_per_tok = 3;
  config.vocab_size = 330;
  config.mtp_num_hidden_layers = 0;
  return config;
}

std::string coded_checkpoint(const std::string& name, const std::vector<BlockType>& types) {
  static std::map<std::string, std::string> made;
  auto [place, is_new] = made.try_emplace(name);
  if (!is_new) return place->second;
  place->second = temporary_folder() + "/" + name + ".gguf";
  store(posix_storage(), place->second, CodedCheckpoint(small_coded_config(), types).bytes());
  return place->second;
}

}  // namespace penstock::test
