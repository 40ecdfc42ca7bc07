// Which bits the experts of each layer get, so that all of them together fit into a number of bytes and
// lose least.
//
// Chosen are, layer by layer, the bits of gate and up and those of down, out of 2, 3, 4 and 8; the loss of
// a layer is 2 * its loss in gate and up + its loss in down, as the product of gate and up has the misses
// of both, and that of the plan is the sum of all layers. The plan is the best one there is (a knapsack
// with one choice of each layer, solved exactly by dynamic programming over bytes), up to a unit of bytes
// that is coarser than the records' own only where layers times units would be too many.
//
// A slot of the expert cache is as large as the largest record, so no record may be larger than 5/4 of
// what an expert has on average: a mixture that is smaller on the disk must not keep fewer experts in
// memory.
//
// Threads  plain functions; the same losses give the same plan
// Memory   kCellsMax bytes, and as many doubles as the bytes have units
// Errors   plan_bits(): kInvalidArgument with the least and the most bytes
// See also pack/loss_survey.h, docs/decisions.md
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "format/expert_parts.h"

namespace penstock {

inline constexpr std::array<DType, 4> kPlannedTypes = {DType::kQ2, DType::kQ3, DType::kQ4,
                                                       DType::kQ8};

// Of the experts of a layer.
struct LayerTypes {
  DType gate_up = DType::kQ4;
  DType down = DType::kQ4;

  bool operator==(const LayerTypes&) const = default;
};

// What the parts of a layer's experts lose as each of kPlannedTypes: a share of what they are.
struct LayerLosses {
  std::array<double, kPlannedTypes.size()> gate_up{};
  std::array<double, kPlannedTypes.size()> down{};

  double of(const LayerTypes& types) const;
};

struct BitPlan {
  std::vector<LayerTypes> layers;
  std::vector<double> losses;   // [layer]
  std::vector<uint64_t> bytes;  // [layer], of all its experts
  uint64_t target_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t least_bytes = 0, most_bytes = 0;  // that are possible at all
  double bits_per_weight = 0;                // with scales and biases, without padding

  double loss() const;
};

// Where layers times units of bytes would be more, the unit is made coarser.
inline constexpr uint64_t kCellsMax = uint64_t{1} << 25;

// losses: of each layer. hidden_size and intermediate_size are multiples of 64.
Result<BitPlan> plan_bits(const ExpertShape& shape, const std::vector<LayerLosses>& losses,
                          uint64_t target_bytes, uint64_t cells_max = kCellsMax);

// The forms of each layer's records.
std::vector<RecordForms> record_forms(const std::vector<LayerTypes>& layers);

// "q3, down q4": what is alike is told once.
std::string to_text(const LayerTypes& types);
// The plan as lines for a person, layers that follow each other with the same bits in one.
std::string to_table(const BitPlan& plan);
Json to_json(const BitPlan& plan);

}  // namespace penstock
