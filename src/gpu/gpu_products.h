// Products of quantised matrices on a device, with the bits of compute/panel.h and
// compute/coded_panels.h (fixed16).
//
// Rows are packed into fixed point first, for the coding of the weights that they will meet; then one
// dispatch does the products of any number of matrices, a tile for each matrix and some rows. Kernels
// are for tiles of one row, of up to kTileTokens, which share a row of a matrix out among many
// threads, and of up to kWideTokens, which unpack weights once for all of them. Both only write
// commands: barriers between them are the caller's.
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

#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "base/result.h"
#include "gpu/gpu_coding.h"
#include "gpu/gpu_device.h"

namespace penstock {

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
  GpuPlanes matrix;  // of a gated product, the gate's
  GpuPlanes up = {};
  uint32_t first = 0, count = 0;  // of the list of pairs
  uint32_t up_first_row = 0, unused = 0;
};
static_assert(sizeof(GpuTile) == 64);

// Tiles have one row, or up to this many; wide ones more.
inline constexpr uint32_t kTileTokens = 8, kWideTokens = 32;

// How many rows of a matrix go together into tiles of at most kWideTokens, as even as can be; of few
// into tiles of at most kTileTokens.
constexpr uint32_t tile_tokens_for(uint32_t rows) {
  if (rows <= kTileTokens) return kTileTokens;
  const uint32_t tiles = (rows + kWideTokens - 1) / kWideTokens;
  return (rows + tiles - 1) / tiles;
}

constexpr int64_t tiles_for(int64_t rows) {
  const int64_t each = tile_tokens_for(static_cast<uint32_t>(rows));
  return (rows + each - 1) / each;
}

// What will be asked: kernels are compiled for that alone.
struct GpuProductUse {
  GpuCoding coding = {};
  bool is_gated = false;
};

class GpuProducts {
 public:
  static Result<GpuProducts> create(GpuDevice& device, std::span<const GpuProductUse> uses);

  struct Pack {
    GpuCoding coding = {};  // of the weights
    uint64_t x = 0;         // f32 [.., stride], rows at multiples of 16 bytes
    uint64_t packed = 0;    // [.., columns / 64] blocks
    uint64_t list = 0;      // of GpuRowPairs, whose `result` is the row to pack; 0: all rows
    int64_t columns = 0, stride = 0, rows = 0;
  };
  void pack(GpuCommands& commands, const Pack& call) const;

  struct Multiply {
    GpuCoding coding = {};
    bool is_gated = false;     // exact_silu(gate x) * (up x)
    uint32_t tile_tokens = 1;  // the largest count of a tile
    uint64_t tiles = 0, list = 0, packed = 0;
    uint64_t result = 0;  // f32 [.., stride]
    int64_t columns = 0, rows = 0, stride = 0;
    uint32_t num_tiles = 0;
  };
  void multiply(GpuCommands& commands, const Multiply& call) const;

 private:
  // Kernels for one row, for up to kTileTokens, and for up to kWideTokens.
  struct Kernels {
    GpuKernel one, many, wide;
    GpuKernel one_short;  // few columns; not of gated ones
  };
  using Key = std::pair<GpuCoding, bool>;  // is it gated

  Result<void> add(GpuDevice& device, const GpuProductUse& use);

  std::map<uint32_t, GpuKernel> pack_;  // by fours in a word
  std::map<Key, Kernels> multiply_;
};

}  // namespace penstock
