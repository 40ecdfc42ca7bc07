#include "pack/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pack/identity.h"
#include "pack/test_checkpoint.h"

namespace penstock {
namespace {

using test::Files;
using test::TinyTensor;
using testing::HasSubstr;

constexpr StoredTypes kWithoutPrediction = {std::nullopt, std::nullopt, true};

struct Planned {
  SimStorage disk;
  std::optional<Checkpoint> checkpoint;
  std::optional<ModelConfig> config;

  explicit Planned(const std::vector<TinyTensor>& tensors, const Json& json = test::tiny_config()) {
    test::store_all(
        disk, "/m",
        {{"config.json", to_text(json)}, {"model.safetensors", test::tiny_weights(tensors)}});
    checkpoint = *Checkpoint::open(disk, "/m");
    config = *parse_model_config(checkpoint->config(), "config.json");
  }
  Result<PackPlan> make(const StoredTypes& types = {}) {
    return PackPlan::make(*checkpoint, *config, types);
  }
};

TinyTensor& find(std::vector<TinyTensor>& tensors, std::string_view name) {
  for (TinyTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return tensors.front();
}

const ResidentPiece& piece(const PackPlan& plan, std::string_view name) {
  for (const ResidentPiece& entry : plan.resident()) {
    if (entry.tensor.name == name) return entry;
  }
  ADD_FAILURE() << name;
  return plan.resident().front();
}

TEST(PackPlan, explains_every_tensor_of_the_tiny_model) {
  Planned planned(test::tiny_tensors());
  const PackPlan plan = *planned.make();
  EXPECT_EQ(plan.resident().size(), 32u) << "36 text tensors, four of them experts";
  EXPECT_EQ(plan.mtp().size(), 1u);
  EXPECT_EQ(plan.vision_elements(), 24);
  EXPECT_EQ(plan.kept_elements(), 512);
  EXPECT_EQ(count_parameters(plan.config()).experts, 2 * 3 * 3 * 64 * 64);
  EXPECT_EQ(plan.experts().one_dtype(), DType::kBF16);
  uint64_t end = 0;
  for (const ResidentPiece& entry : plan.resident()) {
    EXPECT_EQ(entry.tensor.offset, end) << entry.tensor.name;
    end = align_file(entry.tensor.offset + entry.tensor.bytes);
  }
  EXPECT_EQ(plan.resident_bytes(), end);
}

// The tiny model with a whole prediction block: a layer like its second one.
std::vector<TinyTensor> tensors_with_block() {
  std::vector<TinyTensor> tensors = test::tiny_tensors();
  std::erase_if(tensors, [](const TinyTensor& t) { return t.name == "mtp.fc.weight"; });
  std::vector<TinyTensor> block = {{"mtp.fc.weight", {64, 128}},
                                   {"mtp.norm.weight", {64}},
                                   {"mtp.pre_fc_norm_embedding.weight", {64}},
                                   {"mtp.pre_fc_norm_hidden.weight", {64}}};
  for (const TinyTensor& tensor : tensors) {
    const size_t at = tensor.name.find("layers.1.");
    if (at == std::string::npos) continue;
    block.push_back({"mtp.layers.0." + tensor.name.substr(at + 9), tensor.shape});
  }
  tensors.insert(tensors.end(), block.begin(), block.end());
  return tensors;
}

TEST(PackPlan, a_whole_prediction_block_is_one_more_layer) {
  Planned without(test::tiny_tensors()), with(tensors_with_block());
  const PackPlan plain = *without.make();
  const PackPlan plan = *with.make({DType::kQ4, panel_form(DType::kQ8)});
  EXPECT_EQ(plain.prediction_layers(), 0);
  EXPECT_EQ(plan.prediction_layers(), 1);
  EXPECT_TRUE(plan.mtp().empty());
  EXPECT_EQ(plan.experts().num_layers, plain.experts().num_layers + 1);
  EXPECT_EQ(plan.gate_up(2, 1).ranges.front().tensor->info.name,
            "mtp.layers.0.mlp.experts.gate_up_proj");
  const ParameterCount count = count_parameters(plan.config());
  EXPECT_EQ(active_parameters(plan.config(), 2), active_parameters(plain.config(), 2));
  EXPECT_EQ(count.total(), count_parameters(plain.config()).total());
  EXPECT_GT(count.prediction_block, 3 * 3 * 64 * 64);
  EXPECT_EQ(plan.kept_elements(), 0);
  EXPECT_EQ(piece(plan, "mtp.fc").tensor.form.dtype, DType::kQ8);
  EXPECT_EQ(piece(plan, "mtp.mlp.gate").tensor.form.dtype, DType::kBF16);
  EXPECT_EQ(piece(plan, "mtp.self_attn.q_proj").tensor.rows, 64);
  for (const char* name : {"mtp.norm", "mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden",
                           "mtp.input_layernorm", "mtp.self_attn.k_norm"}) {
    EXPECT_EQ(piece(plan, name).change, Change::kAddOne) << name;
  }
}

TEST(PackPlan, names_every_missing_tensor_of_a_prediction_block) {
  for (const TinyTensor& left_out : tensors_with_block()) {
    if (!left_out.name.starts_with("mtp.")) continue;
    std::vector<TinyTensor> tensors = tensors_with_block();
    std::erase_if(tensors, [&](const TinyTensor& t) { return t.name == left_out.name; });
    Planned planned(tensors);
    const Result<PackPlan> plan = planned.make();
    if (left_out.name == "mtp.fc.weight" || left_out.name.ends_with("self_attn.q_proj.weight")) {
      EXPECT_EQ(plan->prediction_layers(), 0) << left_out.name;  // pieces, kept as they are
      EXPECT_FALSE(plan->mtp().empty());
      continue;
    }
    ASSERT_FALSE(plan.has_value()) << left_out.name;
    EXPECT_EQ(plan.error().code, ErrorCode::kNotFound);
    const bool fused = left_out.name.ends_with("gate_up_proj");  // then single ones are looked for
    EXPECT_THAT(plan.error().message,
                HasSubstr(fused ? "mtp.layers.0.mlp.experts.0.gate_proj" : left_out.name));
    EXPECT_THAT(plan.error().message, HasSubstr("--without-prediction"));
    const PackPlan without = *planned.make(kWithoutPrediction);
    EXPECT_EQ(without.prediction_layers(), 0);
    EXPECT_TRUE(without.mtp().empty());
  }
}

TEST(PackPlan, without_its_prediction_block_a_model_is_the_same_one) {
  std::vector<TinyTensor> tensors = test::tiny_tensors();
  std::erase_if(tensors, [](const TinyTensor& t) { return t.name.starts_with("mtp."); });
  Planned bare(tensors), whole(tensors_with_block());
  const PackPlan expected = *bare.make();
  const PackPlan plan = *whole.make(kWithoutPrediction);
  EXPECT_TRUE(plan.notes().empty());
  EXPECT_EQ(plan.resident_bytes(), expected.resident_bytes());
  EXPECT_EQ(plan.experts().num_layers, expected.experts().num_layers);
  EXPECT_EQ(plan.kept_elements(), 0);
  EXPECT_NE(*derive_model_id(*whole.checkpoint, kWithoutPrediction),
            *derive_model_id(*whole.checkpoint, {}));
}

TEST(PackPlan, pieces_of_a_prediction_block_are_told) {
  Planned planned(test::tiny_tensors());
  const PackPlan plan = *planned.make();
  ASSERT_EQ(plan.notes().size(), 1u);
  EXPECT_THAT(plan.notes()[0], HasSubstr("prediction block is not whole"));
}

TEST(PackPlan, quantises_what_may_be_and_nothing_else) {
  Planned planned(test::tiny_tensors());
  const PackPlan plan = *planned.make({DType::kQ4, panel_form(DType::kQ8)});
  EXPECT_EQ(plan.experts().one_dtype(), DType::kQ4);
  for (const ResidentPiece& entry : plan.resident()) {
    const ResidentTensor& tensor = entry.tensor;
    const bool stays = tensor.name.ends_with("mlp.gate") ||
                       tensor.name.ends_with("shared_expert_gate") ||
                       tensor.name.ends_with("in_proj_a") || tensor.name.ends_with("in_proj_b") ||
                       tensor.columns % 64 != 0;
    if (tensor.form.is_plain()) {
      EXPECT_EQ(tensor.form.dtype, DType::kF32) << tensor.name;
    } else {
      EXPECT_EQ(tensor.form.dtype, stays ? DType::kBF16 : DType::kQ8) << tensor.name;
    }
  }
  EXPECT_EQ(piece(plan, "embed_tokens").tensor.form.dtype, DType::kQ8);
  EXPECT_EQ(piece(plan, "layers.1.self_attn.o_proj").tensor.form.dtype, DType::kBF16)
      << "32 columns";
}

TEST(PackPlan, norms_become_multipliers_and_decay_a_rate) {
  Planned planned(test::tiny_tensors());
  const PackPlan plan = *planned.make();
  for (const char* name : {"norm", "layers.0.input_layernorm", "layers.1.post_attention_layernorm",
                           "layers.1.self_attn.q_norm", "layers.1.self_attn.k_norm"}) {
    EXPECT_EQ(piece(plan, name).change, Change::kAddOne) << name;
  }
  EXPECT_EQ(piece(plan, "layers.0.linear_attn.norm").change, Change::kNone) << "not zero-centred";
  EXPECT_EQ(piece(plan, "layers.0.linear_attn.decay").change, Change::kMinusExp);
  EXPECT_EQ(piece(plan, "layers.0.linear_attn.dt_bias").change, Change::kNone);
}

TEST(PackPlan, names_every_missing_tensor) {
  for (const TinyTensor& left_out : test::tiny_tensors()) {
    if (left_out.name.starts_with("mtp.") || left_out.name.starts_with("model.visual.")) continue;
    std::vector<TinyTensor> tensors = test::tiny_tensors();
    std::erase_if(tensors, [&](const TinyTensor& t) { return t.name == left_out.name; });
    Planned planned(tensors);
    const Result<PackPlan> plan = planned.make();
    ASSERT_FALSE(plan.has_value()) << left_out.name;
    EXPECT_EQ(plan.error().code, ErrorCode::kNotFound);
    const bool fused = left_out.name.ends_with("gate_up_proj");  // then single ones are looked for
    EXPECT_THAT(plan.error().message,
                HasSubstr(fused                                            ? "experts.0.gate_proj"
                          : left_out.name.ends_with("embed_tokens.weight") ? "embed_tokens.weight"
                                                                           : left_out.name));
  }
}

TEST(PackPlan, tells_both_shapes_when_they_differ) {
  for (const TinyTensor& wrong : test::tiny_tensors()) {
    if (wrong.name.starts_with("mtp.") || wrong.name.starts_with("model.visual.")) continue;
    std::vector<TinyTensor> tensors = test::tiny_tensors();
    find(tensors, wrong.name).shape[0] += 1;
    Planned planned(tensors);
    const Result<PackPlan> plan = planned.make();
    ASSERT_FALSE(plan.has_value()) << wrong.name;
    EXPECT_EQ(plan.error().code, ErrorCode::kCorrupt) << wrong.name;
    EXPECT_THAT(plan.error().message, HasSubstr(wrong.name));
    EXPECT_THAT(plan.error().message, HasSubstr(shape_text(wrong.shape)));
    EXPECT_THAT(plan.error().message, HasSubstr(shape_text(find(tensors, wrong.name).shape)));
  }
}

TEST(PackPlan, an_empty_dimension_or_a_fifth_one_is_a_wrong_shape) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{0, 64}, std::vector<int64_t>{1, 1, 1, 40, 64}}) {
    std::vector<TinyTensor> tensors = test::tiny_tensors();
    find(tensors, "lm_head.weight").shape = shape;
    Planned planned(tensors);
    EXPECT_EQ(planned.make().error().code, ErrorCode::kCorrupt);
  }
}

