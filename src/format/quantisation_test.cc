#include "format/quantisation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock {
namespace {

using testing::HasSubstr;

Result<Quantisation> read(std::string_view json) {
  return read_quantisation(parse_json(json, "config.json").value(), "config.json");
}

TEST(Quantisation, plain_weights_need_no_word) {
  EXPECT_EQ(read("{}")->kind, Quantisation::Kind::kNone);
  EXPECT_EQ(read(R"({"quantization_config":null})")->kind, Quantisation::Kind::kNone);
}

TEST(Quantisation, fp8_is_known_in_squares_of_128) {
  const auto fp8 = read(R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3",
      "weight_block_size":[128,128],"activation_scheme":"dynamic"}})");
  EXPECT_EQ(fp8->kind, Quantisation::Kind::kFp8);
  // Some writers put it where the language model is described.
  const auto nested = read(R"({"text_config":{"quantization_config":{"quant_method":"fp8",
      "weight_block_size":[128,128]}}})");
  EXPECT_EQ(nested->kind, Quantisation::Kind::kFp8);
  EXPECT_THAT(read(R"({"quantization_config":{"quant_method":"fp8"}})").error().message,
              HasSubstr("FP8 in blocks of whole tensors"));
  EXPECT_THAT(read(R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[1,128]}})")
                  .error()
                  .message,
              HasSubstr("[1,128]"));
  EXPECT_THAT(read(R"({"quantization_config":{"quant_method":"fp8","fmt":"e5m2",
                       "weight_block_size":[128,128]}})")
                  .error()
                  .message,
              HasSubstr("e5m2"));
}

TEST(Quantisation, both_forms_of_mlx_are_read) {
  for (
      const char* json :
      {R"({"quantization":{"group_size":32,"bits":6,"mode":"affine"}})",
       R"({"quantization_config":{"group_size":32,"bits":6}})",
       R"({"quantization":{"group_size":32,"bits":6},"quantization_config":{"group_size":32,"bits":6}})"}) {
    const auto mlx = read(json);
    ASSERT_TRUE(mlx.has_value()) << mlx.error().message;
    EXPECT_EQ(mlx->kind, Quantisation::Kind::kMlx);
    EXPECT_EQ(mlx->of("any").group, 32);
    EXPECT_EQ(mlx->of("any").bits, 6);
    EXPECT_FALSE(mlx->of("any").is_mxfp4);
  }
}

TEST(Quantisation, modules_of_mlx_have_their_own) {
  const auto mlx = read(R"({"quantization":{"group_size":32,"bits":4,"mode":"mxfp4",
      "a.gate":{"group_size":64,"bits":8,"mode":"affine"},"b":true,"c":false,
      "d":{"bits":5,"mode":"affine"}}})");
  ASSERT_TRUE(mlx.has_value()) << mlx.error().message;
  EXPECT_TRUE(mlx->of("b").is_mxfp4);
  EXPECT_TRUE(mlx->of("unnamed").is_mxfp4);
  EXPECT_EQ(mlx->of("a.gate").bits, 8);
  EXPECT_EQ(mlx->of("a.gate").group, 64);
  EXPECT_FALSE(mlx->of("a.gate").is_mxfp4);
  EXPECT_EQ(mlx->of("d").bits, 5);
  EXPECT_EQ(mlx->of("d").group, 32);
}

TEST(Quantisation, others_are_refused_by_their_name_and_told_what_to_do) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"quantization_config":{"quant_method":"gptq","bits":4,"group_size":128}})", "gptq"},
      {R"({"quantization_config":{"quant_method":"awq","bits":4,"group_size":128}})", "awq"},
      {R"({"quantization_config":{"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"}})",
       "compressed-tensors (nvfp4-pack-quantized)"},
      {R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true}})",
       "bitsandbytes"},
      {R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"}})",
       "modelopt (NVFP4)"},
      {R"({"quantization_config":{"quant_algo":"NVFP4"}})", "NVFP4"},
      {R"({"quantization_config":{"quant_method":"mxfp4"}})", "mxfp4"},
      {R"({"quantization_config":{"load_in_8bit":true}})", "no name there"},
      {R"({"text_config":{"quantization_config":{"quant_method":"auto-round"}}})", "auto-round"},
      {R"({"quantization":{"group_size":32,"bits":8,"mode":"mxfp8"}})", "MLX mode \"mxfp8\""},
      {R"({"quantization":{"group_size":16,"bits":4,"mode":"nvfp4"}})", "MLX mode \"nvfp4\""},
  };
  for (const auto& [json, name] : cases) {
    const auto refused = read(json);
    ASSERT_FALSE(refused.has_value()) << json;
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported) << json;
    EXPECT_THAT(refused.error().message, HasSubstr(name));
    EXPECT_THAT(refused.error().message, HasSubstr("use the model's BF16"));
  }
}

TEST(Quantisation, numbers_of_mlx_are_checked) {
  for (const char* json : {R"({"quantization":{"group_size":64,"bits":7}})",
                           R"({"quantization":{"group_size":64,"bits":1}})",
                           R"({"quantization":{"group_size":64,"bits":4,"mode":"mxfp4"}})",
                           R"({"quantization":{"group_size":64,"bits":4,"m":{"bits":9}}})"}) {
    EXPECT_EQ(read(json).error().code, ErrorCode::kUnsupported) << json;
  }
  for (const char* json :
       {R"({"quantization":{"group_size":0,"bits":4}})",
        R"({"quantization":{"group_size":64,"bits":"4"}})", R"({"quantization":4})",
        R"({"quantization_config":[1]})", R"({"quantization_config":{"quant_method":5}})"}) {
    EXPECT_EQ(read(json).error().code, ErrorCode::kCorrupt) << json;
  }
}

}  // namespace
}  // namespace penstock
