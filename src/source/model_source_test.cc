// Checkpoints of all formats against the values that tools/source_cases.py recorded for them.
#include "source/model_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <vector>

#include "format/test_gguf.h"
#include "format/text.h"
#include "source/normal_tensors.h"
#include "support/sim_storage.h"
#include "text/tokenizer.h"

namespace penstock {
namespace {

using testing::HasSubstr;

struct Case {
  const char* name;
  const char* file;  // "" for a folder
  SourceFormat format;
};
constexpr Case kCases[] = {
    {"gguf-mixed", "m.gguf", SourceFormat::kGguf},
    {"gguf-old", "m-00001-of-00003.gguf", SourceFormat::kGguf},
    {"gguf-mtp", "m.gguf", SourceFormat::kGguf},
    {"gguf-next", "m.gguf", SourceFormat::kGguf},
    {"mlx-4", "", SourceFormat::kMlx},
    {"mlx-mxfp4", "", SourceFormat::kMlx},
    {"fp8", "", SourceFormat::kHuggingFace},
};

std::string folder_of(const std::string& name) {
  return std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/sources/" + name;
}

std::string path_of(const Case& c) {
  return folder_of(c.name) + (*c.file == '\0' ? "" : std::string("/") + c.file);
}

Json expected_of(const Case& c) {
  const std::string path = folder_of(c.name) + "/expected.json";
  return parse_json(read_text(posix_storage(), path, 1 << 20).value(), path).value();
}

ModelSource open(const Case& c) {
  auto source = ModelSource::open(posix_storage(), path_of(c));
  if (!source) throw std::runtime_error(source.error().message);
  return std::move(*source);
}

std::string sum_of(std::span<const float> values) {
  return hex_text(checksum(std::as_bytes(values), 0));
}

class Sources : public testing::TestWithParam<Case> {};

TEST_P(Sources, every_resident_tensor_has_the_recorded_values) {
  ModelSource source = open(GetParam());
  EXPECT_EQ(source.format(), GetParam().format);
  const Json expected = expected_of(GetParam()).at("tensors");
  EXPECT_EQ(source.tensors().size(), expected.size());
  for (const SourceTensor& tensor : source.tensors()) {
    ASSERT_TRUE(expected.contains(tensor.name)) << tensor.name;
    const Json& entry = expected.at(tensor.name);
    EXPECT_EQ(entry[0], Json({tensor.rows, tensor.columns})) << tensor.name;
    EXPECT_EQ(entry[1], name_of(tensor.ranges.front().matrix.coding)) << tensor.name;
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.columns));
    const auto read = source.read_rows(tensor, 0, values);
    ASSERT_TRUE(read.has_value()) << read.error().message;
    EXPECT_EQ(entry[2], sum_of(values)) << tensor.name;
  }
}

TEST_P(Sources, rows_are_the_same_one_by_one) {
  ModelSource source = open(GetParam());
  for (const SourceTensor& tensor : source.tensors()) {
    const auto columns = static_cast<size_t>(tensor.columns);
    std::vector<float> all(static_cast<size_t>(tensor.rows) * columns);
    source.read_rows(tensor, 0, all).value();
    std::vector<float> single(all.size());
    for (int64_t row = 0; row < tensor.rows; ++row) {
      source
          .read_rows(tensor, row,
                     std::span(single).subspan(static_cast<size_t>(row) * columns, columns))
          .value();
    }
    EXPECT_EQ(sum_of(single), sum_of(all)) << tensor.name;
  }
}

TEST_P(Sources, every_part_of_every_expert_has_the_recorded_values) {
  ModelSource source = open(GetParam());
  const Json expected = expected_of(GetParam()).at("experts");
  const int64_t experts = source.config().num_experts;
  EXPECT_EQ(static_cast<int64_t>(expected.size()),
            source.config().num_moe_layers() * experts * kNumExpertParts);
  constexpr std::string_view kNames[] = {"gate", "up", "down"};
  for (size_t layer = 0; layer < source.experts().size(); ++layer) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      for (int part = 0; part < kNumExpertParts; ++part) {
        const StoredMatrix matrix =
            source.experts()[layer][static_cast<ExpertPart>(part)].of(expert);
        const std::string key =
            std::to_string(layer) + "." + std::to_string(expert) + "." + std::string(kNames[part]);
        ASSERT_TRUE(expected.contains(key)) << key;
        EXPECT_EQ(expected.at(key)[0], Json({matrix.rows, matrix.columns})) << key;
        EXPECT_EQ(expected.at(key)[1], name_of(matrix.coding)) << key;
        std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.columns));
        source.read_rows(matrix, 0, values).value();
        EXPECT_EQ(expected.at(key)[2], sum_of(values)) << key;
      }
    }
  }
}

TEST_P(Sources, the_configuration_is_that_of_the_model) {
  const ModelSource source = open(GetParam());
  const Json recorded = expected_of(GetParam()).at("config");
  const ModelConfig expected = parse_model_config(recorded, "expected.json").value();
  const ModelConfig& config = source.config();
  EXPECT_EQ(config.model_type, expected.model_type);
  EXPECT_EQ(config.layer_types, expected.layer_types);
  EXPECT_EQ(config.rms_norm_eps, expected.rms_norm_eps);
  EXPECT_EQ(config.rope.theta, expected.rope.theta);
  EXPECT_EQ(config.rope.partial_rotary_factor, expected.rope.partial_rotary_factor);
  EXPECT_EQ(config.tie_word_embeddings, expected.tie_word_embeddings);
  EXPECT_EQ(config.mtp_num_hidden_layers, expected.mtp_num_hidden_layers);
  const auto numbers = [](const ModelConfig& c) {
    return std::vector<int64_t>{c.vocab_size,
                                c.hidden_size,
                                c.num_hidden_layers,
                                c.num_attention_heads,
                                c.num_key_value_heads,
                                c.head_dim,
                                c.linear_num_key_heads,
                                c.linear_num_value_heads,
                                c.linear_key_head_dim,
                                c.linear_value_head_dim,
                                c.linear_conv_kernel_dim,
                                c.num_experts,
                                c.num_experts_per_tok,
                                c.moe_intermediate_size,
                                c.shared_expert_intermediate_size,
                                c.max_position_embeddings};
  };
  EXPECT_EQ(numbers(config), numbers(expected));
}

