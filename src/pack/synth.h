// Synthetic models: the shape of a real one with random weights, for benchmarks without downloads.
//
// The result is a penstock model like any other (docs/formats.md), complete with checksums, but
// without a tokenizer. The weights are scaled so that activations stay finite and of order one
// through any number of layers, delta-net states neither explode nor vanish, and the router uses
// all experts about evenly. What it says is noise; how fast it says it, and what it reads, is not.
//
// Built like a pack: in TARGET.partial/ with a journal, so that an interrupted one is no model and
// continues with the same bytes. The same options give the same bytes everywhere.
//
// Memory   One record and a few pools of random blocks, whatever the size of the model.
// Threads  one
// Errors   kInvalidArgument: target exists, widths that cannot be stored. kOutOfMemory: the disk is
//          too small, with the numbers, before anything is written. kCancelled, kIo.
// See also pack/pack.h, model/shapes.h
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "base/dtype.h"
#include "io/storage.h"
#include "model/config.h"
#include "pack/pack.h"

namespace penstock {

struct SynthOptions {
  std::string target;
  std::string name;  // of the shape, for the manifest
  ModelConfig config;
  DType experts = DType::kQ4;   // kBF16, kQ8, kQ4, kQ3, kQ2
  DType resident = DType::kQ8;  // kBF16, kQ8, kQ4
  uint64_t seed = 1;
  bool force = false;  // replace a model at `target`, once the new one is complete
  uint64_t sync_bytes = uint64_t{256} << 20;  // written between two syncs
};

Result<PackReport> synthesise_model(Storage& storage, const SynthOptions& options,
                                    const PackCallback& progress, std::stop_token stop);

}  // namespace penstock
