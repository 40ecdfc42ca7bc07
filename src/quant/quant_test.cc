#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "quant/affine_groups.h"
#include "quant/block_decode.h"
#include "quant/block_type.h"
#include "quant/codebook_blocks.h"
#include "quant/fp8.h"

namespace penstock {
namespace {

TEST(BlockType, names_and_numbers_are_distinct_and_found_again) {
  std::set<std::string_view> names;
  std::set<uint32_t> ids;
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const auto type = static_cast<BlockType>(i);
    const BlockLayout& layout = layout_of(type);
    EXPECT_EQ(layout.type, type);
    EXPECT_TRUE(names.insert(layout.name).second) << layout.name;
    EXPECT_TRUE(ids.insert(layout.gguf_id).second) << layout.name;
    EXPECT_EQ(block_type_of_gguf(layout.gguf_id), type);
    EXPECT_TRUE(withdrawn_gguf_type(layout.gguf_id).empty());
  }
  for (uint32_t id = 0; id < 60; ++id) {
    const bool is_both = !withdrawn_gguf_type(id).empty() && block_type_of_gguf(id).has_value();
    EXPECT_FALSE(is_both) << id;
  }
  EXPECT_FALSE(block_type_of_gguf(42).has_value());
  EXPECT_FALSE(block_type_of_gguf(UINT32_MAX).has_value());
}

TEST(BlockType, bytes_of_a_row) {
  EXPECT_EQ(bytes_of(layout_of(BlockType::kQ4K), 512), 288);
  EXPECT_EQ(bytes_of(layout_of(BlockType::kF32), 7), 28);
}

TEST(Fp8, every_code_is_the_number_of_the_standard) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 127) == 127) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    EXPECT_EQ(std::fabs(value), magnitude) << code;
    EXPECT_EQ(std::signbit(value), code >= 128) << code;
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_f32(0x38), 1.0f);
}

TEST(Fp8, a_row_of_two_squares_and_a_half) {
  std::vector<std::byte> codes(320, std::byte{0x38});  // 1.0
  codes[319] = std::byte{0xb8};
  const uint16_t scales[3] = {f32_to_bf16(0.5f), f32_to_bf16(3.0f), f32_to_bf16(-0.25f)};
  std::vector<float> values(320);
  decode_fp8_row(codes, DType::kBF16, std::as_bytes(std::span(scales)), values);
  EXPECT_EQ(values[127], 0.5f);
  EXPECT_EQ(values[128], 3.0f);
  EXPECT_EQ(values[256], -0.25f);
  EXPECT_EQ(values[319], 0.25f);
  const float wide[3] = {1, 2, 0.3f};
  decode_fp8_row(codes, DType::kF32, std::as_bytes(std::span(wide)), values);
  EXPECT_EQ(values[318], 0.3f);
}

TEST(Codebook, the_scale_of_mxfp4_is_a_power_of_two_at_both_ends) {
  EXPECT_EQ(half_of_e8m0(0), std::ldexp(1.0f, -128));
  EXPECT_EQ(half_of_e8m0(1), std::ldexp(1.0f, -127));
  EXPECT_EQ(half_of_e8m0(2), std::ldexp(1.0f, -126));
  EXPECT_EQ(half_of_e8m0(127), 0.5f);
  EXPECT_EQ(half_of_e8m0(255), std::ldexp(1.0f, 127));
}

TEST(AffineGroups, codes_are_one_stream_of_bits) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    ASSERT_TRUE(are_affine_bits(bits));
    // Written bit by bit, read code by code.
    std::vector<std::byte> stream(static_cast<size_t>(8 * bits));
    const auto code_at = [&](int i) { return (i * 37 + 5) % (1 << bits); };
    for (int i = 0; i < 64; ++i) {
      for (int bit = 0; bit < bits; ++bit) {
        const int at = i * bits + bit;
        if ((code_at(i) >> bit & 1) != 0)
          stream[static_cast<size_t>(at / 8)] |= std::byte{1} << (at % 8);
      }
    }
    std::vector<std::byte> written(stream.size());
    for (int i = 0; i < 64; ++i) {
      EXPECT_EQ(affine_code(stream, bits, i), static_cast<uint32_t>(code_at(i)))
          << bits << " " << i;
      put_affine_code(written, bits, i, static_cast<uint32_t>(code_at(i)));
    }
    EXPECT_EQ(written, stream) << bits;
  }
  EXPECT_FALSE(are_affine_bits(7) || are_affine_bits(1) || are_affine_bits(0));
}

TEST(BlockDecode, what_is_no_weight_is_not_decoded) {
  for (const BlockType type :
       {BlockType::kI8, BlockType::kI16, BlockType::kI32, BlockType::kI64, BlockType::kF64,
        BlockType::kQ8_1, BlockType::kQ8K, BlockType::kNvfp4, BlockType::kQ1_0}) {
    EXPECT_FALSE(is_decodable(type)) << name_of(type);
  }
}

}  // namespace
}  // namespace penstock
