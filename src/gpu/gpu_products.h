// Products of quantised matrices on a device, with the bits of compute/panel.h (fixed16).
//
// Rows are packed into fixed point first, for the type of the weights that they will meet; then one
// dispatch does the products of any number of matrices, a tile for each matrix and up to kTileTokens
// rows. Both only write commands: barriers between them are the caller's.
//
//   products.pack(commands, {...});
//   commands.barrier();
//   products.multiply(commands, {...});
//
// Shapes   matrices [rows, columns] in panels, columns a multiple of 64
// Threads  as GpuDevice
// Memory   addresses are the caller's buffers'
// Errors   create(): kIo, kOutOfMemory (the driver, when it compiles)
#pragma once

#include <array>
#include <cstdint>

#include "base/dtype.h"
#include "base/result.h"
#include "gpu/gpu_device.h"

namespace penstock {

// What shaders/product.comp can multiply.
constexpr bool has_gpu_product(DType dtype) {
  return is_quantised(dtype);
}

// Bytes of a row in fixed point: blocks of 64 columns (shaders/fixed.glsl).
inline constexpr int64_t kGpuFixedBlockBytes = 144;
constexpr int64_t gpu_fixed_row_bytes(int64_t columns) {
  return columns / kGroupColumns * kGpuFixedBlockBytes;
}

// A pair of rows of a product: of x, and of the result.
struct GpuRowPair {
  uint32_t x = 0, result = 0;
};

// A matrix and the pairs of rows that go through it.
struct GpuTile {
  uint64_t matrix = 0;  // address of its panels; of a gated product, the gate's
  uint64_t up = 0;
  uint32_t first = 0, count = 0;  // of the list of pairs
  uint32_t up_first_row = 0, unused = 0;
};
static_assert(sizeof(GpuTile) == 32);

// Tiles have one row, or up to this many.
inline constexpr uint32_t kTileTokens = 8;

class GpuProducts {
 public:
  static Result<GpuProducts> create(GpuDevice& device);

  struct Pack {
    DType dtype = DType::kQ4;  // of the weights
    uint64_t x = 0;            // f32 [.., stride]
    uint64_t packed = 0;       // [.., columns / 64] blocks
    uint64_t list = 0;         // of GpuRowPairs, whose `result` is the row to pack; 0: all rows
    int64_t columns = 0, stride = 0, rows = 0;
  };
  void pack(GpuCommands& commands, const Pack& call) const;

  struct Multiply {
    DType dtype = DType::kQ4;
    bool is_gated = false;     // exact_silu(gate x) * (up x)
    uint32_t tile_tokens = 1;  // the largest count of a tile
    uint64_t tiles = 0, list = 0, packed = 0;
    uint64_t result = 0;  // f32 [.., stride]
    int64_t columns = 0, rows = 0, stride = 0;
    uint32_t num_tiles = 0;
  };
  void multiply(GpuCommands& commands, const Multiply& call) const;

 private:
  static constexpr DType kTypes[] = {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2};
  static size_t index_of(DType dtype) { return static_cast<size_t>(dtype) - 3; }
  static_assert(static_cast<size_t>(DType::kQ8) == 3 && static_cast<size_t>(DType::kQ2) == 6);

  std::array<GpuKernel, 4> pack_;
  std::array<std::array<std::array<GpuKernel, 2>, 2>, 4> multiply_;  // [type][gated][one, many]
  std::array<GpuKernel, 4> multiply_short_;  // [type]: one row, few columns, not gated
};

}  // namespace penstock
