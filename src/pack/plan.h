// The plan of a pack: which rows of which source tensors become which bytes of the new files.
//
// Follows the family's list of tensors (model/tensors.h): whatever a checkpoint calls its tensors
// and however it cuts them, the packed model has one set of names (docs/formats.md). Making the
// plan finds each listed source and checks its shape and dtype, and that nothing is left over, so
// that packing itself can fail only by the disk or by a NaN.
//
// Memory  Holds pointers into the Checkpoint, which must outlive it.
// Errors  kNotFound: a tensor is missing. kCorrupt: another shape, or tensors left over.
//         kUnsupported: a dtype. kInvalidArgument: widths that the wanted type cannot store.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "compute/quantiser.h"
#include "format/checkpoint.h"
#include "format/manifest.h"
#include "io/checksum.h"
#include "model/config.h"
#include "model/tensors.h"
#include "pack/bit_plan.h"

namespace penstock {

// What the packed model is to be. nullopt: keep the source's own precision.
struct StoredTypes {
  std::optional<DType> experts;
  std::optional<MatrixForm> resident;
  bool without_prediction = false;  // leave a prediction block out
  Quantiser quantiser = Quantiser::kRound;
  std::optional<Hash128> calibration = {};  // what the experts are quantised for
  std::optional<DType> down = {};           // of experts that are quantised; nullopt: as `experts`
  // A mixture: so many bytes of experts at most, and what each layer gets of them (pack/bit_plan.h);
  // `experts` is there and says nothing then.
  std::optional<uint64_t> target_bytes = {};
  std::vector<LayerTypes> layers = {};

  bool are_quantised() const { return experts.has_value() || resident.has_value(); }
};

// The records of experts of these types. `otherwise`: of those that are kept. Nothing where the widths
// do not allow it.
std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape, const StoredTypes& types,
                                           DType otherwise);

struct RowRange {
  const CheckpointTensor* tensor = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// Rows of source tensors, one range after the other; all of one dtype and width.
struct MatrixSource {
  std::vector<RowRange> ranges;

  int64_t rows() const {
    int64_t sum = 0;
    for (const RowRange& range : ranges) sum += range.rows;
    return sum;
  }
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
  // Once it is known what each layer gets.
  void set_experts(ExpertParts experts) { experts_ = std::move(experts); }
  MatrixSource gate_up(int64_t layer, int64_t expert) const;
  MatrixSource down(int64_t layer, int64_t expert) const;
  // Tensors of a block that is not whole, kept as they are.
  const std::vector<const CheckpointTensor*>& mtp() const { return mtp_; }

  // What of the checkpoint is left out or not used, a sentence each.
  const std::vector<std::string>& notes() const { return notes_; }

  // Of what will be packed: the source's, with the prediction block that is there.
  const ModelConfig& config() const { return config_; }
  int64_t prediction_layers() const { return config_.mtp_num_hidden_layers; }
  // Elements of tensors that are not part of it.
  int64_t vision_elements() const { return vision_elements_; }
  int64_t kept_elements() const { return kept_elements_; }  // of mtp()

 private:
  friend class PlanMaker;

  // Rows of one tensor that all experts share, or of a tensor of each.
  struct ExpertRange {
    std::vector<const CheckpointTensor*> tensors;
    int64_t first_row = 0, rows = 0, rows_per_expert = 0;
  };
  struct LayerExperts {
    std::vector<ExpertRange> gate_up, down;
  };
  static MatrixSource source_of(const std::vector<ExpertRange>& ranges, int64_t expert);

  std::vector<ResidentPiece> resident_;
  uint64_t resident_bytes_ = 0;
  ExpertParts experts_;
  std::vector<LayerExperts> layers_;
  ModelConfig config_;
  std::vector<const CheckpointTensor*> mtp_;
  std::vector<std::string> notes_;
  int64_t vision_elements_ = 0, kept_elements_ = 0;
};

}  // namespace penstock