TEST(PackPlan, names_tensors_that_nothing_explains) {
  std::vector<TinyTensor> tensors = test::tiny_tensors();
  tensors.push_back({"model.layers.0.self_attn.sinks", {2}});
  tensors.push_back({"model.layers.2.input_layernorm.weight", {64}});
  Planned planned(tensors);
  const Result<PackPlan> plan = planned.make();
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(plan.error().message, HasSubstr("2 tensors"));
  EXPECT_THAT(plan.error().message, HasSubstr("self_attn.sinks"));
  EXPECT_THAT(plan.error().message, HasSubstr("layers.2"));
}

TEST(PackPlan, tied_models_have_no_head_even_when_one_is_stored) {
  Json config = test::tiny_config();
  config["tie_word_embeddings"] = true;
  Planned planned(test::tiny_tensors(), config);
  const PackPlan plan = *planned.make();
  for (const ResidentPiece& entry : plan.resident()) EXPECT_NE(entry.tensor.name, "lm_head");
}

TEST(PackPlan, widths_that_have_no_groups_ask_for_keep) {
  Json config = test::tiny_config();
  config["moe_intermediate_size"] = 32;
  std::vector<TinyTensor> tensors = test::tiny_tensors();
  for (const char* layer : {"0", "1"}) {
    const std::string base = std::string("model.layers.") + layer + ".mlp.experts.";
    find(tensors, base + "gate_up_proj").shape = {3, 64, 64};
    find(tensors, base + "down_proj").shape = {3, 64, 32};
  }
  Planned planned(tensors, config);
  const Result<PackPlan> plan = planned.make({DType::kQ4, std::nullopt});
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(plan.error().message, HasSubstr("--experts keep"));
  EXPECT_TRUE(planned.make().has_value());
}

