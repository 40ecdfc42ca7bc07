// Checkpoints that something is wrong with: refused in one sentence that names it, nothing read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "format/test_gguf.h"
#include "source/model_source.h"
#include "source/source_weights.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using namespace std::string_view_literals;
using testing::HasSubstr;

// A recorded case, with its texts and names changed to others of the same length.
class Changed {
 public:
  Changed(const std::string& name, std::string file) : path_("/m") {
    disk_.make_directory(path_).value();
    const std::string folder = std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/sources/" + name;
    const std::vector<std::string> names = posix_storage().list(folder).value();
    for (const std::string& entry : names) {
      test::store(disk_, "/m/" + entry,
                  read_text(posix_storage(), folder + "/" + entry, 1 << 20).value());
    }
    if (!file.empty()) path_ += "/" + file;
  }

  Changed& replace(const std::string& file, std::string_view from, std::string_view to) {
    std::string bytes = read_text(disk_, "/m/" + file, 1 << 20).value();
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    bytes.replace(at, from.size(), to);
    test::store(disk_, "/m/" + file, bytes);
    return *this;
  }
  // Behind a key of a GGUF file and its type.
  Changed& set(const std::string& file, const std::string& key, std::string_view value) {
    std::string bytes = read_text(disk_, "/m/" + file, 1 << 20).value();
    const size_t at = bytes.find(key);
    EXPECT_NE(at, std::string::npos) << key;
    bytes.replace(at + key.size() + sizeof(uint32_t), value.size(), value);
    test::store(disk_, "/m/" + file, bytes);
    return *this;
  }
  Changed& add(const std::string& file, std::string_view bytes) {
    test::store(disk_, "/m/" + file, bytes);
    return *this;
  }

