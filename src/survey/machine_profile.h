// The measured rates of a machine, kept in a JSON file: what `doctor` writes and `plan` reads.
//
// Where the file lies is the caller's matter. A profile of another machine is a fine thing to plan
// with ("how fast would it be there?"); differences() of host/machine.h says that it is one.
//
// Errors  load_profile(): kNotFound; kCorrupt naming file and key when a value is missing or out of
//         its range, or a knob is unknown; kUnsupported for another version of the file. save_profile(): kIo,
//         kOutOfMemory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "engine/knobs.h"
#include "host/machine.h"
#include "io/storage.h"
#include "survey/cost_model.h"
#include "survey/gpu_card.h"

namespace penstock {

inline constexpr int kProfileVersion = 2;

struct FlashPoint {
  uint64_t read_bytes = 0;  // of one request
  int depth = 0;            // requests in flight
  bool is_direct = false;
  double gbps = 0;
  double p50_us = 0, p99_us = 0;  // of one request, from submission to end
};

// Reads submitted together to a disk at rest, as a layer's missing experts are.
struct BurstPoint {
  uint64_t read_bytes = 0;  // of one request
  int reads = 0;
  double us = 0;  // until the last has ended
};

struct MemoryPoint {
  int threads = 0;
  double read_gbps = 0;
  double copy_gbps = 0;  // bytes copied per second: each is read and written
};

// Blocks as large as parts of experts, in any order, from pages of both sizes.
struct PagePoint {
  double small_gbps = 0;    // 0: not measured
  double largest_gbps = 0;  // the largest pages that the system gives, as the engine has them
  bool differ = false;      // each of two turns of the faster one was faster than both of the other
};

// The engine's product in one number format.
struct KernelPoint {
  std::string dtype;         // "q4"
  double token_gbps = 0;     // weights per second, one token
  double prompt_gflops = 0;  // many tokens
  double pause_us = 0;       // one token after a pause, as for the disk, takes so much longer
};

struct MachineProfile {
  std::string date;     // "2026-11-22T13:20:00Z"
  std::string version;  // of penstock
  MachineIdentity machine;
  DiskIdentity disk;    // empty: flash was not measured
  std::string reader;   // "io_uring, depth 64"
  std::string compute;  // "AVX3, 16 threads"
  std::vector<FlashPoint> flash;
  std::vector<BurstPoint> bursts;  // direct reads where there are any
  double sustained_gbps = 0;       // over sustained_s; 0: not measured
  double sustained_s = 0;
  std::vector<MemoryPoint> memory;
  PagePoint pages;
  std::vector<KernelPoint> kernels;
  double op_us = 0;                // of one op on next to no data
  std::vector<GpuCard> gpus;       // whose rates were measured
  std::vector<KnobSetting> knobs;  // that won here (lab/auto); the others are built in
};

Json to_json(const MachineProfile& profile);
Result<MachineProfile> parse_profile(const Json& json, const std::string& what);

Result<MachineProfile> load_profile(Storage& storage, const std::string& path);
// All of it or nothing: written beside `path` and renamed. Its folder is made where missing.
Result<void> save_profile(Storage& storage, const std::string& path, const MachineProfile& profile);

// The point that is nearest to what the engine does: reads of about `read_bytes`, direct where
// there are any, the best depth. nullptr when flash was not measured.
const FlashPoint* flash_near(const MachineProfile& profile, uint64_t read_bytes);

// Rates for the cost model. kNotFound when the profile lacks flash, memory or a kernel.
Result<MachineRates> rates_of(const MachineProfile& profile, uint64_t read_bytes, DType experts);

}  // namespace penstock
