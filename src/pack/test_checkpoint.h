// Checkpoints for the tests of this room: small ones made from nothing, and those of tests/data, on
// a simulated disk.
//
// The made one has every kind of tensor, is wide enough to be quantised (64) and takes a few
// milliseconds to pack, so that a test can afford to break every single call on the way.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "format/checkpoint.h"
#include "io/storage.h"
#include "pack/pack.h"
#include "support/sim_storage.h"

namespace penstock::test {

using Files = std::map<std::string, std::string>;  // name -> content

inline void store(Storage& disk, const std::string& path, std::string_view bytes) {
  auto file = *disk.open(path, OpenMode::kCreate);
  file->write(0, std::as_bytes(std::span(bytes))).value();
  file->sync().value();
}

// Durable: a loss of power later is no matter of theirs.
inline void store_all(Storage& disk, const std::string& directory, const Files& files) {
  disk.make_directory(directory).value();
  for (const auto& [name, bytes] : files) store(disk, directory + "/" + name, bytes);
  disk.sync_directory(directory).value();
  disk.sync_directory("/").value();
}

inline Files load_all(Storage& disk, const std::string& directory) {
  Files files;
  const std::vector<std::string> names = *disk.list(directory);
  for (const std::string& name : names) {
    files[name] = *read_text(disk, directory + "/" + name, uint64_t{1} << 30);
  }
  return files;
}

inline Result<PackReport> pack(Storage& disk, const PackOptions& options) {
  return pack_model(disk, options, {}, {});
}

inline std::string data_path(const std::string& relative) {
  return std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/" + relative;
}

struct TinyTensor {
  std::string name;
  std::vector<int64_t> shape;
};

inline Json tiny_config() {
  return {{"model_type", "qwen3_5_moe_text"},
          {"vocab_size", 40},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"layer_types", {"linear_attention", "full_attention"}},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 16},
          {"linear_num_key_heads", 1},
          {"linear_num_value_heads", 2},
          {"linear_key_head_dim", 16},
          {"linear_value_head_dim", 16},
          {"linear_conv_kernel_dim", 2},
          {"num_experts", 3},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 64},
          {"shared_expert_intermediate_size", 64},
          {"rms_norm_eps", 1e-6},
          {"max_position_embeddings", 128},
          {"tie_word_embeddings", false},
          {"rope_parameters",
           {{"rope_type", "default"}, {"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}}}};
}

inline std::vector<TinyTensor> tiny_tensors() {
  std::vector<TinyTensor> tensors = {{"lm_head.weight", {40, 64}},
                                     {"model.embed_tokens.weight", {40, 64}},
                                     {"model.norm.weight", {64}}};
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      tensors.push_back({std::string(layer) + name, std::move(shape)});
    };
    add("input_layernorm.weight", {64});
    add("post_attention_layernorm.weight", {64});
    add("mlp.gate.weight", {3, 64});
    add("mlp.shared_expert_gate.weight", {1, 64});
    add("mlp.shared_expert.gate_proj.weight", {64, 64});
    add("mlp.shared_expert.up_proj.weight", {64, 64});
    add("mlp.shared_expert.down_proj.weight", {64, 64});
    add("mlp.experts.gate_up_proj", {3, 128, 64});
    add("mlp.experts.down_proj", {3, 64, 64});
    if (std::string_view(layer).ends_with("0.")) {
      add("linear_attn.in_proj_qkv.weight", {64, 64});
      add("linear_attn.in_proj_z.weight", {32, 64});
      add("linear_attn.in_proj_b.weight", {2, 64});
      add("linear_attn.in_proj_a.weight", {2, 64});
      add("linear_attn.conv1d.weight", {64, 1, 2});
      add("linear_attn.A_log", {2});
      add("linear_attn.dt_bias", {2});
      add("linear_attn.norm.weight", {16});
      add("linear_attn.out_proj.weight", {64, 32});
    } else {
      add("self_attn.q_proj.weight", {64, 64});
      add("self_attn.k_proj.weight", {16, 64});
      add("self_attn.v_proj.weight", {16, 64});
      add("self_attn.o_proj.weight", {64, 32});
      add("self_attn.q_norm.weight", {16});
      add("self_attn.k_norm.weight", {16});
    }
  }
  tensors.push_back({"mtp.fc.weight", {8, 64}});
  tensors.push_back({"model.visual.patch_embed.proj.weight", {2, 3, 1, 2, 2}});
  return tensors;
}

// The bytes of model.safetensors with random bf16 weights.
inline std::string tiny_weights(const std::vector<TinyTensor>& tensors, uint32_t seed = 1) {
  SimStorage disk;
  std::vector<SafetensorsWriter::Plan> plan;
  for (const TinyTensor& tensor : tensors) plan.push_back({tensor.name, "BF16", tensor.shape});
  auto writer = *SafetensorsWriter::create(disk, "/f", plan, {});
  std::mt19937 random(seed);
  std::vector<uint16_t> values;
  for (const TinyTensor& tensor : tensors) {
    int64_t count = 1;
    for (const int64_t dimension : tensor.shape) count *= dimension;
    values.resize(static_cast<size_t>(count));
    for (uint16_t& value : values) {
      value = f32_to_bf16(static_cast<float>(random() % 2001) * 1e-3f - 1.0f);
    }
    writer.append(std::as_bytes(std::span(values))).value();
  }
  writer.finish().value();
  return *read_text(disk, "/f", uint64_t{1} << 30);
}

inline const Files& tiny_checkpoint() {
  static const Files files = {{"config.json", to_text(tiny_config(), 1)},
                              {"model.safetensors", tiny_weights(tiny_tensors())},
                              {"tokenizer.json", "{\"tokens\": []}"},
                              {"README.md", "not part of a model"}};
  return files;
}

}  // namespace penstock::test
