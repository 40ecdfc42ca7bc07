// How fast a device is: what it reads, what goes over to it and back, how soon it answers, what its
// kernels make of it.
//
// Threads  as GpuDevice
// Memory   buffer_bytes of the device's, 64 MiB of the host's, while it runs
// Errors   kOutOfMemory, kIo, kCancelled
#pragma once

#include <cstdint>
#include <stop_token>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "gpu/gpu_device.h"

namespace penstock {

struct GpuRatesOptions {
  uint64_t buffer_bytes = uint64_t{512} << 20;  // more than its caches hold; at most kGpuBlockMax
  double seconds = 0.3;                         // of each measurement
};

struct GpuRates {
  double read_gbps = 0;       // a kernel that only reads
  double to_device_gbps = 0;  // copies of 8 MiB, many at a time
  double from_device_gbps = 0;
  double round_trip_us = 0;  // the smallest piece of work, handed over and waited for; median
  double round_trip_p99_us = 0;
  double dispatch_us = 0;  // one more dispatch behind a barrier
};
Json to_json(const GpuRates& rates);
Result<GpuRates> measure_gpu(GpuDevice& device, const GpuRatesOptions& options,
                             const std::stop_token& stop);

// Experts of a token, one layer after the other, as they come in an answer: from the device's memory,
// never the same ones twice in a row.
struct GpuExpertCase {
  DType dtype = DType::kQ4;
  int64_t hidden_size = 4096, expert_width = 1024;
  int experts = 10;  // of a token
  int rows = 1;      // through each expert
};
struct GpuExpertRate {
  double layer_us = 0;                 // one layer's experts, with packing, in a list of many
  double gbps = 0;                     // of weights
  double gproducts = 0;                // weights times rows, 10^9 a second
  double gate_up_us = 0, down_us = 0;  // the two products by themselves
  double share_of_read = 0;            // of read_gbps, measured just before
};
// Rows of a prompt through a matrix that every token needs, with packing, in a list of several.
struct GpuMatmulCase {
  DType dtype = DType::kQ4;
  int64_t rows = 12288, columns = 2048;  // of the matrix
  int64_t tokens = 512;
};
struct GpuMatmulRate {
  double own_us = 0;     // with x and results in the device's memory
  double linked_us = 0;  // as an engine has them: x where the host writes, results in its memory
  double gproducts = 0;  // weights times tokens, 10^9 a second, of own_us
};
Result<GpuMatmulRate> measure_gpu_matmul(GpuDevice& device, const GpuMatmulCase& what,
                                         const GpuRatesOptions& options,
                                         const std::stop_token& stop);

Result<GpuExpertRate> measure_gpu_experts(GpuDevice& device, const GpuExpertCase& what,
                                          const GpuRatesOptions& options,
                                          const std::stop_token& stop);

}  // namespace penstock
