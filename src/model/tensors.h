// The tensors of a model: one list per family, from which everything else follows.
//
// A family lists once what it is made of (families/): in the order in which a packed model holds
// it, with shape, part and the names that checkpoints use. Packing follows the sources, a synthetic
// model fills what is listed, binding checks shapes against it, parameters and sizes are counted
// over it. So no second list can disagree with the first.
//
// Pure data: nothing here reads a file. Experts are not listed one by one; `{}` in the name of a
// source stands for an expert's number.
//
// Memory   a list of 92 layers takes about a megabyte and a few milliseconds; make it once per job
// See also docs/formats.md (names and shapes), pack/plan.h (how sources are found)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace penstock {

// What a tensor is part of: who reads it, and how often.
enum class ModelPart : uint8_t {
  kEmbedding,  // one row per token, unless it is also the head
  kHead,
  kNorms,      // of blocks, and the final one
  kAttention,  // with its norms and biases
  kDeltaNet,   // with its convolution, rates and norm
  kDenseFfn,
  kRouter,
  kSharedExpert,
  kSharedGate,
  kDraft,  // what the prediction block has beside a layer of its own
};

enum class StoredAs : uint8_t {
  kMatrix,       // in panels, quantised when asked for
  kExactMatrix,  // in panels, never quantised: it decides which way a token goes
  kVector,       // plain f32
};

// What happens to a value on its way from a checkpoint into a packed model.
enum class Change : uint8_t {
  kNone,
  kAddOne,    // zero-centred norms are stored as the multiplier they are
  kMinusExp,  // A_log is stored as the decay rate
};

// What a synthetic model has there, so that activations stay of order one.
struct SyntheticFill {
  enum class Kind : uint8_t {
    kRandom,    // around zero, with standard deviation `value`
    kConstant,  // `value`
    kDecay,     // -x, with log x uniform: a memory of one to some hundred tokens
  };
  Kind kind = Kind::kRandom;
  double value = 0;
};

// Rows of one tensor of a checkpoint, seen as a matrix: its last dimension and the product of the
// others.
struct SourceRange {
  std::string tensor;          // with `{}`: one tensor per expert
  std::vector<int64_t> shape;  // that it must have
  int64_t first_row = 0;       // of expert 0
  int64_t rows = 0;
  int64_t rows_per_expert = 0;  // expert e starts this many rows after expert e - 1
};

// One way to store a matrix: ranges one after the other.
struct SourceForm {
  std::string marker;  // the tensor whose presence chooses this form; empty: where no other is
  std::vector<SourceRange> ranges;
};

struct TensorSpec {
  std::string name;  // normal: without prefix and ".weight"
  int64_t rows = 0;  // a vector has one row
  int64_t columns = 0;
  ModelPart part = ModelPart::kNorms;
  StoredAs stored = StoredAs::kMatrix;
  bool of_prediction_block = false;
  Change change = Change::kNone;
  SyntheticFill fill = {};
  std::vector<SourceForm> sources = {};

  int64_t elements() const { return rows * columns; }
};

// The routed experts of one layer that has some.
struct ExpertSpec {
  bool of_prediction_block = false;
  std::vector<SourceForm> gate_up;  // [2 * I, H]: gate rows, then up rows
  std::vector<SourceForm> down;     // [H, I]
};

// What may be in a checkpoint beside what is listed; anything else is an error.
struct Leftover {
  enum class Kind : uint8_t {
    kVision,      // left out
    kCopy,        // left out: says again what another tensor says
    kPrediction,  // of a block that is not whole: kept as it is
  };
  std::string prefix;
  Kind kind = Kind::kVision;
};

struct TensorList {
  std::vector<TensorSpec> resident;
  std::vector<ExpertSpec> experts;  // in the order of the records
  std::vector<Leftover> leftovers;
  // With a prediction block: it is whole enough to be used where all of these are.
  std::vector<SourceRange> prediction_markers;

  const TensorSpec* find(std::string_view name) const;
};

// Parameters by part. Of the whole text model, the prediction block apart.
struct ParameterCount {
  int64_t embedding = 0;  // read one row per token
  int64_t head = 0;       // 0 when tied to the embedding
  int64_t delta_layers = 0;
  int64_t attention_layers = 0;
  int64_t dense_ffns = 0;
  int64_t routers = 0;
  int64_t shared_experts = 0;
  int64_t shared_gates = 0;
  int64_t norms = 0;  // of blocks, and the final one
  int64_t one_expert = 0;
  int64_t experts = 0;
  int64_t prediction_block = 0;  // with its experts; in no sum here
  int64_t kept_matrices = 0;     // of the above: matrices that no option quantises
  int64_t plain_vectors = 0;     // of the above: norms, convolutions, rates; stored as f32

  int64_t resident() const {
    return embedding + head + delta_layers + attention_layers + dense_ffns + routers +
           shared_experts + shared_gates + norms;
  }
  int64_t total() const { return resident() + experts; }
};
ParameterCount count_parameters(const ModelConfig& config);

// Elements that one token multiplies with, embedding row apart.
int64_t active_parameters(const ModelConfig& config, int64_t experts_per_token);

}  // namespace penstock
