// Products of one input with matrices that lie in a device's memory: rows of x go there, rows of
// products come back, with the bits that the CPU gives (fixed16).
//
//   PENSTOCK_TRY(matmul.begin(x, products));     // queued; the host goes on
//   PENSTOCK_TRY(matmul.finish(products));       // waits; the products' outputs are there
//
// One list of commands a call: x in fixed point, a dispatch for each piece of a matrix. The host writes x
// where the device reads it, and the device results where the host does: copies would be steps of their
// own. Rows of many go in calls of rows_at_once(), two of which may be under way: while the host takes in
// the rows of one, the device computes the other. They end in the order in which they began.
//
// Shapes   x [n, in], out [n, rows of the matrix]; in a multiple of 64. Matrices whose columns are
//          stored in another order: all of a call in the same one
// Threads  as GpuDevice; rows are moved by the team
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. begin(), finish(): kIo (the device is lost); the calls are then
//          over, and what is in the outputs is to be computed again
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_matrices.h"
#include "gpu/gpu_products.h"
#include "gpu/host_rows.h"

namespace penstock {

// Of all that is under way at a time.
struct GpuMatmulLimits {
  int64_t rows = 1;     // of x
  int64_t columns = 0;  // of x
  int64_t results = 0;  // floats
  int64_t pieces = 1;   // of matrices, of a call
};

struct GpuProduct {
  Projection projection;
  std::span<const GpuPiece> pieces;  // of its weight
};

class GpuMatmul {
 public:
  // codings: of the matrices of all calls.
  static Result<GpuMatmul> create(GpuDevice& device, const GpuMatmulLimits& limits,
                                  std::span<const GpuCoding> codings, HostRows host = HostRows());

  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuMatmulLimits& limits);
  static constexpr uint64_t kAllocations = 3;
  static constexpr int kCalls = 2;

  // Of so many rows of x, how many one call takes for products of so many columns together; 0: they do
  // not fit. All of few rows; of more at most a half of what there is room for.
  int64_t rows_at_once(int64_t rows, int64_t columns) const;

  // Whether a matrix can be in a call with another one.
  static bool go_together(const Matrix& a, const Matrix& b) {
    return a.coded.order == b.coded.order;
  }

  // At most kCalls begin before the first one is finished, each of at most a half of the room.
  Result<void> begin(Rows x, std::span<const GpuProduct> products);
  // products: those of the first begin() that is not finished. Their outputs are written, with their
  // bias.
  Result<void> finish(std::span<const GpuProduct> products);
  int under_way() const { return under_way_; }
  // What is under way is not asked for any more. It has ended before anything else begins.
  void forget() { under_way_ = 0; }

  // Between calls, for what is to be copied to the device.
  const GpuBuffer& staging() const { return results_; }

 private:
  // Where in the inputs of a call what lies; each at a multiple of 256 bytes.
  struct Layout {
    uint64_t x = 0, list = 0, tiles = 0, end = 0;
    explicit Layout(const GpuMatmulLimits& call);
  };
  // One that is under way, or was.
  struct Call {
    Fence fence = {};
    int64_t rows = 0, tiles_of_piece = 0;
    uint64_t inputs = 0;   // where they begin
    uint64_t results = 0;  // likewise, in bytes
    Layout layout{GpuMatmulLimits{}};
  };

  GpuMatmul(GpuDevice& device, const GpuMatmulLimits& limits, HostRows host);
  void write_inputs(const Call& call, Rows x, std::span<const GpuProduct> products);
  void record(GpuCommands& commands, const Call& call, Rows x,
              std::span<const GpuProduct> products) const;
  void record_packed(GpuCommands& commands, const Call& call, const GpuCoding& packed_for, Rows x,
                     std::span<const GpuProduct> products) const;

  GpuDevice* device_;
  GpuMatmulLimits limits_, half_;
  HostRows host_;
  GpuProducts products_;
  GpuBuffer inputs_;  // x, list and tiles
  GpuBuffer packed_x_;
  GpuBuffer results_;  // the host's

  std::array<Call, kCalls> calls_;
  int next_ = 0, under_way_ = 0;
  bool is_alone_ = false;  // what is under way has more than a half of the room
  Fence last_;             // of what was handed over
  std::vector<GpuRowPair> list_;
  std::vector<GpuTile> tiles_;  // [piece][tile]
};

}  // namespace penstock