TEST(PackPlan, fused_projections_are_taken_apart_by_key_head) {
  // 2 key heads of 3 components, 4 value heads of 5: the row blocks of docs/model.md, Tensors.
  Json config = test::tiny_config();
  config["linear_num_key_heads"] = 2;
  config["linear_num_value_heads"] = 4;
  config["linear_key_head_dim"] = 3;
  config["linear_value_head_dim"] = 5;
  std::vector<TinyTensor> tensors = test::tiny_tensors();
  std::erase_if(tensors,
                [](const TinyTensor& t) { return t.name.find("in_proj") != std::string::npos; });
  const std::string base = "model.layers.0.linear_attn.";
  tensors.push_back({base + "in_proj_qkvz.weight", {2 * (3 + 3 + 10 + 10), 64}});
  tensors.push_back({base + "in_proj_ba.weight", {8, 64}});
  find(tensors, base + "conv1d.weight").shape = {32, 1, 2};
  find(tensors, base + "A_log").shape = {4};
  find(tensors, base + "dt_bias").shape = {4};
  find(tensors, base + "norm.weight").shape = {5};
  find(tensors, base + "out_proj.weight").shape = {64, 20};
  Planned planned(tensors, config);
  const Result<PackPlan> plan = planned.make();
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  const auto rows_of = [&](std::string_view name) {
    std::vector<int64_t> rows;
    for (const RowRange& range : piece(*plan, name).source.ranges) {
      for (int64_t row = 0; row < range.rows; ++row) rows.push_back(range.first_row + row);
    }
    return rows;
  };
  using Rows = std::vector<int64_t>;
  EXPECT_EQ(rows_of("layers.0.linear_attn.in_proj_qkv"),
            (Rows{0,  1,  2,  26, 27, 28,                     // q of both key heads
                  3,  4,  5,  29, 30, 31,                     // k
                  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,     // v of value heads 0, 1
                  32, 33, 34, 35, 36, 37, 38, 39, 40, 41}));  // v of value heads 2, 3
  EXPECT_EQ(rows_of("layers.0.linear_attn.in_proj_z"),
            (Rows{16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51}));
  EXPECT_EQ(rows_of("layers.0.linear_attn.in_proj_b"), (Rows{0, 1, 4, 5}));
  EXPECT_EQ(rows_of("layers.0.linear_attn.in_proj_a"), (Rows{2, 3, 6, 7}));
}

