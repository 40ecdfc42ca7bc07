// The kernel of the delta-net op (shaders/delta_net.comp), with the bits of the CPU's.
//
// Its sums are fused, and its numbers may be subnormal. A device's own fused sums need not be the processors',
// and devices may take subnormal numbers for zeros. Of whole numbers everything is right on every device, but
// some twenty times as slow (one H200). So where a device was seen to give the processors' bits for numbers that
// are not subnormal, the kernel computes as the device does, and the delta rule once more of whole numbers where
// it may have met a subnormal one. A second kernel of whole numbers follows, and does the heads once more in
// which anything else may have. All of it is compared on one op before that: a driver may do in one kernel what
// it does not do in another.
//
//   const auto kernel = PENSTOCK_TRY(GpuDeltaNetKernel::create(device, shape));
//   const GpuDeltaNetKernel::Call calls[] = {{.qkv = ..., .rows = 1}};
//   kernel.run(commands, calls);
//
// Threads  as GpuDevice
// Memory   what the comparison takes, while it runs; addresses of calls are the caller's buffers'
// Errors   create(): kIo, kOutOfMemory
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_device.h"

namespace penstock {

// Floats of the weights as the kernel has them: convolution, decay, dt_bias, norm.
int64_t delta_net_weight_floats(const DeltaNetShape& shape);
// Of what comes into a state with a row: inputs of the convolution, b, a.
int64_t delta_net_journal_floats(const DeltaNetShape& shape);

// Of what the steps of many rows hand on with a row (shaders/delta_between.glsl).
int64_t delta_net_between_floats(const DeltaNetShape& shape);

// Whether the device's own fused sums, products and sums have the CPU's bits, but for subnormal numbers.
Result<bool> has_right_fused(GpuDevice& device, int64_t inputs);

// How the kernel computes; by the numbers of shaders/delta_net.comp. kPretended: whole numbers that are lost
// as a device loses subnormal ones, for tests of what is then done.
enum class DeltaNetSums : uint8_t { kWhole, kOwn, kPretended };

class GpuDeltaNetKernel {
 public:
  // Whether a kernel can be made for heads of this shape.
  static bool suits(const DeltaNetShape& shape);
  static bool suits_many(const DeltaNetShape& shape);  // those of run_many()

  GpuDeltaNetKernel() = default;
  // wanted: kOwn, and kWhole where that is not right. for_many: with the kernels of run_many().
  static Result<GpuDeltaNetKernel> create(GpuDevice& device, const DeltaNetShape& shape,
                                          DeltaNetSums wanted, bool for_many);

  // Addresses. A state is its history, and its memory memory_at floats behind. `before` is none that is
  // written, by this call or another one of the same run.
  struct Call {
    uint64_t qkv = 0, z = 0, b = 0, a = 0;  // f32 [rows, ..], rows side by side
    uint64_t result = 0;                    // f32 [rows, value_heads * value_dim]
    uint64_t weights = 0;
    uint64_t before = 0, after = 0;
    uint64_t ahead = 0;    // 0: no row is on trial; else rows is at least 2
    uint64_t journal = 0;  // f32 [rows, delta_net_journal_floats()]: is written
    uint64_t lost = 0;     // u32 [value_heads], the kernels' own: of each call its own
    int64_t rows = 0, memory_at = 0;
  };
  // Calls that have nothing to do with each other.
  void run(GpuCommands& commands, std::span<const Call> calls) const;

  // Of one sequence, none on trial. Addresses as above; `between` and `lost` are the kernels' own.
  struct ManyCall {
    uint64_t qkv = 0, z = 0, b = 0, a = 0, result = 0, weights = 0;
    uint64_t history_before = 0, history_after = 0;  // not the same, but of one tap
    uint64_t memory_before = 0, memory_after = 0;    // may be the same
    uint64_t between = 0;                            // f32 [rows, delta_net_between_floats()]
    uint64_t lost = 0;                               // u32 [rows, value_heads]
    int64_t rows = 0;
  };
  void run_many(GpuCommands& commands, const ManyCall& call) const;
  bool has_many() const { return has_many_; }

  DeltaNetSums sums() const { return sums_; }

 private:
  // What is subnormal or nearly so, every third number of it.
  enum class Tiny : uint8_t { kNothing, kStates, kInputs };
  // A way to do rows, for comparison.
  enum class Way : uint8_t { kWhole, kFew, kMany };
  Result<std::vector<float>> look_at(GpuDevice& device, Way way, Tiny tiny) const;
  Result<bool> agrees(GpuDevice& device, Way way) const;
  Result<void> compile_many(GpuDevice& device);
  void dispatch(GpuCommands& commands, const GpuKernel& kernel, const Call& call) const;
  void dispatch_ends(GpuCommands& commands, const GpuKernel& own, const GpuKernel& whole,
                     const ManyCall& call) const;

  DeltaNetShape shape_;
  GpuKernel kernel_, whole_;
  GpuKernel keys_, whole_keys_, norm_, whole_norm_, rule_;  // of many rows
  DeltaNetSums sums_ = DeltaNetSums::kWhole;
  bool has_many_ = false;
};

}  // namespace penstock
