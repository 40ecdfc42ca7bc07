// Doctor: measures this machine once, with the engine's own reader and kernels, and says what
// hurts.
//
// Flash over block size and depth, direct and buffered, on the model's own experts; memory by
// number of threads; the products at the model's shapes; the GPUs. Takes about a minute, unless asked
// to watch the disk for longer (drives slow down when they get warm).
//
// Threads  the caller's, and teams that live for one measurement
// Memory   at most memory_bytes at a time
// Errors   kNotFound, kIo (the experts file), kOutOfMemory, kCancelled
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "io/reader.h"
#include "io/storage.h"
#include "model/config.h"
#include "survey/gpu_survey.h"
#include "survey/machine_findings.h"
#include "survey/machine_profile.h"

namespace penstock {

struct DoctorOptions {
  ModelConfig config;        // whose shapes the products have
  DType dtype = DType::kQ4;  // of the experts' panels, or as wide as their codes
  uint64_t part_bytes = 0;   // of the engine's reads
  std::string experts_path;  // empty: flash is not measured
  int threads = 0;           // 0: one per processor
  ReaderOptions reader;
  std::string simd_target;    // empty: the best
  uint64_t memory_bytes = 0;  // 0: an eighth of what is available, at most 1 GiB
  double point_s = 0.5;       // of each measurement
  double sustained_s = 0;     // of the disk, after all else
  bool looks_at_gpus = true;
  std::string version;  // of the program, for the profile
};

struct DoctorReport {
  MachineProfile profile;
  std::vector<Finding> findings;
  GpuSurvey gpus;
};
Json to_json(const DoctorReport& report);

// `on_step` is called before each measurement with what comes; may be empty.
using DoctorObserver = std::function<void(const std::string& what, int done, int total)>;

Result<DoctorReport> examine(Storage& storage, const DoctorOptions& options,
                             const DoctorObserver& on_step, std::stop_token stop);

}  // namespace penstock
