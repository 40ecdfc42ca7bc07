// A copy of a model's experts in fewer bits, for the last of each token's: lossy, and nothing unless
// somebody names one.
//
// The copy is a packed model of the same checkpoint, of which the experts alone are read. Of a token's
// experts, by falling weight, those from a rank on come from it (experts/split_experts.h): a rule of the
// router's choice and nothing else, so answers do not depend on budget, cache, threads or chunks. It has
// slots, reads and checksums of its own; the memory plan says how many slots (engine/memory_plan.h).
//
//   open_low_bit_copy(storage, options, files);       // opened and compared: sizes, architecture
//   ... plan, store, resident weights ...
//   check_routers(storage, copy, config, weights);    // of one checkpoint, then
//
// Threads  the computing thread
// Memory   a manifest, then what ExpertStore has
// Errors   kInvalidArgument naming the flag: another model, no packed one, other flags that it does not
//          go with; those of Container and ExpertStore
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/model_files.h"
#include "engine/options.h"
#include "experts/local_experts.h"
#include "experts/split_experts.h"
#include "model/resident_weights.h"

namespace penstock {

inline constexpr const char* kLowBitCopyFlag = "--lossy-low-bits-copy";
inline constexpr const char* kLowBitFromFlag = "--lossy-low-bits-from";

// The folder that the options name, into `files`; nothing where they name none.
Result<void> open_low_bit_copy(Storage& storage, const EngineOptions& options, ModelFiles& files);

// That the first and the last router of the copy are the model's, bit for bit: no pack changes them, so
// another checkpoint, whose experts would answer other choices, is found out. weights: the model's,
// loaded.
Result<void> check_routers(Storage& storage, const Container& copy, const ModelConfig& config,
                           const ResidentWeights& weights);

// "experts from rank 5 on in q2"; empty without a copy.
std::string low_bits_text(const ModelFiles& files, const LowBitOptions& options);

// What answers depend on: "low-bits 5 0123..."; empty without a copy.
std::string low_bits_identity(const ModelFiles& files, const LowBitOptions& options);

// The copy at work behind a model's experts.
class EngineCopy {
 public:
  // Of `files`, the layers that the model has. store_options: with the copy's number of slots.
  static Result<std::unique_ptr<EngineCopy>> open(Storage& storage, const Container& copy,
                                                  int num_layers, std::unique_ptr<Reader> reader,
                                                  const StoreOptions& store_options);

  // Takes the choices from `from_rank` on from `model`, whose rows for what is between the matrices it
  // shares. Both and the backend outlive it.
  void stand_before(LocalExperts& model, Backend& backend, Rows hidden, int64_t from_rank);

  Experts& experts() { return *split_; }  // the model's and the copy's
  ExpertStore& store() { return *store_; }

 private:
  ExpertSource source_;  // before the store that reads from its files
  std::unique_ptr<ExpertStore> store_;
  std::optional<LocalExperts> local_;
  std::optional<SplitExperts> split_;
};

}  // namespace penstock
