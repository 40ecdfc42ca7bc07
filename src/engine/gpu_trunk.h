// Which resident matrices lie in a GPU's memory, and room for the rows that go through them.
//
// Every token reads them all, an expert only some: so they come before experts. First the head, the
// largest; then the projections of the mixers, layer by layer; then shared experts and dense FFNs,
// gate, up and down together or not at all. What does not fit any more is left out, and so is what is
// small (GpuOptions::trunk_matrix_least) or of a type that is not computed there.
//
// Threads  pure functions
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "experts/gpu_options.h"
#include "gpu/gpu_backend.h"
#include "model/config.h"
#include "model/resident_weights.h"

namespace penstock {

// What it is asked at most: of the largest pass, and positions of a sequence whose keys and values a device can
// copy (0: they are in codes).
struct TrunkCalls {
  int64_t chunk_tokens = 1;
  int sequences = 1;
  int64_t context = 0;
};

// Rows of its calls, without matrices.
GpuTrunk trunk_rows(const ModelConfig& config, const TrunkCalls& calls);

// What a token asks of a device, drafts apart.
struct TrunkWork {
  uint64_t bytes = 0;      // of its matrices
  uint64_t ffn_bytes = 0;  // of these, of shared experts and dense FFNs
  uint64_t row_bytes = 0;  // over the link, both ways, at most
  int64_t calls = 0;       // that somebody waits for, at most: products
  int64_t ffns = 0;        // that are queued
};

struct TrunkChoice {
  GpuTrunk trunk;      // without matrices: nothing lies there
  uint64_t bytes = 0;  // of the GPU's memory, all that it is
  int64_t fit = 0;     // matrices that could lie there
  TrunkWork work = {};
};

// The matrices that a model of this shape would have: types and shapes without bytes.
ResidentWeights listed_weights(const ModelConfig& config, DType dtype);

// What of a model could lie there, in the order of its worth.
class TrunkCandidates {
 public:
  TrunkCandidates() = default;
  // config: as planned, without a prediction block where none is used.
  TrunkCandidates(const ModelConfig& config, const ResidentWeights& weights,
                  const GpuOptions& options, const TrunkCalls& calls);

  // Of matrices that stay with the processors because of their type.
  const std::set<std::string>& types_left() const { return types_left_; }

  // vram_bytes: for all of it.
  TrunkChoice choose(uint64_t vram_bytes) const;

 private:
  // Matrices that lie there together or not at all.
  struct Group {
    std::vector<Matrix> matrices;
    TrunkWork work;
    bool is_large_of_delta_net = false;
    bool is_small_gate = false;  // there only beside all that is large of its delta-net
    size_t mixer = 0;            // whose projection it is; of FFNs and of the prediction block none
  };

  GpuTrunk rows_;
  std::vector<Group> groups_;
  std::set<std::string> types_left_;
};

}  // namespace penstock
