// Experts that lie in a device's memory, computed there: rows of x go to the device, rows of experts
// come back, with the bits that the CPU gives (fixed16).
//
//   PENSTOCK_TRY(experts.take(shape, x));       // x is read
//   PENSTOCK_TRY(experts.begin(works));         // queued; the host goes on
//   PENSTOCK_TRY(experts.finish(out));          // waits
//
// One list of commands a call: x in fixed point (the first time), gate and up, hidden in fixed point,
// down. The host writes x and lists where the device reads them, and the device results where the host
// does: copies would be steps of their own. Lists of a large call, which every block of a matrix looks at,
// are copied. Many rows go in calls of rows_at_once(), two of which may be under way: while the host takes
// in the rows of one, the device computes the other. They end in the order in which they began. Which rows
// share a tile, and where a result lies, follows from the call; what a row becomes does not depend on it.
//
// Shapes   x [n, H], hidden [places, I], out [n * K, H]; H and I multiples of 64
// Threads  as GpuDevice; rows are moved by the team
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. take(), begin(), finish(): kIo (the device is lost); all calls
//          are then over, and nothing of those that were not finished is in `out`
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_products.h"
#include "gpu/host_rows.h"

namespace penstock {

// Of all that is under way at a time.
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
                                   std::span<const GpuExpertShape> shapes,
                                   HostRows host = HostRows());

  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuExpertLimits& limits);
  static constexpr uint64_t kAllocations = 7;
  static constexpr int kCalls = 2;

  // Of so many rows of results, how many one call takes: all, or of many a half of the room.
  int64_t rows_at_once(int64_t rows) const;
  // Of a call beside others.
  int64_t rows_beside() const { return half_of(limits_.places); }
  // Whether a call of so many can begin now.
  bool has_room(int64_t rows) const {
    return under_way_ == 0 || (under_way_ < kCalls && rows <= rows_beside() && !is_alone_);
  }

  // x: of the host, for all calls until the next one. No call is under way.
  Result<void> take(const GpuExpertShape& shape, Rows x);

  // At most kCalls begin before the first one is finished, each of at most a half of the room. The
  // works' spans are read here; their matrices, which the host has seen arrive, stay as they are until
  // the call has ended.
  Result<void> begin(std::span<const GpuExpertWork> works);

  // Of the first begin() that is not finished. out: of the host; only the rows at the works' places
  // are written.
  Result<void> finish(Rows out);
  int under_way() const { return under_way_; }
  // Whether finish() would not wait.
  Result<bool> has_ended() const;
  // In place of finish(): waits for all, and their results are lost.
  Result<void> drop();

 private:
  // Where in the lists of a call what lies; each at a multiple of 256 bytes.
  struct Layout {
    uint64_t gate_up_list = 0, down_list = 0, gate_up_tiles = 0, down_tiles = 0, end = 0;
    explicit Layout(int64_t places);
  };
  // One that is under way, or was.
  struct Call {
    Fence fence = {};
    Layout layout{0};
    uint64_t lists = 0, results = 0;  // where they begin, in bytes
    std::vector<GpuRowPair> pairs;    // token and place, by row of the results
  };
  // Of the call that begins, those for one kernel.
  struct Tiles {
    uint32_t tokens = 1;  // of a tile, at most
    std::vector<GpuTile> gate_up, down;
  };

  GpuExperts(GpuDevice& device, const GpuExpertLimits& limits, const GpuProducts& products,
             HostRows host);
  static int64_t half_of(int64_t places);
  const Call& oldest() const;
  void write_lists(Call& call, std::span<const GpuExpertWork> works);
  void add_tiles(const GpuExpertWork& work, uint32_t first);
  void record(GpuCommands& commands, const Call& call);
  void record_product(GpuCommands& commands, GpuProducts::Multiply call, uint64_t tiles) const;

  GpuDevice* device_;
  GpuExpertLimits limits_;
  HostRows host_;
  GpuProducts products_;
  GpuBuffer x_, lists_;  // inputs; lists with their tiles
  GpuBuffer results_;    // the host's
  GpuBuffer own_lists_;  // of a large call
  GpuBuffer packed_x_, hidden_, packed_hidden_;

  GpuExpertShape shape_;
  int64_t tokens_ = 0;      // of x
  bool is_packed_ = false;  // x is

  std::array<Call, kCalls> calls_;
  int next_ = 0, under_way_ = 0;
  bool is_alone_ = false;  // what is under way has more than a half of the room
  Fence last_;             // of what was handed over
  std::array<Tiles, 3> tiles_;
};

}  // namespace penstock
