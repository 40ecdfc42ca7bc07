#include "pack/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "format/container.h"
#include "model/registry.h"
#include "model/shapes.h"
#include "pack/random_weights.h"
#include "pack/synth_layout.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

// The pattern of a real shape at a size that a test can afford.
ModelConfig small_config() {
  ModelConfig config = *config_of(*find_model_shape("demo"), 5);
  config.vocab_size = 300;
  config.hidden_size = 128;
  config.num_experts = 6;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 64;
  config.shared_expert_intermediate_size = 64;
  return config;
}

SynthOptions small_options() {
  SynthOptions options;
  options.target = "box/model";
  options.name = "small";
  options.config = small_config();
  options.sync_bytes = 64 << 10;
  return options;
}

Result<PackReport> synthesise(Storage& storage, const SynthOptions& options) {
  return synthesise_model(storage, options, {}, {});
}

std::vector<std::byte> bytes_of(Storage& storage, const std::string& path) {
  const std::unique_ptr<StorageFile> file = *storage.open(path, OpenMode::kRead);
  std::vector<std::byte> bytes(file->stat()->bytes);
  EXPECT_TRUE(read_exactly(*file, 0, bytes));
  return bytes;
}

std::string all_bytes(Storage& storage, const std::string& directory) {
  std::string all;
  const std::vector<std::string> names = *storage.list(directory);
  for (const std::string& name : names) {
    const std::vector<std::byte> bytes = bytes_of(storage, directory + "/" + name);
    all += name + ":" + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return all;
}

struct Moments {
  double mean = 0, deviation = 0;
};
Moments moments(std::span<const float> values) {
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value;
    squares += double{value} * value;
  }
  const auto n = static_cast<double>(values.size());
  return {sum / n, std::sqrt(squares / n - sum / n * sum / n)};
}

TEST(ModelShapes, config_agrees_with_published_parameter_counts) {
  struct Published {
    const char* name;
    int64_t parameters;
  };
  for (const Published& published : {Published{"35b", 34660610688},
                                     {"122b", 122111526912},
                                     {"397b", 396346350336},
                                     {"next-80b", 79674391296},
                                     {"30b", 30532122624},
                                     {"235b", 235093634560},
                                     {"Qwen3.8-2.4T-A95B", 2419804697984}}) {
    const ModelConfig config = *config_of(*find_model_shape(published.name), 0);
    int64_t parameters = config.num_hidden_layers * config.num_experts * 3 * config.hidden_size *
                         config.moe_intermediate_size;
    for (const SynthTensor& entry : synthetic_tensors(config, DType::kQ4)) {
      parameters += entry.tensor.rows * entry.tensor.columns;
    }
    EXPECT_EQ(parameters, published.parameters) << published.name;
  }
}

TEST(ModelShapes, unknown_name_is_answered_with_the_known_ones) {
  const Result<ModelShape> shape = find_model_shape("70b");
  ASSERT_FALSE(shape);
  EXPECT_EQ(shape.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(shape.error().message, HasSubstr("397b (Qwen3.5-397B-A17B)"));
}

TEST(ModelShapes, fewer_layers_keep_the_pattern_of_types) {
  const ModelConfig config = *config_of(*find_model_shape("QWEN3-CODER-NEXT"), 6);
  ASSERT_EQ(config.layer_types.size(), 6u);
  for (size_t layer = 0; layer < 6; ++layer) {
    EXPECT_EQ(config.layer_types[layer] == LayerType::kFullAttention, layer == 3);
  }
  EXPECT_FALSE(config_of(*find_model_shape("35b"), 2000));
}

TEST(RandomWeights, entries_have_the_wanted_deviation_in_every_format) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    RandomWeights weights(7);
    std::vector<std::byte> bytes(static_cast<size_t>(panel_bytes(dtype, 256, 512)));
    weights.fill_matrix(dtype, 0.25f, 3, 256, 512, bytes);
    std::vector<float> values(256 * 512);
    for (int64_t row = 0; row < 256; ++row) {
      panel_row({dtype, 256, 512, bytes.data()}, row, std::span(values).subspan(row * 512, 512));
    }
    const Moments found = moments(values);
    EXPECT_NEAR(found.mean, 0, 0.004) << name_of(dtype);
    EXPECT_NEAR(found.deviation, 0.25, 0.005) << name_of(dtype);
  }
}

