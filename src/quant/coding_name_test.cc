#include "quant/coding_name.h"

#include <gtest/gtest.h>

#include "quant/block_decode.h"

namespace penstock {
namespace {

TEST(CodingName, every_coding_that_can_be_decoded_is_read_back) {
  std::vector<Coding> codings = {{.kind = Coding::Kind::kMlxMxfp4}};
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const auto type = static_cast<BlockType>(i);
    if (is_decodable(type)) codings.push_back({.block = type});
  }
  for (const DType scale : {DType::kBF16, DType::kF16, DType::kF32}) {
    codings.push_back({.kind = Coding::Kind::kFp8, .scale = scale});
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int64_t group : {32, 64, 128}) {
        codings.push_back({.kind = Coding::Kind::kAffine, .affine = {bits, group, scale}});
      }
    }
  }
  EXPECT_GT(codings.size(), 80u);
  for (const Coding& coding : codings) {
    const std::string name = exact_name(coding);
    const auto parsed = parse_coding(name);
    ASSERT_TRUE(parsed.has_value()) << name;
    EXPECT_EQ(*parsed, coding) << name;
  }
}

TEST(CodingName, what_is_none_is_none) {
  for (const char* name : {"",
                           "q4",
                           "Q4",
                           "q4_k",
                           "I8",
                           "Q8_K",
                           "NVFP4",
                           "affine",
                           "affine:4",
                           "affine:4:64",
                           "affine:4:64:bf16:",
                           "affine:4:64:q8",
                           "affine:1:64:bf16",
                           "affine:4:64 :bf16",
                           "affine:4:+64:bf16",
                           "affine:4:65537:bf16",
                           "affine:3:1:bf16",
                           "fp8",
                           "fp8:",
                           "fp8:q4",
                           "fp8:bf16:",
                           "mlx",
                           "mlx:mxfp8",
                           ":",
                           ":::"}) {
    EXPECT_FALSE(parse_coding(name).has_value()) << name;
  }
}

}  // namespace
}  // namespace penstock