  void expect_refused(ErrorCode code, const char* message) {
    const auto source = ModelSource::open(disk_, path_);
    ASSERT_FALSE(source.has_value()) << message;
    EXPECT_EQ(source.error().code, code) << source.error().message;
    EXPECT_THAT(source.error().message, HasSubstr(message));
    EXPECT_THAT(source.error().message, HasSubstr("/m"));
  }
  ModelSource open() { return ModelSource::open(disk_, path_).value(); }
  // Bytes at the beginning of a row of a resident tensor's plane.
  Changed& poison(const char* tensor, Plane StoredMatrix::*which, uint64_t row,
                  std::string_view bytes) {
    const ModelSource source = ModelSource::open(disk_, path_).value();
    const Plane& plane = source.find(tensor)->ranges.front().matrix.*which;
    const std::string& path = source.files()[plane.file].path;
    std::string file = read_text(disk_, path, 1 << 20).value();
    file.replace(plane.offset + row * plane.row_bytes, bytes.size(), bytes);
    test::store(disk_, path, file);
    return *this;
  }
  void expect_loading_refused(const std::string& message) {
    ModelSource source = ModelSource::open(disk_, path_).value();
    const SourceWeights weights(source);
    AlignedMemory memory = AlignedMemory::create(weights.bytes(), "weights").value();
    const auto loaded = weights.load(source, memory.bytes(), nullptr, {});
    ASSERT_EQ(loaded.has_value(), message.empty()) << message;
    if (loaded) return;
    EXPECT_EQ(loaded.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(loaded.error().message, HasSubstr(message));
  }
  void expect_opened() {
    const auto source = ModelSource::open(disk_, path_);
    EXPECT_TRUE(source.has_value()) << source.error().message;
  }

 private:
  SimStorage disk_;
  std::string path_;
};

Changed mlx() {
  return {"mlx-4", ""};
}
Changed fp8() {
  return {"fp8", ""};
}
Changed gguf() {
  return {"gguf-mtp", "m.gguf"};
}
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kConfig = "config.json";
constexpr const char* kGguf = "m.gguf";

TEST(BadSources, the_cases_themselves_are_good) {
  mlx().expect_opened();
  fp8().expect_opened();
  gguf().expect_opened();
}

TEST(BadSources, fp8_without_its_scales) {
  fp8()
      .replace(kWeights, "layers.1.self_attn.v_proj.weight_scale_inv",
               "layers.1.self_attn.v_proj.weight_scale_xyz")
      .expect_refused(ErrorCode::kCorrupt, "v_proj.weight_scale_inv\" are missing");
}

TEST(BadSources, bits_or_groups_that_do_not_fit_the_shapes) {
  mlx()
      .replace(kConfig, "\"bits\": 4", "\"bits\": 3")
      .expect_refused(ErrorCode::kCorrupt, "3 bits in groups of 32, as config.json says");
  mlx()
      .replace(kConfig, "\"group_size\": 32", "\"group_size\": 64")
      .expect_refused(ErrorCode::kCorrupt, "scales\" has shape");
  mlx()
      .replace(kConfig, "\"group_size\": 32", "\"group_size\": 48")
      .expect_refused(ErrorCode::kCorrupt, "do not fit");
}

TEST(BadSources, mlx_without_scales_or_biases) {
  mlx()
      .replace(kWeights, "layers.1.self_attn.k_proj.biases", "layers.1.self_attn.k_proj.bixxes")
      .expect_refused(ErrorCode::kNotFound, "k_proj.biases");
  mlx()
      .replace(kWeights, "layers.1.self_attn.k_proj.scales", "layers.1.self_attn.k_proj.scxxes")
      .expect_refused(ErrorCode::kUnsupported, "k_proj.weight\" is U32");
}

TEST(BadSources, packed_words_without_a_word_in_the_config) {
  mlx()
      .replace(kConfig, "\"quantization\"", "\"quantisation\"")
      .replace(kConfig, "\"quantization_config\"", "\"quantisation_config\"")
      .expect_refused(ErrorCode::kUnsupported, "is U32");
}

TEST(BadSources, tensors_that_nobody_asked_for) {
  fp8()
      .replace(kWeights, "model.language_model.layers.0.linear_attn.dt_bias",
               "model.language_model.layers.0.linear_attn.dt_bixx")
      .expect_refused(ErrorCode::kNotFound, "dt_bias\" [6] is missing");
  gguf()
      .replace(kGguf, "blk.0.ssm_out.weight", "blk.0.ssm_oxx.weight")
      .expect_refused(ErrorCode::kNotFound, "blk.0.ssm_out.weight");
  gguf()
      .replace(kGguf, "qwen35moe.nextn_predict_layers", "qwen35moe.nextn_predict_layxrs")
      .expect_refused(ErrorCode::kCorrupt, "do not explain");
}

TEST(BadSources, other_ways_of_quantising_before_any_weight_is_read) {
  fp8()
      .replace(kConfig, "\"fp8\"", "\"awq\"")
      .add(kWeights, "not even a safetensors file")
      .expect_refused(ErrorCode::kUnsupported, "quantised with \"awq\"");
  Changed nvidia = fp8();
  nvidia.replace(kConfig, "\"quantization_config\"", "\"quantisation_config\"")
      .add("hf_quant_config.json", "{}")
      .expect_refused(ErrorCode::kUnsupported, "Model Optimizer");
}

TEST(BadSources, keys_of_gguf_that_are_missing_or_wrong) {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "attention.head_count", "expert_count",
        "expert_used_count", "attention.key_length", "expert_feed_forward_length",
        "ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank",
        "ssm.inner_size", "rope.freq_base", "attention.layer_norm_rms_epsilon"}) {
    const std::string whole = std::string("qwen35moe.") + key;
    std::string other = whole;
    other.back() = '_';
    gguf().replace(kGguf, whole, other).expect_refused(ErrorCode::kNotFound, key);
  }
  gguf()
      .replace(kGguf, "general.architecture", "general.architectuxx")
      .expect_refused(ErrorCode::kNotFound, "general.architecture");
  gguf()
      .replace(kGguf, "\x09\0\0\0\0\0\0\0qwen35moe"sv, "\x09\0\0\0\0\0\0\0llama4moe"sv)
      .expect_refused(ErrorCode::kUnsupported, "llama4moe");
  // 7 experts instead of 2: the tensors say otherwise.
  gguf()
      .replace(kGguf, "qwen35moe.expert_count\4\0\0\0\2"sv, "qwen35moe.expert_count\4\0\0\0\7"sv)
      .expect_refused(ErrorCode::kCorrupt, "the keys ask for");
}

