#include "source/gguf_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

#include "format/gguf.h"
#include "format/text.h"
#include "quant/block_decode.h"
#include "source/gguf_config.h"
#include "source/gguf_texts.h"
#include "source/normal_tensors.h"

namespace penstock {
namespace {

struct GgufName {
  std::string_view normal;  // the rest of a normal name
  std::string_view gguf;    // after blk.N.
  std::string_view older;   // another spelling, if there is one
};

constexpr std::array<GgufName, 29> kLayerNames = {{
    {"input_layernorm", "attn_norm.weight", ""},
    {"post_attention_layernorm", "post_attention_norm.weight", "ffn_norm.weight"},
    {"self_attn.q_proj", "attn_q.weight", ""},
    {"self_attn.k_proj", "attn_k.weight", ""},
    {"self_attn.v_proj", "attn_v.weight", ""},
    {"self_attn.o_proj", "attn_output.weight", ""},
    {"self_attn.q_proj.bias", "attn_q.bias", ""},
    {"self_attn.k_proj.bias", "attn_k.bias", ""},
    {"self_attn.v_proj.bias", "attn_v.bias", ""},
    {"self_attn.o_proj.bias", "attn_output.bias", ""},
    {"self_attn.q_norm", "attn_q_norm.weight", ""},
    {"self_attn.k_norm", "attn_k_norm.weight", ""},
    {"linear_attn.in_proj_qkv", "attn_qkv.weight", ""},
    {"linear_attn.in_proj_z", "attn_gate.weight", ""},
    {"linear_attn.in_proj_b", "ssm_beta.weight", ""},
    {"linear_attn.in_proj_a", "ssm_alpha.weight", ""},
    {"linear_attn.conv1d", "ssm_conv1d.weight", ""},
    {"linear_attn.decay", "ssm_a", ""},
    {"linear_attn.dt_bias", "ssm_dt.bias", "ssm_dt"},
    {"linear_attn.norm", "ssm_norm.weight", ""},
    {"linear_attn.out_proj", "ssm_out.weight", ""},
    {"mlp.gate", "ffn_gate_inp.weight", ""},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp.weight", ""},
    {"mlp.gate_proj", "ffn_gate.weight", ""},
    {"mlp.up_proj", "ffn_up.weight", ""},
    {"mlp.down_proj", "ffn_down.weight", ""},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp.weight", ""},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp.weight", ""},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp.weight", ""},
}};

constexpr std::array<GgufName, 7> kOtherNames = {{
    {"embed_tokens", "token_embd.weight", ""},
    {"norm", "output_norm.weight", ""},
    {"lm_head", "output.weight", ""},
    {"fc", "nextn.eh_proj.weight", ""},
    {"pre_fc_norm_embedding", "nextn.enorm.weight", ""},
    {"pre_fc_norm_hidden", "nextn.hnorm.weight", ""},
    {"mtp.norm", "nextn.shared_head_norm.weight", ""},
}};

class GgufReader {
 public:
  // is_tiled: the architecture's converter moves value heads.
  GgufReader(const GgufModel& model, const ModelConfig& config, bool is_tiled)
      : model_(model), config_(config) {
    is_tiled_ = is_tiled && config.linear_num_value_heads != config.linear_num_key_heads;
    if (is_tiled_) heads_ = tiled_value_heads(config);
  }

  Result<void> read(SourceParts& parts);

 private:
  Error error(ErrorCode code, const std::string& reason) const {
    return {code, fmt::format("{}: {}", model_.path(), reason)};
  }
  std::string block(int64_t layer, std::string_view rest) const {
    return fmt::format("blk.{}.{}", layer, rest);
  }
  std::string file_name(const NormalTensor& wanted) const;

  // A tensor that must be there with `rows` rows of `columns`, in `leading` of them if not 0.
  Result<StoredMatrix> take(const std::string& name, int64_t leading, int64_t rows,
                            int64_t columns);

  Result<SourceTensor> resident(const NormalTensor& wanted);
  Result<std::vector<StoredRows>> attention_rows(const NormalTensor& wanted, int64_t layer);
  Result<std::vector<StoredRows>> interleaved(const NormalTensor& wanted, const std::string& name,
                                              int64_t layer);
  void tile_rows(const StoredMatrix& matrix, int64_t first_row, int64_t rows_of_head,
                 std::vector<StoredRows>& ranges) const;
  void reorder(const NormalTensor& wanted, std::string_view rest, SourceTensor& tensor) const;
  Result<LayerExperts> experts(int64_t layer);
  Result<void> check_left_over() const;

