// The experts of a packed model written down in another way, in files of their own: what an engine
// sees of a foreign format, made from a model whose answers are known.
#pragma once

#include <string>

#include "experts/expert_source.h"

namespace penstock::test {

struct RelaidLayout {
  const char* name;
  bool are_gate_and_up_apart = true;  // false: one part, as packed
  bool has_two_files = true;          // down, and where it is apart up, in the second
  uint64_t first = 0;                 // offset of what is written first, in both files
  uint64_t gap = 0;                   // after every expert's part
  bool has_own_places = false;        // experts lie by falling number, each at a place of its own
  bool widens = false;                // some matrices of some layers from bf16 to f32, exactly
};

// Writes them to `folder` and says where they lie. Every part has a checksum.
ExpertSourceFactory relaid_experts(const std::string& folder, const RelaidLayout& layout);

}  // namespace penstock::test
