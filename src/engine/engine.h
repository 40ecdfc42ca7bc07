// Engine: a loaded model, ready to serve. Owns everything that sessions share.
//
// open() measures the machine, plans the memory, takes it, loads the resident weights past the page cache
// and opens the experts for streaming, of a packed model or in place of a checkpoint
// (engine/model_files.h). After it nothing is allocated from the budget any more but the pages of slots
// that are still coming (engine/slot_arrivals.h), so a budget that was accepted is kept. When others make
// memory scarce, expert slots are given back, and taken again later (engine/memory_watch.h).
//
// Threads  the computing thread
// Errors   open(): kNotFound, kCorrupt, kUnsupported (model), kOutOfMemory (budget), kIo
// See also docs/architecture.md, engine/memory_plan.h
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compute/backend.h"
#include "engine/batch.h"
#include "engine/expert_slots.h"
#include "engine/low_bit_copy.h"
#include "engine/memory_plan.h"
#include "engine/memory_watch.h"
#include "engine/model_files.h"
#include "engine/options.h"
#include "engine/prefix_cache.h"
#include "engine/session.h"
#include "engine/slot_arrivals.h"
#include "experts/expert_source.h"
#include "experts/local_experts.h"
#include "io/storage.h"
#include "model/model.h"
#include "store/expert_checksums.h"

namespace penstock {

class EngineGpu;
struct ChosenGpu;

using LoadObserver = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

// The request behind a plan; budget and threads already resolved against the machine.
struct ResolvedOptions {
  PlanRequest request;
  std::string budget_reason;  // "--memory", or which limit of the machine binds
};
// gpu: the one that is used, whose share of this machine's memory counts; may be absent.
Result<ResolvedOptions> resolve_options(const ModelFiles& files, const EngineOptions& options,
                                        const ChosenGpu* gpu = nullptr);

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(Storage& storage, const EngineOptions& options,
                                              const LoadObserver& on_load);
  ~Engine();

  // A further sequence. Its memory is taken from what was planned, when it is first used; a pass with
  // more of them than `parallel` fails.
  Result<Session> new_session() { return Session(*this); }
  PassParts& parts() { return *parts_; }

  const ModelConfig& config() const { return files_.config; }
  const ModelFiles& files() const { return files_; }
  const MemoryPlan& plan() const { return plan_; }
  const PlanRequest& plan_request() const { return request_; }
  const std::string& budget_reason() const { return budget_reason_; }
  const std::string& reader_note() const { return reader_note_; }
  Backend& backend() { return *backend_; }
  ExpertStore& experts() { return *store_; }
  ExpertStore* low_bit_experts() { return copy_ ? &copy_->store() : nullptr; }  // of a copy
  const ExpertSlots& slots() const { return *slots_; }                          // of both
  const EngineGpu* gpu() const { return gpu_.get(); }  // nullptr: none is used
  std::optional<GpuReport> gpu_report() const;
  bool reads_direct() const { return source_.reads_direct(); }
  // Gives slots back or takes them again where that is due; between layers, and while nothing else
  // is to be done. Cheap as long as it is not time to look.
  void watch_memory();
  // Whether slots are still coming (EngineOptions::slots_come_later_from), and waiting until they are here.
  bool slots_are_coming() const { return arrivals_.has_value(); }
  void wait_for_slots();
  // What a user should be told of since open(), when it does not disturb; empty: nothing.
  std::string take_news() { return std::exchange(news_, {}); }
  bool watches_memory() const { return memory_watch_->is_on(); }

  // Writes what was learned of a checkpoint's checksums to options.checksum_file, if anything was.
  Result<void> keep_checksums();
  // Why those of earlier runs are not used; empty: they are, or there were none.
  const std::string& checksum_note() const { return checksum_note_; }

  int64_t experts_per_token() const { return request_.experts_per_token; }
  bool can_draft() const { return request_.config.mtp_num_hidden_layers > 0; }
  Speculation speculation() const { return speculation_; }  // kOff where it cannot
  const ExpertLimits& expert_limits() const { return moe_scratch_.limits; }
  KvForm kv_form() const { return request_.kv_form; }
  const LowBitOptions& low_bits() const { return low_bits_; }
  bool is_lossy() const {
    return experts_per_token() != config().num_experts_per_tok || !expert_limits().is_off() ||
           kv_form() != KvForm::kFloat32 || low_bits().is_on();
  }

  const ModelTexts& texts() const { return files_.texts; }
  // nullptr for a model without tokenizer.
  const Tokenizer* tokenizer() const {
    return files_.texts.tokenizer ? &*files_.texts.tokenizer : nullptr;
  }

  SamplingOptions sampling_defaults() const { return sampling_defaults_; }
  const std::vector<TokenId>& stop_ids() const { return stop_ids_; }
  // Ids that may be sampled: rows of the head beyond the tokenizer's vocabulary are padding.
  int64_t sampled_vocab() const;

 private:
  explicit Engine(ModelFiles files);
  Result<void> read_generation_config(const TellNote& tell);
  Result<ResidentWeights> load_resident(ThreadPool& team, const LoadObserver& on_load);
  Result<void> load_weights(ThreadPool& team, const LoadObserver& on_load);
  Result<void> open_expert_source(Storage& storage, const EngineOptions& options);
  Result<void> open_mirrors(Storage& storage, const EngineOptions& options);
  Result<void> open_prefix_store(Storage& storage, const EngineOptions& options);
  Result<void> load_checksums(const std::string& path);
  Result<void> open_store(const EngineOptions& options, ThreadPool& team);
  Result<void> open_copy(Storage& storage, const EngineOptions& options, ThreadPool& team);
  Result<void> open_experts(const EngineOptions& options, ThreadPool& team,
                            std::optional<ChosenGpu> gpu);
  void take_slots(const EngineOptions& options, std::optional<MemoryTurn> turn);
  void look_for_missing_slots();
  Backend& ops();  // with what a GPU computes of them

  ModelFiles files_;
  PlanRequest request_;
  MemoryPlan plan_;
  std::string budget_reason_, reader_note_, checksum_note_;
  Storage* storage_ = nullptr;
  std::string checksum_file_;
  KeptChecksums kept_checksums_;
  LowBitOptions low_bits_;
  Speculation speculation_ = Speculation::kOff;
  SamplingOptions sampling_defaults_;
  std::vector<TokenId> stop_ids_;
  ExpertSource source_;
  std::unique_ptr<Backend> backend_;  // before what lies in its memory
  Buffer resident_;
  Buffer rope_;
  std::optional<Scratch> scratch_;
  std::optional<SequenceMemory> sequence_memory_;
  std::unique_ptr<ExpertStore> store_;
  std::unique_ptr<EngineGpu> gpu_;
  std::optional<LocalExperts> experts_;
  std::unique_ptr<EngineCopy> copy_;
  std::optional<ExpertSlots> slots_;
  std::optional<MemoryWatch> memory_watch_;
  std::string news_;
  std::optional<SlotArrivals> arrivals_;  // until they have come
  std::unique_ptr<Model> model_;
  MoeScratch moe_scratch_;
  std::unique_ptr<PrefixStore> prefix_store_;
  std::optional<PrefixCache> prefixes_;  // gives its marks back before sequence_memory_ goes
  std::optional<PassParts> parts_;
};

}  // namespace penstock
