#include "support/source_twin.h"

#include <fmt/format.h>

#include <map>

#include "format/test_gguf.h"
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

std::string gguf_name(const std::string& normal, const ModelConfig& config) {
  const NormalName name = split_normal_name(normal, config);
  if (name.layer >= 0) {
    return fmt::format("blk.{}.{}", name.layer, kNames.at(std::string(name.rest)));
  }
  if (!name.is_prediction) return kNames.at(normal);
  const std::string key = name.rest == "norm" ? normal : std::string(name.rest);
  return fmt::format("blk.{}.{}", config.num_hidden_layers, kNames.at(key));
}

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<std::string> keys_of(const ModelConfig& config) {
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

}  // namespace

std::string write_f32_twin(const std::string& path, const std::string& folder) {
  ModelSource source = value_of(ModelSource::open(posix_storage(), path));
  const ModelConfig& config = source.config();
  GgufSpec spec;
  spec.keys = keys_of(config);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions,
                       const std::vector<float>& values) {
    spec.tensors.push_back({name, 0, std::move(dimensions), bytes_of(values)});
  };
  for (const SourceTensor& tensor : source.tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.columns));
    value_of(source.read_rows(tensor, 0, values));
    std::vector<uint64_t> dimensions = {static_cast<uint64_t>(tensor.columns)};
    if (tensor.rows > 1) dimensions.push_back(static_cast<uint64_t>(tensor.rows));
    add(gguf_name(tensor.name, config), dimensions, values);
  }
  const std::vector<int64_t> layers = expert_layers(config);
  constexpr const char* kParts[] = {"gate", "up", "down"};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (int part = 0; part < kNumExpertParts; ++part) {
      const ExpertMatrices& matrices = source.experts()[layer].parts[part];
      const auto rows = static_cast<uint64_t>(matrices.first.rows);
      const auto columns = static_cast<uint64_t>(matrices.first.columns);
      std::vector<float> all;
      for (int64_t expert = 0; expert < config.num_experts; ++expert) {
        std::vector<float> values(rows * columns);
        value_of(source.read_rows(matrices.of(expert), 0, values));
        all.insert(all.end(), values.begin(), values.end());
      }
      add(fmt::format("blk.{}.ffn_{}_exps.weight", layers[layer], kParts[part]),
          {columns, rows, static_cast<uint64_t>(config.num_experts)}, all);
    }
  }
  const std::string twin = folder + "/twin.gguf";
  store(posix_storage(), twin, spec.bytes());
  return twin;
}

}  // namespace penstock::test
