#include "quant/block_type.h"

#include <array>

#include "base/check.h"

namespace penstock {
namespace {

using enum BlockType;

// In the order of the enumeration.
constexpr std::array<BlockLayout, kNumBlockTypes> kLayouts = {{
    {kF32, "F32", 0, 1, 4},
    {kF16, "F16", 1, 1, 2},
    {kBF16, "BF16", 30, 1, 2},
    {kF64, "F64", 28, 1, 8},
    {kI8, "I8", 24, 1, 1},
    {kI16, "I16", 25, 1, 2},
    {kI32, "I32", 26, 1, 4},
    {kI64, "I64", 27, 1, 8},
    {kQ4_0, "Q4_0", 2, 32, 18},
    {kQ4_1, "Q4_1", 3, 32, 20},
    {kQ5_0, "Q5_0", 6, 32, 22},
    {kQ5_1, "Q5_1", 7, 32, 24},
    {kQ8_0, "Q8_0", 8, 32, 34},
    {kQ8_1, "Q8_1", 9, 32, 36},
    {kQ2K, "Q2_K", 10, 256, 84},
    {kQ3K, "Q3_K", 11, 256, 110},
    {kQ4K, "Q4_K", 12, 256, 144},
    {kQ5K, "Q5_K", 13, 256, 176},
    {kQ6K, "Q6_K", 14, 256, 210},
    {kQ8K, "Q8_K", 15, 256, 292},
    {kIq1S, "IQ1_S", 19, 256, 50},
    {kIq1M, "IQ1_M", 29, 256, 56},
    {kIq2Xxs, "IQ2_XXS", 16, 256, 66},
    {kIq2Xs, "IQ2_XS", 17, 256, 74},
    {kIq2S, "IQ2_S", 22, 256, 82},
    {kIq3Xxs, "IQ3_XXS", 18, 256, 98},
    {kIq3S, "IQ3_S", 21, 256, 110},
    {kIq4Nl, "IQ4_NL", 20, 32, 18},
    {kIq4Xs, "IQ4_XS", 23, 256, 136},
    {kTq1_0, "TQ1_0", 34, 256, 54},
    {kTq2_0, "TQ2_0", 35, 256, 66},
    {kMxfp4, "MXFP4", 39, 32, 17},
    {kNvfp4, "NVFP4", 40, 64, 36},
    {kQ1_0, "Q1_0", 41, 128, 18},
}};

constexpr bool is_in_order() {
  for (size_t i = 0; i < kLayouts.size(); ++i) {
    if (static_cast<size_t>(kLayouts[i].type) != i) return false;
  }
  return true;
}
static_assert(is_in_order());

struct Withdrawn {
  uint32_t gguf_id;
  std::string_view name;
};
constexpr std::array<Withdrawn, 8> kWithdrawn = {{{4, "Q4_2"},
                                                  {5, "Q4_3"},
                                                  {31, "Q4_0_4_4"},
                                                  {32, "Q4_0_4_8"},
                                                  {33, "Q4_0_8_8"},
                                                  {36, "IQ4_NL_4_4"},
                                                  {37, "IQ4_NL_4_8"},
                                                  {38, "IQ4_NL_8_8"}}};

}  // namespace

const BlockLayout& layout_of(BlockType type) {
  const auto index = static_cast<size_t>(type);
  PENSTOCK_CHECK(index < kLayouts.size());
  return kLayouts[index];
}

std::optional<BlockType> block_type_of_gguf(uint32_t gguf_id) {
  for (const BlockLayout& layout : kLayouts) {
    if (layout.gguf_id == gguf_id) return layout.type;
  }
  return std::nullopt;
}

std::string_view withdrawn_gguf_type(uint32_t gguf_id) {
  for (const Withdrawn& type : kWithdrawn) {
    if (type.gguf_id == gguf_id) return type.name;
  }
  return {};
}

}  // namespace penstock
