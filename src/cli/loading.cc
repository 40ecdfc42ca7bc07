#include "cli/loading.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "cli/figures.h"
#include "cli/gpu_advice.h"
#include "cli/knobs.h"
#include "cli/progress.h"
#include "format/text.h"
#include "io/checksum.h"
#include "io/output_file.h"

namespace penstock {
namespace {

Result<EvictionPolicy> eviction_policy(const std::string& name) {
  if (const auto policy = eviction_policy_of(name)) return *policy;
  std::string names;
  for (const EvictionPolicy policy : kEvictionPolicies)
    names += fmt::format(" {}", name_of(policy));
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--eviction: \"{}\" is not one of{}", name, names)};
}

// The verb that will run: of a plan, the one that it is for.
Verb running_verb(const Settings& settings) {
  if (settings.verb() != Verb::kPlan) return settings.verb();
  return find_verb(settings.text("for"))->verb;
}

// Kept states, to go back to. chat: the turn before, /undo of it and one more; serve: the turn
// before, and prefixes that several requests share.
int checkpoints_of(Verb verb) {
  if (verb == Verb::kChat) return 3;
  return verb == Verb::kServe ? 4 : 0;
}

Speculation speculation_of(const Settings& settings, Verb running) {
  if (find_option(running, "speculate") == nullptr) return Speculation::kOff;
  // A pass with a draft asks for experts that the answer alone would not: no trace of the model.
  const bool is_traced =
      find_option(settings.verb(), "trace-routing") && settings.is_given("trace-routing");
  if (is_traced) return Speculation::kOff;
  const std::string word = settings.text("speculate");
  if (word == "on") return Speculation::kOn;
  return word == "off" ? Speculation::kOff : Speculation::kAuto;
}

}  // namespace

TrunkOnGpu trunk_on_gpu(const std::string& name) {
  return name == "on" ? TrunkOnGpu::kOn : name == "off" ? TrunkOnGpu::kOff : TrunkOnGpu::kAuto;
}

ReaderKind reader_kind(const std::string& name) {
  if (name == "uring") return ReaderKind::kUring;
  return name == "threads" ? ReaderKind::kThreads : ReaderKind::kAuto;
}

Result<ExpertLimits> expert_limits(const Settings& settings) {
  ExpertLimits limits;
  limits.weight = settings.number("lossy-expert-weight");
  const std::string& list = settings.text("lossy-experts-by-layer");
  if (list.empty()) return limits;
  Result<std::vector<int>> by_layer = parse_layer_limits(list);
  if (!by_layer) {
    return Error{by_layer.error().code, "--lossy-experts-by-layer: " + by_layer.error().message};
  }
  limits.by_layer = *std::move(by_layer);
  return limits;
}

KvForm kv_form(const Settings& settings) {
  return settings.text("lossy-kv") == "8" ? KvForm::kCodes8 : KvForm::kFloat32;
}

Result<LowBitOptions> low_bits(const Settings& settings) {
  LowBitOptions options;
  options.folder = settings.text("lossy-low-bits-copy");
  options.from_rank = settings.integer("lossy-low-bits-from");
  if (options.is_on() != (options.from_rank > 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} and {} go together: which copy, and from which of a token's "
                             "experts on, by falling weight, it is used",
                             kLowBitCopyFlag, kLowBitFromFlag)};
  }
  if (!options.is_on()) return options;
  const auto refuse = [&](const std::string& flag, const char* why) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} does not go with {}: {}", kLowBitCopyFlag, flag, why)};
  };
  const auto has = [&](const char* flag) { return find_option(settings.verb(), flag) != nullptr; };
  for (const char* flag : {"gpu", "vram", "gpu-trunk"}) {
    if (!has(flag) || settings.get(flag).origin != Origin::kFlag) continue;
    if (settings.text(flag) == "off") continue;
    return refuse(fmt::format("--{}", flag),
                  "a GPU computes the model's own experts alone; leave one of them out");
  }
  if (has("warm-start") && settings.text("warm-start") == "eager" &&
      settings.get("warm-start").origin == Origin::kFlag) {
    return refuse("--warm-start eager",
                  "what earlier runs used is known of the model's own experts alone; leave it at "
                  "auto, which does nothing here");
  }
  if (has("trace-routing") && settings.is_given("trace-routing")) {
    return refuse("--trace-routing",
                  "a trace is of experts that are all in one place; record it without the copy, "
                  "the routers choose first and are the same");
  }
  return options;
}

Result<EngineOptions> engine_options(const Call& call) {
  EngineOptions options = PENSTOCK_TRY(engine_options(call.settings, running_verb(call.settings)));
  PENSTOCK_TRY(apply_knobs(call, options));
  return options;
}

