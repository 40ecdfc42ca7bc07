// The resident tensors of a checkpoint in memory, in the forms of source/stored_form.h, and loading
// them.
//
// Loading changes no value and takes no more memory than the file has, but for F16, which becomes f32,
// the last panel's missing rows, and FP8's scales, one for each row.
//
// Memory  load() fills bytes() bytes of the caller's and keeps none.
// Errors  load(): as ModelSource; kCorrupt naming tensor, row and column for weights, scales and codes
//         that are no numbers
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/resident_weights.h"
#include "source/model_source.h"

namespace penstock {

class SourceWeights {
 public:
  explicit SourceWeights(const ModelSource& source);

  uint64_t bytes() const { return bytes_; }

  // Where load() puts them; nothing is read. memory and what is made: as there.
  ResidentWeights placed(const ModelSource& source, std::span<std::byte> memory) const;

  // memory: 64-byte aligned. What is made views it, and orders of columns in `source`. team: to share
  // laying out; may be null.
  Result<ResidentWeights> load(
      ModelSource& source, std::span<std::byte> memory, ThreadPool* team,
      const std::function<void(uint64_t done, uint64_t total)>& progress) const;

 private:
  struct Placed {
    MatrixForm form;
    PlacedPlanes planes;
    uint64_t offset = 0;
  };

  std::vector<Placed> placed_;  // of source.tensors()
  uint64_t bytes_ = 0;
};

}  // namespace penstock
