// Whether a device gives the bits that the CPU gives: asked of the device itself, before it may
// compute anything that counts.
//
// Drivers differ in what they round, contract and flush, and a specification does not say what one of
// them really does. So every primitive that our kernels are made of runs on many inputs here, the
// edges of their domains among them, and the kernels themselves on small matrices; all of it is
// compared with the CPU bit for bit. One difference, and the device is refused by name.
//
// Threads  as GpuDevice
// Memory   20 bytes for each input, while it runs
// Errors   kIo, kOutOfMemory. Wrong bits are no error but a result: refusal()
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "gpu/gpu_coding.h"
#include "gpu/gpu_device.h"

namespace penstock {

struct BitProbeRow {
  std::string name;  // "reciprocal", "product q4"
  int64_t inputs = 0;
  int64_t wrong = 0;
  std::string example;  // of what is wrong
};

struct BitProbe {
  std::vector<BitProbeRow> rows;

  int64_t inputs() const;
  bool is_right() const;
  std::string refusal() const;  // empty where it is right
};

// At start, and when somebody asks in earnest.
inline constexpr int64_t kProbeInputs = int64_t{1} << 16;
inline constexpr int64_t kProbeInputsMax = int64_t{1} << 20;

// `inputs` for each primitive, a multiple of 64. codings: of the weights that it is to multiply.
Result<BitProbe> probe_bits(GpuDevice& device, int64_t inputs, std::span<const GpuCoding> codings);
// Of common_gpu_codings().
Result<BitProbe> probe_bits(GpuDevice& device, int64_t inputs = kProbeInputs);

}  // namespace penstock
