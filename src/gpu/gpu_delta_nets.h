// Whole delta-net mixers on a device: projections, the op between them and the projection of what it gives are
// one list of commands, and rows of x go there and rows of y come back. The bits are the CPU's (fixed16).
//
//   if (nets.takes(block, pieces)) {
//     PENSTOCK_TRY(nets.begin(block, pieces));   // queued; the host goes on
//     PENSTOCK_TRY(nets.finish(block));          // waits; y and the states after the rows are there
//   }
//
// Calls of many rows, as prompts have them, go in waves, two of which are under way:
//
//   if (nets.takes_many(block, pieces)) PENSTOCK_TRY(nets.run_many(block, pieces, end_op));
//
// States lie on the device (gpu_states.h). The host's come up to date when somebody asks, and every
// kJournalRows rows; until then what came into them is kept here, a sixtieth of a state for each row. So a
// device that is lost takes nothing along: recover() has the processors do these rows once more. Of many rows
// nothing is kept: the host's states are up to date before them and after them.
//
// Threads  as GpuDevice
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. Others: kIo (the device is lost); the call is then over, recover()
//          comes next, and the block is to be computed again
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_delta_net_kernel.h"
#include "gpu/gpu_matrices.h"
#include "gpu/gpu_products.h"
#include "gpu/gpu_states.h"
#include "gpu/host_rows.h"

namespace penstock {

struct GpuDeltaNetLimits {
  DeltaNetShape shape = {};
  int64_t layers = 0;     // 0: there are none
  int64_t rows = 1;       // of a call
  int64_t wave_rows = 0;  // of calls of more: so many at a time; 0: those are the processors'
  // Of a layer, that lie there: two for each sequence of a call, three where a row may be on trial.
  int64_t states = 0;
  int64_t hidden_size = 0;                 // of x and y
  DeltaNetSums sums = DeltaNetSums::kOwn;  // others for tests

  GpuStatesShape of_states() const;
  // Whether there are such layers, and their heads suit the kernel.
  bool can_be_computed() const;
};

// Where the matrices of a block lie, in the order of its inputs. Of b and a there may be none: the
// processors' rows are taken then.
struct GpuBlockPieces {
  std::span<const GpuPiece> qkv, z, b, a, output;
};

class GpuDeltaNets {
 public:
  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuDeltaNetLimits& limits);

  // codings: of the matrices of all calls.
  static Result<GpuDeltaNets> create(GpuDevice& device, const GpuDeltaNetLimits& limits,
                                     std::span<const GpuCoding> codings, HostRows host);

