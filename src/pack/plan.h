// The plan of a pack: which rows of which source tensors become which bytes of the new files.
//
// All naming knowledge is here: the prefixes, the fused and interleaved projections of qwen3_next,
// fused experts or one tensor per expert. Whatever the source calls its tensors, the packed model
// has one set of names (docs/formats.md). Making the plan checks every tensor's presence, shape and
// dtype, and that none is left over, so that packing itself can fail only by the disk or by a NaN.
//
// Memory  Holds pointers into the Checkpoint, which must outlive it.
// Errors  kNotFound: a tensor is missing. kCorrupt: another shape, or tensors left over.
//         kUnsupported: a dtype. kInvalidArgument: widths that the wanted type cannot store.
// Source  spec sections 3.1 and 3.2.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "format/checkpoint.h"
#include "format/manifest.h"
#include "model/config.h"

namespace penstock {

// nullopt: keep the source's own precision.
struct StoredTypes {
  std::optional<DType> experts;
  std::optional<DType> resident;
};

struct RowRange {
  const CheckpointTensor* tensor = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// Rows of source tensors, one range after the other; all of one dtype and width.
struct MatrixSource {
  std::vector<RowRange> ranges;
};

// What happens to a value on its way.
enum class Change : uint8_t {
  kNone,
  kAddOne,    // zero-centred norms are stored as the multiplier they are
  kMinusExp,  // A_log is stored as the decay rate
};

struct ResidentPiece {
  ResidentTensor tensor;
  MatrixSource source;
  Change change = Change::kNone;
};

class PackPlan {
 public:
  static Result<PackPlan> make(const Checkpoint& checkpoint, const ModelConfig& config,
                               const StoredTypes& types);

  const std::vector<ResidentPiece>& resident() const { return resident_; }
  uint64_t resident_bytes() const { return resident_bytes_; }
  const ExpertParts& experts() const { return experts_; }
  MatrixSource gate_up(int64_t layer, int64_t expert) const;
  MatrixSource down(int64_t layer, int64_t expert) const;
  // 1 with a whole prediction block (MTP): its experts are those of the layer after the last.
  int64_t prediction_layers() const { return prediction_layers_; }
  // Tensors of a block that is not whole, kept as they are.
  const std::vector<const CheckpointTensor*>& mtp() const { return mtp_; }

  // Elements per name of part, for descriptions and reports.
  struct Parameters {
    int64_t resident = 0;
    int64_t experts = 0;
    int64_t active = 0;  // touched by one token, embedding row apart
    int64_t mtp = 0;
    int64_t vision = 0;
  };
  const Parameters& parameters() const { return parameters_; }

 private:
  friend class PlanMaker;

  // One layer's experts: either two fused tensors or three per expert.
  struct LayerExperts {
    const CheckpointTensor* gate_up = nullptr;    // [experts, 2 * intermediate, hidden]
    const CheckpointTensor* down = nullptr;       // [experts, hidden, intermediate]
    std::vector<const CheckpointTensor*> single;  // gate, up, down of expert 0, of expert 1, ...
  };

  std::vector<ResidentPiece> resident_;
  uint64_t resident_bytes_ = 0;
  ExpertParts experts_;
  std::vector<LayerExperts> layers_;
  int64_t prediction_layers_ = 0;
  std::vector<const CheckpointTensor*> mtp_;
  Parameters parameters_;
};

}  // namespace penstock