Result<EngineOptions> engine_options(const Settings& settings, Verb running) {
  EngineOptions options;
  options.model = settings.arguments().front();
  options.memory_bytes = settings.bytes("memory");
  options.context = settings.integer("context");
  options.threads = static_cast<int>(settings.integer("threads"));
  options.experts_per_token = settings.integer("experts-per-token");
  options.expert_limits = PENSTOCK_TRY(expert_limits(settings));
  options.kv_form = kv_form(settings);
  options.low_bits = PENSTOCK_TRY(low_bits(settings));
  options.chunk_tokens = settings.integer("chunk-tokens");
  options.num_slots = settings.integer("slots");
  options.speculation = speculation_of(settings, running);
  options.num_checkpoints = checkpoints_of(running);
  if (running == Verb::kServe) {
    options.parallel = static_cast<int>(settings.integer("parallel"));
  }
  if (find_option(settings.verb(), "chat-template-file") != nullptr) {
    options.chat_template_file = settings.text("chat-template-file");
  }
  if (settings.verb() == Verb::kPlan) {
    // Its memory counts; nothing is written there.
    if (find_option(running, "kv-dir") != nullptr) {
      options.prefix_store.directory = settings.text("kv-dir");
    }
    return options;
  }
  options.reader.kind = reader_kind(settings.text("reader"));
  options.verify = settings.is_on("verify");
  options.mirrors = settings.list("mirror");
  options.prefetch = settings.text("prefetch") != "off";
  // What a copy of few bits does not go with was refused where it was asked for; auto comes to none.
  options.gpu.device = options.low_bits.is_on() ? "off" : settings.text("gpu");
  options.gpu.vram_bytes = settings.bytes("vram");
  options.gpu.trunk = trunk_on_gpu(settings.text("gpu-trunk"));
  for (const auto& [flag, what] : {std::pair("vram", "is memory of a GPU"),
                                   std::pair("gpu-trunk", "is for matrices in a GPU's memory")}) {
    // What stands in a file of settings is for the runs that have a GPU.
    if (settings.get(flag).origin != Origin::kFlag || options.gpu.is_on()) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--{} {}, which --gpu off leaves out", flag, what)};
  }
  options.memory_watch.is_on = settings.text("memory-pressure") == "shrink";
  // Somebody waits there for the first token; where speed is measured, slots are there before.
  constexpr uint64_t kManySlots = uint64_t{256} << 20;
  const Verb verb = settings.verb();
  const bool is_asked = verb == Verb::kRun || verb == Verb::kChat || verb == Verb::kServe;
  if (is_asked && options.num_slots == 0) options.slots_come_later_from = kManySlots;
  options.simd_target = settings.text("simd");
  if (settings.text("arithmetic") == "float32") options.arithmetic = Arithmetic::kFloat32;
  if (settings.is_given("eviction")) {
    options.policy = PENSTOCK_TRY(eviction_policy(settings.text("eviction")));
  }
  return options;
}

Result<PrefixStoreOptions> prefix_store_options(Call& call) {
  PrefixStoreOptions options;
  options.directory = call.settings.text("kv-dir");
  if (options.directory.empty()) return options;
  options.bytes_max = call.settings.bytes("kv-disk-max");
  options.on_trouble = [&call](const std::string& line) { call.terminal.warning(line); };
  std::error_code failure;
  if (std::filesystem::create_directories(options.directory, failure)) {
    std::filesystem::permissions(options.directory, std::filesystem::perms::owner_all, failure);
  }
  if (failure) {
    return Error{ErrorCode::kIo,
                 fmt::format("--kv-dir {}: {}", options.directory, failure.message())};
  }
  return options;
}

// By the path: what it was made of is in the file.
std::string checksum_file_of(const Call& call, const std::string& model) {
  const auto state = call.environment.state_directory();
  if (!state) return "";
  std::error_code failure;
  const std::filesystem::path whole = std::filesystem::absolute(model, failure);
  const std::string path = failure ? model : whole.lexically_normal().string();
  return fmt::format("{}/checksums/{}", *state,
                     hex_text(checksum(std::as_bytes(std::span(path)), 0)));
}

Result<std::unique_ptr<Engine>> load_engine(Call& call, const EngineOptions& options,
                                            const LoadObserver& on_load) {
  // Written when all is done; that it cannot be is not to be found out then.
  const bool traces = find_option(call.settings.verb(), "trace-routing") != nullptr &&
                      call.settings.is_given("trace-routing");
  if (traces) PENSTOCK_TRY(check_output(call.storage, call.settings.text("trace-routing")));
  Progress progress(call.terminal, "loading", Progress::Unit::kBytes);
  EngineOptions told = options;
  PENSTOCK_TRY(settle_gpu(call, told));
  told.tell = [&](const std::string& text) { call.terminal.warning(text); };
  told.checksum_file = checksum_file_of(call, options.model);
  std::unique_ptr<Engine> engine =
      PENSTOCK_TRY(Engine::open(call.storage, told, [&](uint64_t done, uint64_t total) {
        progress.update(done, total);
        if (on_load) on_load(done, total);
      }));
  progress.finish();
  call.terminal.note(plan_line(*engine));
  if (const auto gpu = engine->gpu_report()) call.terminal.note(gpu_line(*gpu));
  if (!engine->checksum_note().empty()) {
    call.terminal.warning("checksums of earlier runs are not used: " + engine->checksum_note());
  }
  if (engine->tokenizer() != nullptr) {
    for (const std::string& note : engine->tokenizer()->notes()) call.terminal.warning(note);
  }
  call.terminal.detail(to_table(engine->plan(), engine->plan_request().budget_bytes));
  if (engine->is_lossy()) call.terminal.warning(lossy_text(*engine));
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  return engine;
}

void tell_news(const Call& call, Engine& engine) {
  const std::string news = engine.take_news();
  if (!news.empty()) call.terminal.warning(news);
}

TraceFile::TraceFile(Call& call, Engine& engine)
    : call_(call),
      engine_(engine),
      path_(call.settings.text("trace-routing")),
      trace_(static_cast<int>(engine.config().num_expert_layers()),
             static_cast<int>(engine.config().num_experts)) {
  if (!path_.empty()) engine_.experts().set_trace(&trace_);
}

TraceFile::~TraceFile() {
  engine_.experts().set_trace(nullptr);
}

void TraceFile::begin_sequence() {
  if (!path_.empty()) trace_.begin_sequence();
}

Result<void> TraceFile::write() {
  if (path_.empty()) return {};
  return trace_.write(call_.storage, path_);
}

}  // namespace penstock