TEST_P(Sources, a_file_that_changes_is_noticed) {
  // A copy on a simulated disk, one byte longer after opening.
  SimStorage disk;
  disk.make_directory("/m").value();
  const std::vector<std::string> names = posix_storage().list(folder_of(GetParam().name)).value();
  for (const std::string& name : names) {
    const std::string bytes =
        read_text(posix_storage(), folder_of(GetParam().name) + "/" + name, 1 << 20).value();
    test::store(disk, "/m/" + name, bytes);
  }
  const std::string path = *GetParam().file == '\0' ? "/m" : std::string("/m/") + GetParam().file;
  auto source = ModelSource::open(disk, path);
  ASSERT_TRUE(source.has_value()) << source.error().message;
  EXPECT_TRUE(source->check_unchanged().has_value());
  const std::string file = source->files().front().path;
  disk.open(file, OpenMode::kWrite)
      .value()
      ->write(0, std::as_bytes(std::span("12345678", 8)))
      .value();
  EXPECT_EQ(source->check_unchanged().error().code, ErrorCode::kCorrupt);
  std::vector<float> row(static_cast<size_t>(source->tensors()[0].columns));
  EXPECT_THAT(source->read_rows(source->tensors()[0], 0, row).error().message,
              HasSubstr("changed while it was being read"));
}

INSTANTIATE_TEST_SUITE_P(Formats, Sources, testing::ValuesIn(kCases), [](const auto& c) {
  std::string name = c.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(ModelSource, the_cases_have_what_they_are_for) {
  std::set<std::string> codings;
  bool has_order = false, has_many_ranges = false, has_single = false, has_fused = false;
  bool has_odd_address = false;
  for (const Case& c : kCases) {
    const ModelSource source = open(c);
    for (const SourceTensor& tensor : source.tensors()) {
      const StoredMatrix& matrix = tensor.ranges.front().matrix;
      codings.insert(name_of(matrix.coding));
      has_order = has_order || (!tensor.order.is_natural() && group_columns(matrix.coding) == 256);
      has_many_ranges = has_many_ranges || tensor.ranges.size() > 4;
      has_odd_address = has_odd_address || (matrix.coding.kind == Coding::Kind::kAffine &&
                                            matrix.codes.offset % 4 != 0);
    }
    for (const LayerExperts& layer : source.experts()) {
      for (const ExpertMatrices& part : layer.parts) {
        codings.insert(name_of(part.first.coding));
        has_single = has_single || !part.single.empty();
        has_fused = has_fused || (part.single.empty() &&
                                  part.stride.codes > static_cast<uint64_t>(part.first.rows) *
                                                          part.first.codes.row_bytes);
      }
    }
  }
  EXPECT_TRUE(has_order && has_many_ranges && has_single && has_fused && has_odd_address);
  EXPECT_EQ(codings.size(), 25u + 2 + 1) << "block types, MLX widths (MXFP4 counts once), FP8";
}

TEST(ModelSource, the_tokenizer_of_a_gguf_file_works) {
  const ModelSource source = open(kCases[1]);
  const std::string* json = source.find_text("tokenizer.json");
  ASSERT_NE(json, nullptr);
  const auto tokenizer = Tokenizer::create(*json, "tokenizer.json", source.config().vocab_size);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("abc<|im_end|> a<think>"),
            (std::vector<TokenId>{257, 261, 258, 262}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("z\xc3\xa9\n")), "z\xc3\xa9\n");
  EXPECT_TRUE(tokenizer->is_special(261));
  EXPECT_FALSE(tokenizer->is_special(262));
  EXPECT_TRUE(tokenizer->token_bytes(299).empty()) << "padding is no token";
  EXPECT_EQ(*source.find_text("chat_template.jinja"), "{{ messages[0].content }}");
  const Json generation = parse_json(*source.find_text("generation_config.json"), "g").value();
  EXPECT_EQ(generation, (Json{{"eos_token_id", {261, 259}},
                              {"top_k", 20},
                              {"top_p", 0.95},
                              {"temperature", 0.6},
                              {"do_sample", true}}));
  const Json config = parse_json(*source.find_text("tokenizer_config.json"), "t").value();
  EXPECT_EQ(config, (Json{{"eos_token", "<|im_end|>"}, {"pad_token", "<|endoftext|>"}}));
}

TEST(ModelSource, stop_tokens_of_an_mlx_config_are_kept) {
  const ModelSource source = open(kCases[4]);
  ASSERT_NE(source.find_text("generation_config.json"), nullptr);
  EXPECT_EQ(*source.find_text("generation_config.json"), R"({"eos_token_id":[5,6]})");
}

TEST(NormalTensors, tiled_heads_are_found) {
  ModelConfig config;
  config.linear_num_key_heads = 2;
  config.linear_num_value_heads = 6;
  // Heads of the model, by key head: 0 1 2 | 3 4 5; the file has 0 3 1 4 2 5.
  EXPECT_EQ(tiled_value_heads(config), (std::vector<int64_t>{0, 2, 4, 1, 3, 5}));
}

}  // namespace
}  // namespace penstock
