// Products of one input with matrices that lie in a device's memory: rows of x go there, rows of
// products come back, with the bits that the CPU gives (fixed16).
//
//   PENSTOCK_TRY(matmul.begin(x, products));     // queued; the host goes on
//   PENSTOCK_TRY(matmul.finish(products));       // waits; the products' outputs are there
//
// One list of commands a call: x in fixed point, a dispatch for each piece of a matrix. The device reads
// x from the host's memory and writes results there: copies would be steps of their own, and a step
// costs more than so few bytes. At most rows_at_once() rows of x fit into a call.
//
// Shapes   x [n, in], out [n, rows of the matrix]; in a multiple of 64. Matrices whose columns are
//          stored in another order: all of a call in the same one
// Threads  as GpuDevice
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. begin(), finish(): kIo (the device is lost); the call is then
//          over, and what is in the outputs is to be computed again
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_matrices.h"
#include "gpu/gpu_products.h"

namespace penstock {

// What the largest call will need.
struct GpuMatmulLimits {
  int64_t rows = 1;     // of x
  int64_t columns = 0;  // of x
  int64_t results = 0;  // floats
  int64_t pieces = 1;   // of matrices
};

struct GpuProduct {
  Projection projection;
  std::span<const GpuPiece> pieces;  // of its weight
};

class GpuMatmul {
 public:
  // codings: of the matrices of all calls.
  static Result<GpuMatmul> create(GpuDevice& device, const GpuMatmulLimits& limits,
                                  std::span<const GpuCoding> codings);

  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuMatmulLimits& limits);
  static constexpr uint64_t kAllocations = 3;

  // How many rows of x one call takes for products of so many columns together; 0: they do not fit.
  int64_t rows_at_once(int64_t columns) const {
    return std::min(limits_.rows, limits_.results / columns);
  }

  // Whether a matrix can be in a call with another one.
  static bool go_together(const Matrix& a, const Matrix& b) {
    return a.coded.order == b.coded.order;
  }

  Result<void> begin(Rows x, std::span<const GpuProduct> products);
  // products: those of begin(). Their outputs are written, with their bias.
  Result<void> finish(std::span<const GpuProduct> products);

  // Between calls, for what is to be copied to the device.
  const GpuBuffer& staging() const { return results_; }

 private:
  // Where in the block of inputs of a call what lies; each at a multiple of 256 bytes.
  struct Layout {
    uint64_t x = 0, list = 0, tiles = 0, end = 0;
    explicit Layout(const GpuMatmulLimits& call);
  };

  GpuMatmul(GpuDevice& device, const GpuMatmulLimits& limits);
  void write_inputs(Rows x, std::span<const GpuProduct> products);
  void record(GpuCommands& commands, Rows x, std::span<const GpuProduct> products) const;
  void record_packed(GpuCommands& commands, const GpuCoding& packed_for, Rows x,
                     std::span<const GpuProduct> products) const;

  GpuDevice* device_;
  GpuMatmulLimits limits_;
  Layout layout_;
  GpuProducts products_;
  GpuBuffer inputs_, results_;  // the host's; x, list and tiles
  GpuBuffer packed_x_;

  // Of the call.
  std::vector<GpuRowPair> list_;
  std::vector<GpuTile> tiles_;  // [piece][tile]
  int64_t rows_ = 0, tiles_of_piece_ = 0;
  Fence fence_;
};

}  // namespace penstock