  // Of few rows.
  bool takes(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const;
  Result<void> begin(const DeltaNetBlock& block, const GpuBlockPieces& pieces);
  Result<void> finish(const DeltaNetBlock& block);

  // Of any number, none on trial. meanwhile: called while the device is at work.
  bool takes_many(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const;
  Result<void> run_many(const DeltaNetBlock& block, const GpuBlockPieces& pieces,
                        const std::function<void()>& meanwhile);
  // How many of them go together, in the mean.
  int64_t rows_of_waves(const DeltaNetBlock& block) const;
  // Whether the layer's small weights lie there; a call that brings them takes longer.
  bool knows(const DeltaNetBlock& block) const {
    return layers_.contains(block.calls[0].weights.conv);
  }

  // The host settles before it looks at floats that are of a state which was written there alone, and before
  // it changes floats that are needed: of such a state, or of one that such a state would be made of once more.
  bool is_awaited(const float* begin, int64_t floats) const;
  bool needs(const float* begin, int64_t floats) const;
  Result<void> settle();
  // It will change these.
  void forget(const float* begin, int64_t floats) { states_->forget(begin, floats); }
  // As soon as the device is seen to be lost: the host's states are whole after it.
  void recover(Backend& cpu);

  // Whether the device's own sums are right, or others were wanted: otherwise the processors are faster.
  bool pays() const { return kernel_.sums() == limits_.sums; }

 private:
  static constexpr int64_t kJournalRows = 32;
  static constexpr int kWaves = 2;  // under way

  // Where in the buffers what lies; each at a multiple of 256 bytes. x, y and the like of all rows.
  struct Layout {
    uint64_t packed_x = 0, qkv = 0, z = 0, b = 0, a = 0, mixed = 0, lost = 0, packed_mixed = 0,
             end = 0;                             // of the device's
    uint64_t weights = 0;                         // of calls of few rows, there too
    uint64_t between = 0;                         // of a wave, there too
    std::array<uint64_t, kWaves> histories = {};  // of a wave, there too
    uint64_t x = 0, host_b = 0, host_a = 0, list = 0, tiles = 0,
             inputs_end = 0;          // of what the host writes
    uint64_t new_weights = 0;         // of calls of few rows
    uint64_t y = 0, results_end = 0;  // of what it reads
    uint64_t journal = 0;             // of calls of few rows
    Layout(const GpuDeltaNetLimits& limits, int64_t rows, bool is_wave);
  };
  // The buffers of a call.
  struct Place {
    const Layout& layout;
    uint64_t work = 0;  // its address
    const GpuBuffer& inputs;
    const GpuBuffer& results;

    std::byte* input(uint64_t offset) const { return inputs.host_bytes().data() + offset; }
    const std::byte* result(uint64_t offset) const { return results.host_bytes().data() + offset; }
    // Rows of the two small projections, whoever made them.
    uint64_t b(const GpuBlockPieces& pieces) const {
      return pieces.b.empty() ? inputs.address() + layout.host_b : work + layout.b;
    }
    uint64_t a(const GpuBlockPieces& pieces) const {
      return pieces.a.empty() ? inputs.address() + layout.host_a : work + layout.a;
    }
  };
  // Room for those of many rows.
  struct Waves {
    Layout layout;
    GpuBuffer work;
    std::array<GpuBuffer, kWaves> inputs, results;
    std::array<Fence, kWaves> fences;
  };
  // What a call of a layer did to a state, for as long as the host's is older.
  struct Owed {
    int64_t layer = 0;
    DeltaNetWeights weights;
    DeltaNetState before, after, ahead;
    int64_t first = 0, rows = 0;  // of the layer's journal
  };

  GpuDeltaNets(GpuDevice& device, const GpuDeltaNetLimits& limits, HostRows host);
  int64_t layer_of(GpuCommands& commands, const DeltaNetWeights& weights);
  uint64_t weights_at(int64_t layer) const;
  void note(const DeltaNetState& state);
  void note_written(int64_t layer);
  bool has_room(int64_t layer, const DeltaNetBlock& block);
  Result<void> settle(int64_t layer);
  Place few() const { return {layout_, work_.address(), inputs_, results_}; }
  Place wave(int which) const;
  bool suits(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const;
  void write_inputs(const Place& at, const DeltaNetBlock& block,
                    const GpuBlockPieces& pieces) const;
  struct BlockMatrix;
  void multiply(GpuCommands& commands, const Place& at, int64_t rows, const BlockMatrix& matrix,
                uint64_t packed, uint64_t tile) const;
  void record_inputs(GpuCommands& commands, const Place& at, const DeltaNetBlock& block,
                     const GpuBlockPieces& pieces) const;
  void record_op(GpuCommands& commands, const DeltaNetBlock& block, const GpuBlockPieces& pieces,
                 int64_t layer);
  void record_output(GpuCommands& commands, const Place& at, const DeltaNetBlock& block,
                     const GpuBlockPieces& pieces) const;
  void take_results(const Place& at, Rows y) const;
  Result<void> make_waves();
  // Rows of a call of the block that go together.
  struct Wave {
    const DeltaNetCall* call = nullptr;
    int64_t first = 0, rows = 0;  // of the block's
    int64_t number = 0;           // in its call
    bool is_last = false;         // of its call
  };
  std::vector<Wave> waves_of(const DeltaNetBlock& block) const;
  Result<void> begin_wave(GpuCommands& commands, const DeltaNetBlock& part,
                          const GpuBlockPieces& pieces, const Wave& wave, int which);
  float* journal_of(int64_t layer, int64_t row);

  GpuDevice* device_;
  GpuDeltaNetLimits limits_;
  HostRows host_;
  Layout layout_;
  GpuDeltaNetKernel kernel_;
  GpuProducts products_;
  std::optional<GpuStates> states_;
  GpuBuffer work_, inputs_, results_;
  std::optional<Waves> waves_;
  uint64_t before_ = 0, after_ = 0;  // states of the call whose waves are under way
  std::unordered_map<const float*, int64_t> layers_;  // by their convolution
  std::vector<Owed> owed_;                            // in the order of the calls
  std::vector<float> journals_;       // [layer][kJournalRows]: what came into states of these
  std::vector<int64_t> rows_in_use_;  // of a layer's journal
  std::vector<float> answers_;        // of what recover() does again: nobody's
  // Of the call.
  std::vector<GpuDeltaNetKernel::Call> calls_;
  std::vector<DeltaNetState> noted_;  // each once
  int64_t layer_ = 0;
  Fence fence_;
};

}  // namespace penstock