TEST(RandomWeights, rows_that_the_matrix_does_not_have_are_zero) {
  for (const DType dtype : {DType::kBF16, DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    RandomWeights weights(7);
    std::vector<std::byte> bytes(static_cast<size_t>(panel_bytes(dtype, 21, 128)));
    weights.fill_matrix(dtype, 1.0f, 0, 21, 128, bytes);
    std::vector<float> row(128);
    for (int64_t index = 0; index < 32; ++index) {
      panel_row({dtype, 32, 128, bytes.data()}, index, row);
      const bool is_zero = std::ranges::all_of(row, [](float value) { return value == 0; });
      EXPECT_EQ(is_zero, index >= 21) << name_of(dtype) << " row " << index;
    }
  }
}

TEST(RandomWeights, bytes_do_not_depend_on_what_was_asked_before) {
  RandomWeights first(7), second(7);
  std::vector<std::byte> whole(static_cast<size_t>(panel_bytes(DType::kQ4, 64, 1024)));
  std::vector<std::byte> part = whole, other = whole;
  first.fill_blocks(DType::kQ4, 1.0f, 5, 0, whole);
  second.fill_blocks(DType::kQ4, 1.0f, 6, 0, other);
  const auto half = whole.size() / 2;
  const auto block = static_cast<size_t>(block_bytes(DType::kQ4));
  second.fill_blocks(DType::kQ4, 1.0f, 5, static_cast<int64_t>(half / block),
                     std::span(part).subspan(half));
  second.fill_blocks(DType::kQ4, 1.0f, 5, 0, std::span(part).first(half));
  EXPECT_EQ(part, whole);
  EXPECT_NE(other, whole);
}

TEST(Synth, model_opens_and_every_checksum_agrees) {
  SimStorage disk;
  const PackReport report = *synthesise(disk, small_options());
  Result<Container> model = Container::open(disk, "box/model");
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->id_text(), report.id);
  std::vector<std::byte> resident(model->resident_bytes());
  ASSERT_TRUE(model->load_resident(resident, {}));

  const ExpertParts& parts = model->experts();
  const std::vector<Hash128> sums = *model->load_expert_checksums();
  const std::vector<std::byte> experts = bytes_of(disk, model->experts_path());
  std::set<uint64_t> distinct;
  for (uint64_t record = 0; record < parts.num_records(); ++record) {
    const ExpertRecord& form = parts.record_of(record);
    const auto bytes = std::span(experts).subspan(parts.offset_of(record), form.bytes);
    const auto layer = static_cast<int>(record / 6), expert = static_cast<int>(record % 6);
    EXPECT_EQ(sums[2 * record], part_checksum(model->model_id(), layer, expert, 0,
                                              bytes.subspan(0, form.gate_up_bytes)));
    EXPECT_EQ(sums[2 * record + 1],
              part_checksum(model->model_id(), layer, expert, 1,
                            bytes.subspan(form.down_offset, form.down_bytes)));
    distinct.insert(checksum(bytes, 0).low);
  }
  EXPECT_EQ(distinct.size(), parts.num_records());
}

TEST(Synth, graph_binds_every_tensor_of_every_kind) {
  for (const bool tied : {false, true}) {
    for (const DType dtype : {DType::kBF16, DType::kQ8, DType::kQ4}) {
      SimStorage disk;
      SynthOptions options = small_options();
      options.config.tie_word_embeddings = tied;
      options.config.attention_bias = tied;
      options.experts = options.resident = dtype;
      ASSERT_TRUE(synthesise(disk, options));
      const Container model = *Container::open(disk, "box/model");
      const ModelConfig config = *parse_model_config(model.config(), "config");
      AlignedMemory resident = *AlignedMemory::create(model.resident_bytes(), "weights");
      ASSERT_TRUE(model.load_resident(resident.bytes(), {}));
      const auto bound = bind_model(config, packed_weights(model, resident.bytes()), {});
      EXPECT_TRUE(bound) << bound.error().message;
    }
  }
}

