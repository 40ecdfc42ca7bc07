// Attention on a device (shaders/attention.comp), with the CPU's bits: where there are many rows or many positions,
// the processors are the slower ones.
//
//   attention.note_written(call);                       // whoever computes it
//   if (attention.takes(call)) {
//     cpu.attention(appends alone);                     // keys and values, into the host's cache
//     const bool is_right = PENSTOCK_TRY(attention.run(call, cpu, meanwhile));
//   }
//
// The host has every key and value, and the device copies of those that it was asked for, segment by segment: what
// was written since the last time is brought over before a call. So a device that is lost takes nothing along.
// Norms and rotation of queries are the processors'.
//
// Sums are fused, as those of delta-nets (gpu_delta_net_kernel.h): the device's own where they were seen to be
// right. A call with a number that they may not be right for, subnormal or nearly so, is to be done by the
// processors: run() says so.
//
// Threads  as GpuDevice
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. run(): kIo (the device is lost)
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_delta_net_kernel.h"
#include "gpu/gpu_device.h"
#include "gpu/host_rows.h"

namespace penstock {

struct GpuAttentionLimits {
  AttentionShape shape = {};
  int64_t layers = 0;    // 0: there are none
  int64_t rows = 1;      // tokens of a call
  int64_t context = 0;   // positions of a sequence
  int64_t segments = 0;  // of all layers, that lie there
  // Calls of fewer products of rows and positions are the processors'.
  int64_t work_least = int64_t{1} << 16;
  int64_t groups = 256;                    // of threads that have scratch memory, at most
  DeltaNetSums sums = DeltaNetSums::kOwn;  // others for tests

  uint64_t segment_bytes() const;
};

class GpuAttention {
 public:
  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuAttentionLimits& limits);
  // Whether there are such layers, their heads suit the kernel, and no block of memory would be too large.
  static bool can_be_computed(const GpuAttentionLimits& limits);

  static Result<GpuAttention> create(GpuDevice& device, const GpuAttentionLimits& limits,
                                     HostRows host);

  // The call's rows go, or went, into the host's cache.
  void note_written(const AttentionCall& call);
  // The host changes these floats in another way.
  void forget(const float* begin, int64_t floats);

  bool takes(const AttentionCall& call) const;
  // The host's cache has the call's rows. False: nothing was computed.
  Result<bool> run(const AttentionCall& call, Backend& cpu, const std::function<void()>& meanwhile);
  // Of the last one: the positions that were brought over for it.
  int64_t brought() const { return brought_; }

  // Whether the device's own sums are right, or others were wanted.
  bool pays() const { return sums_ == limits_.sums; }

 private:
  static constexpr int64_t kStaging = 3;  // segments

  // Where in the buffers what lies, each at a multiple of 256 bytes.
  struct Layout {
    int64_t rows = 0;    // of a wave
    int64_t groups = 0;  // of threads at a time
    uint64_t scores = 0, parts = 0, work_end = 0;
    uint64_t queries = 0, gates = 0, segments = 0, inputs_end = 0;
    uint64_t result = 0, doubts = 0, results_end = 0;
    explicit Layout(const GpuAttentionLimits& limits);
  };
  // A segment's copy. Keys and values of all kv heads, as the host has them.
  struct Segment {
    const float* keys = nullptr;  // of the host; nullptr: none
    const float* values = nullptr;
    int64_t positions = 0;  // the first so many are there
    uint64_t last_use = 0;
  };

  GpuAttention(GpuDevice& device, const GpuAttentionLimits& limits, HostRows host);
  Result<void> compile(DeltaNetSums sums);
  Result<bool> agrees();
  Result<std::vector<float>> look_at(const AttentionCall& call);
  int64_t cached_floats() const;  // keys or values of a segment
  uint64_t address_of(size_t segment) const;
  size_t find_or_claim(const float* keys, const float* values);
  Result<void> bring(const AttentionCall& call);
  void write_inputs(const AttentionCall& part, Backend& cpu);
  void record(GpuCommands& commands, const AttentionCall& part) const;

  GpuDevice* device_;
  GpuAttentionLimits limits_;
  HostRows host_;
  Layout layout_;
  DeltaNetSums sums_ = DeltaNetSums::kWhole;
  GpuKernel kernel_, join_;
  int64_t segments_in_block_ = 0;
  std::vector<GpuBuffer> blocks_;  // of segments
  GpuBuffer work_, inputs_, results_, staging_;
  std::vector<Segment> segments_;
  std::unordered_map<const float*, size_t> by_keys_;
  const float *lowest_ = nullptr, *highest_ = nullptr;  // of the host's that were ever copied
  uint64_t uses_ = 0;
  int64_t brought_ = 0;
  std::vector<float> normed_;  // [rows, heads * head_dim]
};

}  // namespace penstock
