// Experts that lie in a device's memory, computed there: rows of x go to the device, rows of experts
// come back, with the bits that the CPU gives (fixed16).
//
//   PENSTOCK_TRY(experts.begin(shape, x, works));    // queued; the host goes on
//   PENSTOCK_TRY(experts.finish(out));               // waits; out has a row for each place
//
// One list of commands a call: x in fixed point, gate and up, hidden in fixed point, down. The device
// reads x and lists from the host's memory and writes results there: copies would be steps of their
// own, and a step costs more than so few bytes. Lists of a large call, which every block of a matrix
// looks at, are copied. Which rows share a tile, and where a result lies,
// follows from the call; what a row becomes does not depend on it.
//
// Shapes   x [n, H], hidden [places, I], out [n * K, H]; H and I multiples of 64
// Threads  as GpuDevice
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. begin(), finish(): kIo (the device is lost); the call is
//          then over, and nothing of it is in `out`
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_products.h"

namespace penstock {

// What the largest call will need.
struct GpuExpertLimits {
  int64_t tokens = 1;        // rows of x
  int64_t places = 1;        // rows of results: at most tokens * K
  int64_t hidden_size = 0;   // H
  int64_t expert_width = 0;  // I
};

struct GpuExpertShape {
  GpuCoding gate_up = {}, down = {};
  int64_t hidden_size = 0, expert_width = 0;

  bool can_be_computed() const {
    return gate_up.is_there() && down.is_there() && hidden_size % kGroupColumns == 0 &&
           expert_width % kGroupColumns == 0;
  }
};

// One expert on the device and the rows that go through it: ExpertWork, with addresses.
struct GpuExpertWork {
  GpuPlanes gate = {}, up = {}, down = {};
  int64_t up_first_row = 0;
  std::span<const int32_t> tokens = {};  // rows of x
  std::span<const int32_t> places = {};  // rows of out
};

class GpuExperts {
 public:
  // shapes: of all calls; sizes do not matter.
  static Result<GpuExperts> create(GpuDevice& device, const GpuExpertLimits& limits,
                                   std::span<const GpuExpertShape> shapes);

  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuExpertLimits& limits);

  // x: of the host. The works' spans are read here; their matrices, which the host has seen arrive,
  // stay as they are until the call has ended.
  Result<Fence> begin(const GpuExpertShape& shape, Rows x, std::span<const GpuExpertWork> works);

  // out: of the host; only the rows at the works' places are written.
  Result<void> finish(Rows out);
  // In its place: waits, and the results are lost.
  Result<void> drop() { return device_->compute().wait(fence_); }

 private:
  // Where in the block of inputs of a call what lies; each at a multiple of 256 bytes.
  struct Layout {
    uint64_t x = 0, gate_up_list = 0, down_list = 0, gate_up_tiles = 0, down_tiles = 0, end = 0;
    explicit Layout(const GpuExpertLimits& call);
    uint64_t list_bytes() const { return end - gate_up_list; }  // and tiles
  };

  GpuExperts(GpuDevice& device, const GpuExpertLimits& limits, const GpuProducts& products);
  void write_x(Rows x);
  void write_tiles(std::span<const GpuExpertWork> works);
  void add_tiles(const GpuExpertWork& work, uint32_t first, bool alone);
  void record(GpuCommands& commands, const GpuExpertShape& shape, int64_t tokens) const;
  void record_product(GpuCommands& commands, GpuProducts::Multiply call, uint64_t tiles) const;

  GpuDevice* device_;
  GpuExpertLimits limits_;
  Layout layout_;
  GpuProducts products_;
  GpuBuffer inputs_, results_;  // the host's; x, lists and tiles
  GpuBuffer lists_;             // of a large call, and its tiles
  GpuBuffer packed_x_, hidden_, packed_hidden_;

  // Of the call.
  std::vector<GpuRowPair> pairs_;                    // token and place, by row of the results
  std::vector<GpuTile> gate_up_tiles_, down_tiles_;  // those of one row first
  uint32_t lone_tiles_ = 0;
  Fence fence_;
  int64_t rows_ = 0, results_width_ = 0;
};

}  // namespace penstock
