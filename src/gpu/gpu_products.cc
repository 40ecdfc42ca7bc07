#include "gpu/gpu_products.h"

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

uint32_t to_word(int64_t number) {
  PENSTOCK_DCHECK(number >= 0 && number <= 0xffffffffll);
  return static_cast<uint32_t>(number);
}

}  // namespace

Result<GpuProducts> GpuProducts::create(GpuDevice& device) {
  GpuProducts products;
  for (const DType dtype : kTypes) {
    const auto bits = static_cast<uint32_t>(bits_of(dtype));
    const uint32_t of_pack[] = {bits};
    products.pack_[index_of(dtype)] = PENSTOCK_TRY(device.kernel(Shader::kPackRows, of_pack));
    for (const uint32_t is_gated : {0u, 1u}) {
      auto& kernels = products.multiply_[index_of(dtype)][is_gated];
      const uint32_t of_one[] = {bits, 1, kDepthOfOne, is_gated, kParts};
      const uint32_t of_many[] = {bits, kTileTokens, kDepthOfMany, is_gated, kParts};
      kernels[0] = PENSTOCK_TRY(device.kernel(Shader::kProduct, of_one));
      kernels[1] = PENSTOCK_TRY(device.kernel(Shader::kProduct, of_many));
    }
    const uint32_t of_short[] = {bits, 1, kDepthOfOne, 0, kPartsOfShort};
    products.multiply_short_[index_of(dtype)] =
        PENSTOCK_TRY(device.kernel(Shader::kProduct, of_short));
  }
  return products;
}

void GpuProducts::pack(GpuCommands& commands, const Pack& call) const {
  PENSTOCK_CHECK(has_gpu_product(call.dtype) && call.columns % kGroupColumns == 0);
  const int64_t blocks = call.columns / kGroupColumns;
  commands.dispatch(
      pack_[index_of(call.dtype)],
      PackArguments{call.x, call.packed, call.list, to_word(blocks), to_word(call.stride)},
      {to_word((blocks + 15) / 16), to_word(call.rows)});
}

void GpuProducts::multiply(GpuCommands& commands, const Multiply& call) const {
  PENSTOCK_CHECK(has_gpu_product(call.dtype) && call.columns % kGroupColumns == 0);
  PENSTOCK_CHECK(call.tile_tokens >= 1 && call.tile_tokens <= kTileTokens);
  const auto& kernels = multiply_[index_of(call.dtype)][call.is_gated ? 1 : 0];
  const bool is_short =
      call.tile_tokens == 1 && !call.is_gated && call.columns / kGroupColumns <= kShortBlocks;
  commands.dispatch(
      is_short ? multiply_short_[index_of(call.dtype)] : kernels[call.tile_tokens > 1 ? 1 : 0],
      ProductArguments{call.tiles, call.list, call.packed, call.result,
                       to_word(call.columns / kGroupColumns), to_word(call.rows),
                       to_word(call.stride), 0},
      {to_word((call.rows + kPanelRows - 1) / kPanelRows), call.num_tiles});
}

}  // namespace penstock