  const GgufModel& model_;
  const ModelConfig& config_;
  bool is_tiled_ = false;
  std::vector<int64_t> heads_;  // where a value head of the model lies
  std::unordered_set<const GgufTensor*> taken_;
};

std::string GgufReader::file_name(const NormalTensor& wanted) const {
  const NormalName name = split_normal_name(wanted.name, config_);
  if (name.layer < 0) {
    const std::string_view sought = name.rest == "norm" ? std::string_view(wanted.name) : name.rest;
    for (const GgufName& entry : kOtherNames) {
      if (entry.normal != sought) continue;
      return name.is_prediction ? block(config_.num_hidden_layers, entry.gguf)
                                : std::string(entry.gguf);
    }
  }
  for (const GgufName& entry : kLayerNames) {
    if (entry.normal != name.rest) continue;
    const std::string today = block(name.layer, entry.gguf);
    if (entry.older.empty() || model_.find(today) != nullptr) return today;
    const std::string older = block(name.layer, entry.older);
    return model_.find(older) != nullptr ? older : today;
  }
  PENSTOCK_CHECK(false);  // every normal name is in one of the tables
  return {};
}

Result<StoredMatrix> GgufReader::take(const std::string& name, int64_t leading, int64_t rows,
                                      int64_t columns) {
  const GgufTensor* tensor = model_.find(name);
  std::vector<int64_t> shape = {rows, columns};
  if (leading > 0) shape.insert(shape.begin(), leading);
  if (tensor == nullptr) {
    return error(ErrorCode::kNotFound, fmt::format("tensor {} of {} rows and {} columns is missing",
                                                   escaped(name), rows, columns));
  }
  // Axes of one come and go between writers: [H, 1] or [H].
  std::vector<int64_t> found = tensor->shape, sought = shape;
  std::erase(found, 1);
  std::erase(sought, 1);
  if (found != sought) {
    return error(
        ErrorCode::kCorrupt,
        fmt::format("tensor {} has shape [{}], slowest first; the keys ask for [{}]", escaped(name),
                    fmt::join(tensor->shape, ", "), fmt::join(shape, ", ")));
  }
  if (!is_decodable(tensor->type)) {
    return error(ErrorCode::kUnsupported, fmt::format("tensor {} is {}, which is not read",
                                                      escaped(name), name_of(tensor->type)));
  }
  taken_.insert(tensor);
  StoredMatrix matrix;
  matrix.coding.block = tensor->type;
  matrix.rows = rows;
  matrix.columns = columns;
  // A vector that is stored as a column has blocks of one element: F32 by the writers' rule.
  if (columns % group_columns(matrix.coding) != 0) {
    return error(ErrorCode::kCorrupt, fmt::format("tensor {} has rows of {}, which {} does not fit",
                                                  escaped(name), columns, name_of(tensor->type)));
  }
  matrix.codes = {static_cast<uint32_t>(tensor->shard), tensor->offset,
                  row_bytes(matrix.coding, columns).codes};
  return matrix;
}

// Rows of value heads in the order of the model; neighbours that stayed together are one range.
void GgufReader::tile_rows(const StoredMatrix& matrix, int64_t first_row, int64_t rows_of_head,
                           std::vector<StoredRows>& ranges) const {
  for (const int64_t stored : heads_) {
    const int64_t row = first_row + stored * rows_of_head;
    if (!ranges.empty() && ranges.back().first_row + ranges.back().rows == row) {
      ranges.back().rows += rows_of_head;
    } else {
      ranges.push_back({matrix, row, rows_of_head});
    }
  }
}

void GgufReader::reorder(const NormalTensor& wanted, std::string_view rest,
                         SourceTensor& tensor) const {
  const StoredMatrix matrix = tensor.ranges.front().matrix;
  const int64_t width = config_.linear_value_head_dim;
  const int64_t key_rows = 2 * config_.linear_num_key_heads * config_.linear_key_head_dim;
  if (rest == "linear_attn.in_proj_qkv" || rest == "linear_attn.conv1d") {
    tensor.ranges = {{matrix, 0, key_rows}};
    tile_rows(matrix, key_rows, width, tensor.ranges);
  } else if (rest == "linear_attn.in_proj_z") {
    tensor.ranges.clear();
    tile_rows(matrix, 0, width, tensor.ranges);
  } else if (rest == "linear_attn.in_proj_a" || rest == "linear_attn.in_proj_b") {
    tensor.ranges.clear();
    tile_rows(matrix, 0, 1, tensor.ranges);
  } else if (rest == "linear_attn.decay" || rest == "linear_attn.dt_bias") {
    tensor.order = {1, heads_};
  } else if (rest == "linear_attn.out_proj") {
    tensor.order = {width, heads_};
  }
  PENSTOCK_CHECK(wanted.rows == tensor.rows);
}

// q_proj, k_proj or v_proj: by themselves, or rows of one attn_qkv.weight, which is also what a
// delta-net layer calls its own.
Result<std::vector<StoredRows>> GgufReader::attention_rows(const NormalTensor& wanted,
                                                           int64_t layer) {
  const int64_t kv_rows = config_.num_key_value_heads * config_.head_dim;
  const int64_t q_rows = config_.query_rows();
  const StoredMatrix fused = PENSTOCK_TRY(
      take(block(layer, "attn_qkv.weight"), 0, q_rows + 2 * kv_rows, config_.hidden_size));
  int64_t first = 0;
  if (wanted.name.ends_with("k_proj")) first = q_rows;
  if (wanted.name.ends_with("v_proj")) first = q_rows + kv_rows;
  return std::vector<StoredRows>{{fused, first, wanted.rows}};
}

// Fused inputs of qwen3next, interleaved by key head: ssm_ba (b | a of each) in all files, ssm_in
// (q | k | values | gates of each) in the first ones.
Result<std::vector<StoredRows>> GgufReader::interleaved(const NormalTensor& wanted,
                                                        const std::string& name, int64_t layer) {
  const int64_t keys = config_.linear_num_key_heads;
  const int64_t per_key = config_.linear_num_value_heads / keys;
  const int64_t key_width = config_.linear_key_head_dim;
  const int64_t value_width = per_key * config_.linear_value_head_dim;
  const bool is_ba = name == "ssm_ba.weight";
  const int64_t group = is_ba ? 2 * per_key : 2 * key_width + 2 * value_width;
  const StoredMatrix fused =
      PENSTOCK_TRY(take(block(layer, name), 0, keys * group, config_.hidden_size));
  std::vector<StoredRows> ranges;
  const auto gather = [&](int64_t first, int64_t rows) {
    for (int64_t head = 0; head < keys; ++head) {
      ranges.push_back({fused, head * group + first, rows});
    }
  };
  if (wanted.name.ends_with("_b")) {
    gather(0, per_key);
  } else if (wanted.name.ends_with("_a")) {
    gather(per_key, per_key);
  } else if (wanted.name.ends_with("_z")) {
    gather(2 * key_width + value_width, value_width);
  } else {
    gather(0, key_width);
    gather(key_width, key_width);
    gather(2 * key_width, value_width);
  }
  return ranges;
}

Result<SourceTensor> GgufReader::resident(const NormalTensor& wanted) {
  SourceTensor tensor;
  tensor.name = wanted.name;
  tensor.is_plain = wanted.is_plain;
  tensor.rows = wanted.rows;
  tensor.columns = wanted.columns;
  const NormalName name = split_normal_name(wanted.name, config_);
  const auto has = [&](std::string_view rest) {
    return name.layer >= 0 && model_.find(block(name.layer, rest)) != nullptr;
  };
  const bool is_ab = name.rest == "linear_attn.in_proj_a" || name.rest == "linear_attn.in_proj_b";
  const bool is_qkvz =
      name.rest == "linear_attn.in_proj_qkv" || name.rest == "linear_attn.in_proj_z";
  const bool is_qkv = name.rest == "self_attn.q_proj" || name.rest == "self_attn.k_proj" ||
                      name.rest == "self_attn.v_proj";
  if (is_ab && has("ssm_ba.weight")) {
    tensor.ranges = PENSTOCK_TRY(interleaved(wanted, "ssm_ba.weight", name.layer));
    return tensor;
  }
  if (is_qkvz && has("ssm_in.weight")) {
    tensor.ranges = PENSTOCK_TRY(interleaved(wanted, "ssm_in.weight", name.layer));
    return tensor;
  }
  if (is_qkv && has("attn_qkv.weight")) {
    tensor.ranges = PENSTOCK_TRY(attention_rows(wanted, name.layer));
    return tensor;
  }
  const StoredMatrix matrix = PENSTOCK_TRY(take(file_name(wanted), 0, wanted.rows, wanted.columns));
  tensor.ranges = {{matrix, 0, wanted.rows}};
  if (is_tiled_) reorder(wanted, name.rest, tensor);
  return tensor;
}

Result<LayerExperts> GgufReader::experts(int64_t layer) {
  const int64_t ffn = config_.moe_intermediate_size, hidden = config_.hidden_size;
  LayerExperts result;
  const auto put = [&](ExpertPart part, StoredMatrix first, int64_t first_row, int64_t rows,
                       int64_t rows_of_expert) {
    first.rows = rows;
    first.codes.offset += static_cast<uint64_t>(first_row) * first.codes.row_bytes;
    result[part].stride.codes = static_cast<uint64_t>(rows_of_expert) * first.codes.row_bytes;
    result[part].first = first;
  };
  const std::string fused = block(layer, "ffn_gate_up_exps.weight");
  if (model_.find(fused) != nullptr) {
    const StoredMatrix both = PENSTOCK_TRY(take(fused, config_.num_experts, 2 * ffn, hidden));
    put(ExpertPart::kGate, both, 0, ffn, 2 * ffn);
    put(ExpertPart::kUp, both, ffn, ffn, 2 * ffn);
  } else {
    const int64_t count = config_.num_experts;
    put(ExpertPart::kGate,
        PENSTOCK_TRY(take(block(layer, "ffn_gate_exps.weight"), count, ffn, hidden)), 0, ffn, ffn);
    put(ExpertPart::kUp, PENSTOCK_TRY(take(block(layer, "ffn_up_exps.weight"), count, ffn, hidden)),
        0, ffn, ffn);
  }
  put(ExpertPart::kDown,
      PENSTOCK_TRY(take(block(layer, "ffn_down_exps.weight"), config_.num_experts, hidden, ffn)), 0,
      hidden, hidden);
  return result;
}

Result<void> GgufReader::check_left_over() const {
  std::string names;
  int64_t count = 0;
  for (const GgufTensor& tensor : model_.tensors()) {
    if (taken_.contains(&tensor)) continue;
    if (++count <= 5) names += (names.empty() ? "" : ", ") + escaped(tensor.name);
  }
  if (count == 0) return {};
  return error(ErrorCode::kCorrupt,
               fmt::format("{} tensors that its keys do not explain, such as {}; is it another "
                           "architecture?",
                           count, names));
}

Result<void> GgufReader::read(SourceParts& parts) {
  for (const NormalTensor& wanted : normal_tensors(config_)) {
    parts.tensors.push_back(PENSTOCK_TRY(resident(wanted)));
  }
  for (const int64_t layer : expert_layers(config_)) {
    parts.experts.push_back(PENSTOCK_TRY(experts(layer)));
  }
  PENSTOCK_TRY(check_left_over());
  for (const GgufShard& shard : model_.shards()) {
    parts.files.push_back({shard.path, shard.stat, shard.header_sum});
  }
  return {};
}

}  // namespace

Result<SourceParts> open_gguf_source(Storage& storage, const std::string& path) {
  const GgufModel model = PENSTOCK_TRY(GgufModel::open(storage, path));
  SourceParts parts;
  parts.format = SourceFormat::kGguf;
  parts.path = path;
  parts.config = PENSTOCK_TRY(gguf_config(model));
  const bool is_tiled =
      PENSTOCK_TRY(model.metadata().string("general.architecture")) == "qwen35moe";
  PENSTOCK_TRY(GgufReader(model, parts.config, is_tiled).read(parts));
  parts.texts = PENSTOCK_TRY(gguf_texts(model.metadata(), path));
  return parts;
}

}  // namespace penstock
