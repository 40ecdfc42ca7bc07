// From settings to a loaded engine, with progress on the way.
//
// Errors  kInvalidArgument naming the flag; the engine's; of writing the trace
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/program.h"
#include "engine/engine.h"
#include "store/routing_trace.h"

namespace penstock {

ReaderKind reader_kind(const std::string& name);   // of a choice of --reader
TrunkOnGpu trunk_on_gpu(const std::string& name);  // of --gpu-trunk

// --lossy-experts-by-layer and --lossy-expert-weight, not yet checked against a model.
Result<ExpertLimits> expert_limits(const Settings& settings);

KvForm kv_form(const Settings& settings);  // --lossy-kv

// --lossy-low-bits-copy and --lossy-low-bits-from, and that no flag asks for what they do not go with.
Result<LowBitOptions> low_bits(const Settings& settings);

// The options of the table's group "Machine", and the knobs; the model is the verb's first argument.
Result<EngineOptions> engine_options(const Call& call);
// As `running` would have them, for a plan of it: what its knobs are does not matter there.
Result<EngineOptions> engine_options(const Settings& settings, Verb running);

// Where the checksums of a checkpoint that is run in place are kept (store/expert_checksums.h); empty:
// there is no place.
std::string checksum_file_of(const Call& call, const std::string& model);

// --kv-dir and --kv-disk-max. Makes the folder, for its owner alone: its files tell what was said.
Result<PrefixStoreOptions> prefix_store_options(Call& call);

// Opens the engine and says on standard error what it is going to work with. From here on Ctrl-C
// stops the work instead of ending the program at once.
// `on_load`, where given, is told of the progress as well.
Result<std::unique_ptr<Engine>> load_engine(Call& call, const EngineOptions& options,
                                            const LoadObserver& on_load = {});
// What is to be told of it since, where that disturbs nothing: not into an answer or a line being typed.
void tell_news(const Call& call, Engine& engine);

// --trace-routing FILE: records into memory from begin() on, written at the end.
class TraceFile {
 public:
  TraceFile(Call& call, Engine& engine);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  void begin_sequence();
  Result<void> write();

 private:
  Call& call_;
  Engine& engine_;
  std::string path_;  // empty: nothing is recorded
  RoutingTrace trace_;
};

}  // namespace penstock