// In binary a number can be none, too.
TEST(BadSources, numbers_of_gguf_that_are_out_of_range) {
  const auto bits = [](auto value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  struct Case {
    const char* key;
    std::string value;
    const char* named;
  };
  const Case cases[] = {
      {"block_count", bits(1000000000u), "block_count"},
      {"block_count", bits(0u), "block_count"},
      {"context_length", bits(0u), "context_length"},
      {"embedding_length", bits(1u << 30), "embedding_length"},
      {"attention.head_count", bits(0u), "head_count"},
      {"attention.head_count_kv", bits(3u), "head_count_kv"},
      {"attention.key_length", bits(0u), "key_length"},
      {"expert_count", bits(65537u), "expert_count"},
      {"expert_used_count", bits(0u), "expert_used_count"},
      {"expert_used_count", bits(99u), "expert_used_count"},
      {"expert_feed_forward_length", bits(0u), "expert_feed_forward_length"},
      {"ssm.conv_kernel", bits(0u), "conv_kernel"},
      {"ssm.conv_kernel", bits(17u), "conv_kernel"},
      {"ssm.group_count", bits(0u), "group_count"},
      {"rope.freq_base", bits(nan), "freq_base"},
      {"rope.freq_base", bits(infinite), "freq_base"},
      {"rope.freq_base", bits(0.0f), "freq_base"},
      {"attention.layer_norm_rms_epsilon", bits(nan), "epsilon"},
      {"attention.layer_norm_rms_epsilon", bits(-1e-6f), "epsilon"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key);
    gguf()
        .set(kGguf, std::string("qwen35moe.") + c.key, c.value)
        .expect_refused(ErrorCode::kCorrupt, c.named);
  }
}

TEST(BadSources, texts_of_gguf_that_are_of_another_kind) {
  const auto old = [] { return Changed("gguf-old", "m-00001-of-00003.gguf"); };
  const char* const first = "m-00001-of-00003.gguf";
  old().expect_opened();
  old()
      .replace(first, "\x06\0\0\0\0\0\0\0qwen35"sv, "\x06\0\0\0\0\0\0\0qwen99"sv)
      .expect_refused(ErrorCode::kUnsupported, "tokenizer.ggml.pre \"qwen99\"");
  old().replace(first, "gpt2", "bert").expect_refused(ErrorCode::kUnsupported, "\"bert\"");
  old()
      .replace(first, "tokenizer.ggml.merges", "tokenizer.ggml.merxes")
      .expect_refused(ErrorCode::kNotFound, "tokenizer.ggml.merges");
}

// Not a fault: weights alone, in llama.cpp's words.
TEST(BadSources, a_gguf_file_may_say_that_it_has_no_tokenizer) {
  const char* const first = "m-00001-of-00003.gguf";
  Changed none("gguf-old", first);
  const ModelSource source = none.replace(first, "gpt2", "none").open();
  EXPECT_EQ(source.find_text("tokenizer.json"), nullptr);
  EXPECT_EQ(source.find_text("generation_config.json"), nullptr);
}

TEST(BadSources, resident_scales_that_are_no_numbers_are_refused_when_they_are_loaded) {
  mlx().expect_loading_refused("");
  fp8().expect_loading_refused("");
  Changed("gguf-mixed", "m.gguf").expect_loading_refused("");
  Changed("mlx-mxfp4", "").expect_loading_refused("");
  const std::string half("\x00\x7e", 2), brain("\xc0\x7f", 2), nan8("\x7f", 1);
  Changed("gguf-mixed", "m.gguf")
      .poison("embed_tokens", &StoredMatrix::codes, 11, half)
      .expect_loading_refused(
          "/m/m.gguf: tensor embed_tokens holds what is no number at row 11, "
          "column 0");
  mlx()
      .poison("embed_tokens", &StoredMatrix::biases, 7, brain)
      .expect_loading_refused("/m/model.safetensors: tensor embed_tokens");
  fp8()
      .poison("layers.0.mlp.shared_expert.down_proj", &StoredMatrix::codes, 9, nan8)
      .expect_loading_refused("shared_expert.down_proj holds what is no number at row 9, column 0");
  fp8()
      .poison("layers.0.mlp.shared_expert.down_proj", &StoredMatrix::scales, 0, brain)
      .expect_loading_refused("shared_expert.down_proj holds what is no number at row 0, column 0");
  fp8()
      .poison("embed_tokens", &StoredMatrix::codes, 2, brain)  // BF16 there
      .expect_loading_refused("tensor embed_tokens holds nan at row 2, column 0");
}

TEST(BadSources, what_is_no_model_at_all) {
  SimStorage disk;
  EXPECT_EQ(ModelSource::open(disk, "/none").error().code, ErrorCode::kNotFound);
  disk.make_directory("/empty").value();
  EXPECT_EQ(ModelSource::open(disk, "/empty").error().code, ErrorCode::kNotFound);
  test::store(disk, "/empty/m.gguf", "GGUF");
  EXPECT_THAT(ModelSource::open(disk, "/empty").error().message, HasSubstr("name the file itself"));
  test::store(disk, "/page.gguf", "<!DOCTYPE html>");
  EXPECT_THAT(ModelSource::open(disk, "/page.gguf").error().message, HasSubstr("an HTML page"));
}

}  // namespace
}  // namespace penstock
