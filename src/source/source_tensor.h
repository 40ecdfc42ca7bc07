// Tensors of a checkpoint in normal form: one set of names, one order of rows, whatever the file.
//
// Names and shapes are those of docs/formats.md. What a file has in another order is put right by
// naming the rows one range after the other; what it has in another order along a row (the columns
// of a GGUF's ssm_out, the entries of its vectors) is told as a ColumnOrder: a reader that decodes
// puts the values back, one that keeps codes whose blocks span several heads permutes the
// activations instead.
//
// Memory  Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "source/coding.h"

namespace penstock {

struct StoredRows {
  StoredMatrix matrix;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// What happens to a value after decoding.
enum class ValueChange : uint8_t {
  kNone,
  kAddOne,    // zero-centred norms become the multiplier they are
  kMinusExp,  // A_log becomes the decay rate
};

struct SourceTensor {
  std::string name;       // normal: "layers.3.linear_attn.out_proj"
  bool is_plain = false;  // a vector or the convolution: kept as f32 values
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<StoredRows> ranges = {};  // together `rows` rows, in normal order
  ColumnOrder order = {};
  ValueChange change = ValueChange::kNone;
};

enum class ExpertPart : uint8_t { kGate, kUp, kDown };
inline constexpr int kNumExpertParts = 3;

// One part of all experts of a layer. Gate and up are [moe_intermediate_size, hidden_size], down is
// [hidden_size, moe_intermediate_size].
struct ExpertMatrices {
  // Expert 0; those of a stacked tensor follow at equal distances.
  StoredMatrix first;
  struct Stride {
    uint64_t codes = 0;
    uint64_t scales = 0;
    uint64_t biases = 0;
  } stride = {};
  // Every expert by itself, where the file has a tensor for each; else empty.
  std::vector<StoredMatrix> single = {};

  StoredMatrix of(int64_t expert) const;
};

struct LayerExperts {
  ExpertMatrices parts[kNumExpertParts];

  const ExpertMatrices& operator[](ExpertPart part) const {
    return parts[static_cast<size_t>(part)];
  }
  ExpertMatrices& operator[](ExpertPart part) { return parts[static_cast<size_t>(part)]; }
};

}  // namespace penstock