TEST(Identity, normal_config_is_read_back_equal) {
  for (const char* name :
       {"random/r0-gva2", "random/r1-tied", "random/r2-top1", "random/r3-wrapped", "random/r4-yarn",
        "layouts/r0-next", "random/m0-plain", "random/m1-raw", "random/m2-dense",
        "random/m3-tied"}) {
    const std::string path = test::data_path(name) + std::string("/config.json");
    const std::string text = *read_text(posix_storage(), path, 1 << 20);
    const ModelConfig config = *parse_model_config(*parse_json(text, path), path);
    const Json normal = normal_config(config);
    const ModelConfig again = *parse_model_config(normal, "normal");
    EXPECT_EQ(to_text(normal_config(again)), to_text(normal)) << name;
    EXPECT_EQ(again.layer_types, config.layer_types);
    EXPECT_EQ(again.rope.yarn, config.rope.yarn);
    EXPECT_EQ(again.rope.attention_factor, config.rope.attention_factor);
    EXPECT_EQ(again.tie_word_embeddings, config.tie_word_embeddings);
    EXPECT_EQ(again.ffn_types, config.ffn_types);
    EXPECT_EQ(again.norm_topk_prob, config.norm_topk_prob);
    EXPECT_TRUE(again.unknown_keys.empty()) << name;
    EXPECT_TRUE(config.unknown_keys.empty()) << name << ": " << config.unknown_keys.front();
  }
}

TEST(Identity, fine_tunes_and_options_have_ids_of_their_own) {
  const auto id_of = [](uint32_t seed, const StoredTypes& types) {
    SimStorage disk;
    test::store_all(disk, "/m",
                    {{"config.json", to_text(test::tiny_config())},
                     {"model.safetensors", test::tiny_weights(test::tiny_tensors(), seed)}});
    Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
    return *derive_model_id(checkpoint, types);
  };
  const uint64_t id = id_of(1, {});
  EXPECT_EQ(id_of(1, {}), id);
  EXPECT_NE(id_of(2, {}), id) << "the same header, other weights";
  EXPECT_NE(id_of(1, {DType::kQ4, std::nullopt}), id);
  EXPECT_NE(id_of(1, {std::nullopt, panel_form(DType::kQ4)}), id);
}

}  // namespace
}  // namespace penstock
