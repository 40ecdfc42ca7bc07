#include "gpu/gpu_products.h"

#include <array>

#include "base/check.h"

namespace penstock {
namespace {

// As shaders/pack_rows.comp has them.
struct PackArguments {
  uint64_t x, packed, list;
  uint32_t blocks, stride;
};

// As shaders/product.comp has them.
struct ProductArguments {
  uint64_t tiles, list, x, result;
  uint32_t blocks, rows, stride, unused;
};

// Blocks of one thread between two barriers: as many as shared memory has room for (16 KiB everywhere).
constexpr uint32_t kDepthOfOne = 4, kDepthOfMany = 1;

// Threads that share a row of a matrix: a short row is soon done, and many of them would wait for the
// one that adds up.
constexpr uint32_t kParts = 16, kPartsOfShort = 4;
constexpr int64_t kShortBlocks = 16;

// As shaders/product_wide.comp has them: rows of a matrix to a group of threads.
constexpr int64_t kWideRows = 64;

struct KernelShape {
  uint32_t tokens, depth, parts;
  bool is_gated;
};

// In the order of constant_id in shaders/product.comp and shaders/weights.glsl.
std::array<uint32_t, 10> constants_of(const GpuCoding& coding, const KernelShape& shape) {
  const uint32_t numbers = coding.numbers == DType::kBF16  ? 0
                           : coding.numbers == DType::kF16 ? 1
                                                           : 2;
  return {static_cast<uint32_t>(coding.kind),
          shape.tokens,
          shape.depth,
          shape.is_gated ? 1u : 0u,
          shape.parts,
          coding.bits,
          coding.groups(),
          coding.has_minima() ? 1u : 0u,
          numbers,
          coding.scale_columns};
}

uint32_t to_word(int64_t number) {
  PENSTOCK_DCHECK(number >= 0 && number <= 0xffffffffll);
  return static_cast<uint32_t>(number);
}

}  // namespace

Result<GpuProducts> GpuProducts::create(GpuDevice& device, std::span<const GpuProductUse> uses) {
  GpuProducts products;
  for (const GpuProductUse& use : uses) PENSTOCK_TRY(products.add(device, use));
  return products;
}

Result<void> GpuProducts::add(GpuDevice& device, const GpuProductUse& use) {
  PENSTOCK_CHECK(use.coding.is_there());
  const uint32_t fours = use.coding.fours_in_word();
  if (!pack_.contains(fours)) {
    pack_[fours] = PENSTOCK_TRY(device.kernel(Shader::kPackRows, {&fours, 1}));
  }
  const auto constants = [&](uint32_t tokens, uint32_t depth, uint32_t parts) {
    return constants_of(use.coding, {tokens, depth, parts, use.is_gated});
  };
  const auto compile = [&](uint32_t tokens, uint32_t depth, uint32_t parts) {
    return device.kernel(Shader::kProduct, constants(tokens, depth, parts));
  };
  // A block of four terms takes twice the room of one of two.
  const uint32_t share = use.coding.addends() / 2;
  Kernels& kernels = multiply_[{use.coding, use.is_gated}];
  kernels.one = PENSTOCK_TRY(compile(1, kDepthOfOne / share, kParts));
  kernels.many = PENSTOCK_TRY(compile(kTileTokens, kDepthOfMany, kParts / share));
  kernels.wide = PENSTOCK_TRY(device.kernel(Shader::kProductWide, constants(kWideTokens, 1, 1)));
  if (!use.is_gated) {
    kernels.one_short = PENSTOCK_TRY(compile(1, kDepthOfOne, kPartsOfShort));
  }
  return {};
}

void GpuProducts::pack(GpuCommands& commands, const Pack& call) const {
  PENSTOCK_CHECK(call.columns % kGroupColumns == 0);
  const int64_t blocks = call.columns / kGroupColumns;
  PENSTOCK_DCHECK(call.x % 16 == 0 && call.stride % 4 == 0);
  commands.dispatch(
      pack_.at(call.coding.fours_in_word()),
      PackArguments{call.x, call.packed, call.list, to_word(blocks), to_word(call.stride)},
      {to_word((blocks + 15) / 16), to_word(call.rows)});
}

void GpuProducts::multiply(GpuCommands& commands, const Multiply& call) const {
  PENSTOCK_CHECK(call.columns % kGroupColumns == 0);
  PENSTOCK_CHECK(call.tile_tokens >= 1 && call.tile_tokens <= kWideTokens);
  const Kernels& kernels = multiply_.at({call.coding, call.is_gated});
  const bool is_short = !call.is_gated && call.columns / kGroupColumns <= kShortBlocks;
  const bool is_wide = call.tile_tokens > kTileTokens;
  const GpuKernel& of_one = is_short ? kernels.one_short : kernels.one;
  const GpuKernel& of_some = is_wide ? kernels.wide : kernels.many;
  const int64_t group_rows = is_wide ? kWideRows : kPanelRows;
  commands.dispatch(call.tile_tokens > 1 ? of_some : of_one,
                    ProductArguments{call.tiles, call.list, call.packed, call.result,
                                     to_word(call.columns / kGroupColumns), to_word(call.rows),
                                     to_word(call.stride), 0},
                    {to_word((call.rows + group_rows - 1) / group_rows), call.num_tiles});
}

}  // namespace penstock