TEST(Synth, a_family_without_delta_nets_and_shared_experts_binds_too) {
  SimStorage disk;
  SynthOptions options = small_options();
  options.config = *config_of(*find_model_shape("30b"), 2);
  options.config.vocab_size = options.config.hidden_size = 128;
  options.config.num_experts = 8;
  options.config.moe_intermediate_size = 64;
  ASSERT_TRUE(synthesise(disk, options));
  const Container model = *Container::open(disk, "box/model");
  const ModelConfig config = *parse_model_config(model.config(), "config");
  EXPECT_EQ(config.model_type, "qwen3_moe");
  AlignedMemory resident = *AlignedMemory::create(model.resident_bytes(), "weights");
  ASSERT_TRUE(model.load_resident(resident.bytes(), {}));
  const auto bound = bind_model(config, packed_weights(model, resident.bytes()), {});
  EXPECT_TRUE(bound) << bound.error().message;
}

TEST(Synth, same_seed_gives_same_bytes_and_another_seed_others) {
  SimStorage first, second, third;
  SynthOptions options = small_options();
  ASSERT_TRUE(synthesise(first, options));
  ASSERT_TRUE(synthesise(second, options));
  options.seed = 2;
  ASSERT_TRUE(synthesise(third, options));
  EXPECT_EQ(all_bytes(first, "box/model"), all_bytes(second, "box/model"));
  EXPECT_NE(bytes_of(first, "box/model/experts.bin"), bytes_of(third, "box/model/experts.bin"));
}

TEST(Synth, stopped_one_is_no_model_and_continues_to_the_same_bytes) {
  SimStorage whole;
  ASSERT_TRUE(synthesise(whole, small_options()));
  int resumed = 0;
  for (const uint64_t after : {1, 3, 9, 20}) {
    SimStorage disk;
    std::stop_source stop;
    uint64_t calls = 0;
    const auto stop_there = [&](const PackProgress&) {
      if (++calls == after) stop.request_stop();
    };
    const Result<PackReport> stopped =
        synthesise_model(disk, small_options(), stop_there, stop.get_token());
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
    EXPECT_FALSE(Container::open(disk, "box/model"));
    EXPECT_FALSE(Container::open(disk, "box/model.partial"));

    const Result<PackReport> continued = synthesise(disk, small_options());
    ASSERT_TRUE(continued) << continued.error().message;
    resumed += continued->resumed_bytes > 0 ? 1 : 0;
    EXPECT_EQ(all_bytes(disk, "box/model"), all_bytes(whole, "box/model"));
    EXPECT_EQ(disk.list("box")->size(), 1u);
  }
  EXPECT_EQ(resumed, 3);  // the first was stopped before its first expert
}

TEST(Synth, power_loss_leaves_no_half_model) {
  SimStorage whole;
  ASSERT_TRUE(synthesise(whole, small_options()));
  const uint64_t calls = whole.calls(SimCall::kAny);
  int struck = 0;
  for (uint64_t after = 0; after < calls; after += 5) {
    SimStorage disk(after);
    disk.inject({.after = after, .times = kForEver});
    if (!synthesise(disk, small_options())) ++struck;
    disk.crash();
    if (Container::open(disk, "box/model")) continue;
    const Result<PackReport> again = synthesise(disk, small_options());
    ASSERT_TRUE(again) << after << ": " << again.error().message;
    EXPECT_EQ(all_bytes(disk, "box/model"), all_bytes(whole, "box/model"));
  }
  EXPECT_GT(struck, 10);
}

TEST(Synth, disk_that_is_too_small_is_refused_before_anything_is_written) {
  SimStorage disk(1, 20 << 20);
  SynthOptions options = small_options();
  options.config = *config_of(*find_model_shape("2.4t"), 0);
  const Result<PackReport> refused = synthesise(disk, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(refused.error().message, HasSubstr("TiB"));
  EXPECT_FALSE(disk.stat("box/model.partial"));
}

TEST(Synth, existing_target_is_left_alone_without_force) {
  SimStorage disk;
  SynthOptions options = small_options();
  ASSERT_TRUE(synthesise(disk, options));
  const std::string before = all_bytes(disk, "box/model");
  options.seed = 2;
  const Result<PackReport> refused = synthesise(disk, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(all_bytes(disk, "box/model"), before);
  options.force = true;
  ASSERT_TRUE(synthesise(disk, options));
  EXPECT_NE(all_bytes(disk, "box/model"), before);
}

TEST(Synth, width_that_no_group_divides_is_refused) {
  SimStorage disk;
  SynthOptions options = small_options();
  options.config.moe_intermediate_size = 96;
  const Result<PackReport> refused = synthesise(disk, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("96"));
}

}  // namespace
}  // namespace penstock
