// Short measurements of this machine with the engine's own means: its reader on its own files, its
// team of threads, its products at a model's shapes.
//
// Each runs for about the time it is given and stops early when asked to.
//
// Threads  the caller's; memory and products also use a team made for the measurement
// Memory   freed on return; the largest is said at each function
// Errors   kOutOfMemory (no room for the buffers), kIo (a read failed), kCancelled (stop)
#pragma once

#include <cstdint>
#include <stop_token>

#include "base/dtype.h"
#include "base/result.h"
#include "io/reader.h"
#include "model/config.h"
#include "survey/machine_profile.h"

namespace penstock {

struct FlashCase {
  uint64_t read_bytes = 0;  // a multiple of kDirectAlignmentMax
  int depth = 1;            // at most the reader's capacity
  double seconds = 0.5;
};

// Reads of one size, spread over the whole file so that none comes twice before all came once; a
// buffered file is dropped from the page cache before each round. Holds depth * read_bytes.
// kInvalidArgument: the file is shorter than one read.
Result<FlashPoint> probe_flash(Reader& reader, const StorageFile& file, const FlashCase& how,
                               std::stop_token stop);

// Bursts of so many reads, submitted together after a pause in which the disk has nothing to do:
// the median time until the last has ended. Holds reads * read_bytes.
struct BurstCase {
  uint64_t read_bytes = 0;  // a multiple of kDirectAlignmentMax
  int reads = 1;            // at most the reader's capacity
  double seconds = 0.5;
};
Result<BurstPoint> probe_burst(Reader& reader, const StorageFile& file, const BurstCase& how,
                               std::stop_token stop);

// Reading, then copying, `buffer_bytes` in turns; more than the caches hold, or it measures them.
Result<MemoryPoint> probe_memory(int threads, uint64_t buffer_bytes, double seconds,
                                 std::stop_token stop);

// Reading blocks of half of `buffer_bytes` in shuffled order, from small pages and from the largest
// that the system gives, in turns.
Result<PagePoint> probe_pages(int threads, uint64_t buffer_bytes, double seconds,
                              std::stop_token stop);

// One token through its experts, without and with pauses, then a prompt of 512 through as many rows
// per expert as uniform routing gives. Holds buffer_bytes of experts (at least those of one token)
// and activations.
struct KernelCase {
  ModelConfig config;
  DType dtype = DType::kQ4;
  int threads = 1;
  std::string simd_target;  // empty: the best
  uint64_t buffer_bytes = 0;
  double seconds = 0.5;  // for each of the three
};
Result<KernelPoint> probe_kernel(const KernelCase& how, std::stop_token stop);

// Microseconds to hand a loop with next to nothing in it to the team and have it back.
double probe_dispatch_us(int threads);

}  // namespace penstock
