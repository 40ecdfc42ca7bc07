#include "model/tensor_lister.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace penstock {
namespace {

int64_t matrix_rows(const std::vector<int64_t>& shape) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

// Entries of variance 1 / inputs keep activations of order one.
SyntheticFill random_for(int64_t inputs) {
  return {SyntheticFill::Kind::kRandom, 1 / std::sqrt(static_cast<double>(inputs))};
}

}  // namespace

SourceForm whole_tensor(std::string tensor, std::vector<int64_t> shape) {
  const int64_t rows = matrix_rows(shape);
  return {"", {{std::move(tensor), std::move(shape), 0, rows, 0}}};
}

void TensorLister::at(std::string target, std::string source) {
  target_ = std::move(target);
  source_ = std::move(source);
  in_prediction_block_ = false;
}

void TensorLister::at_layer(int64_t layer) {
  const std::string name = fmt::format("layers.{}.", layer);
  at(name, prefix_ + name);
}

void TensorLister::at_prediction_block() {
  at("mtp.", "mtp.");
  in_prediction_block_ = true;
}

void TensorLister::at_prediction_layer() {
  at("mtp.", "mtp.layers.0.");
  in_prediction_block_ = true;
}

TensorSpec& TensorLister::add(TensorSpec spec) {
  spec.name = target_ + spec.name;
  spec.of_prediction_block = in_prediction_block_;
  list_.resident.push_back(std::move(spec));
  return list_.resident.back();
}

void TensorLister::matrix(ModelPart part, std::string_view name, int64_t rows, int64_t columns) {
  TensorSpec spec{.name = std::string(name), .rows = rows, .columns = columns, .part = part};
  spec.fill = random_for(columns);
  spec.sources = {whole_tensor(fmt::format("{}{}.weight", source_, name), {rows, columns})};
  add(std::move(spec));
}

void TensorLister::exact_matrix(ModelPart part, std::string_view name, int64_t rows,
                                int64_t columns) {
  matrix(part, name, rows, columns);
  list_.resident.back().stored = StoredAs::kExactMatrix;
}

void TensorLister::norm(ModelPart part, std::string_view name, int64_t width, Change change) {
  TensorSpec spec{.name = std::string(name), .rows = 1, .columns = width, .part = part};
  spec.stored = StoredAs::kVector;
  spec.change = change;
  spec.fill = {SyntheticFill::Kind::kConstant, 1};
  spec.sources = {whole_tensor(fmt::format("{}{}.weight", source_, name), {width})};
  add(std::move(spec));
}

void TensorLister::bias(std::string_view name, int64_t width) {
  TensorSpec spec{.name = fmt::format("{}.bias", name),
                  .rows = 1,
                  .columns = width,
                  .part = ModelPart::kAttention,
                  .stored = StoredAs::kVector};
  spec.fill = {SyntheticFill::Kind::kConstant, 0};
  spec.sources = {whole_tensor(fmt::format("{}{}.bias", source_, name), {width})};
  add(std::move(spec));
}

void TensorLister::embedding(const ModelConfig& config) {
  at("", prefix_);
  matrix(ModelPart::kEmbedding, "embed_tokens", config.vocab_size, config.hidden_size);
  // A residual stream of order one from the start; a tied embedding is the head as well.
  if (!config.tie_word_embeddings) list_.resident.back().fill = random_for(1);
}

void TensorLister::head(const ModelConfig& config, Change norm_change) {
  at("", prefix_);
  norm(ModelPart::kNorms, "norm", config.hidden_size, norm_change);
  at("", "");
  if (config.tie_word_embeddings) {
    list_.leftovers.push_back({"lm_head.weight", Leftover::Kind::kCopy});
  } else {
    matrix(ModelPart::kHead, "lm_head", config.vocab_size, config.hidden_size);
  }
}

void TensorLister::attention(const ModelConfig& config, Change norm_change) {
  const int64_t hidden = config.hidden_size;
  const auto projection = [&](std::string_view name, int64_t rows, int64_t columns) {
    matrix(ModelPart::kAttention, name, rows, columns);
    if (config.attention_bias) bias(name, rows);
  };
  projection("self_attn.q_proj", config.query_rows(), hidden);
  projection("self_attn.k_proj", config.kv_width(), hidden);
  projection("self_attn.v_proj", config.kv_width(), hidden);
  projection("self_attn.o_proj", hidden, config.query_width());
  norm(ModelPart::kAttention, "self_attn.q_norm", config.head_dim, norm_change);
  norm(ModelPart::kAttention, "self_attn.k_norm", config.head_dim, norm_change);
}

void TensorLister::router(const ModelConfig& config) {
  exact_matrix(ModelPart::kRouter, "mlp.gate", config.num_experts, config.hidden_size);
}

void TensorLister::ffn(ModelPart part, std::string_view name, int64_t hidden, int64_t width) {
  matrix(part, fmt::format("{}gate_proj", name), width, hidden);
  matrix(part, fmt::format("{}up_proj", name), width, hidden);
  matrix(part, fmt::format("{}down_proj", name), hidden, width);
}

void TensorLister::experts(const ModelConfig& config) {
  const int64_t count = config.num_experts;
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.moe_intermediate_size;
  const std::string fused = source_ + "mlp.experts.gate_up_proj";
  const std::string single = source_ + "mlp.experts.{}.";
  ExpertSpec spec;
  spec.of_prediction_block = in_prediction_block_;
  spec.gate_up = {{fused, {{fused, {count, 2 * width, hidden}, 0, 2 * width, 2 * width}}},
                  {"",
                   {{single + "gate_proj.weight", {width, hidden}, 0, width, 0},
                    {single + "up_proj.weight", {width, hidden}, 0, width, 0}}}};
  spec.down = {
      {fused, {{source_ + "mlp.experts.down_proj", {count, hidden, width}, 0, hidden, hidden}}},
      {"", {{single + "down_proj.weight", {hidden, width}, 0, hidden, 0}}}};
  list_.experts.push_back(std::move(spec));
}

}  // namespace penstock
