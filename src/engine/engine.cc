#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/byte_text.h"
#include "compute/cpu/cpu_backend.h"
#include "engine/budget.h"
#include "engine/gpu_setup.h"
#include "engine/limits.h"
#include "engine/memory_room.h"
#include "engine/stop_tokens.h"
#include "experts/expert_copies.h"
#include "format/text.h"
#include "host/memory_limits.h"
#include "host/memory_turn.h"
#include "host/processors.h"
#include "model/registry.h"
#include "model/rope.h"

namespace penstock {
namespace {

Result<void> check_option(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}, expected {} to {}", flag, value, low, high)};
}

// A machine that does not tell what it has is believed to have enough.
Result<std::string> check_machine(const MemoryPlan& plan) {
  const Result<MemoryAvailability> available = memory_available();
  const Result<MemoryCeiling> ceiling = memory_ceiling();
  if (!available || !ceiling) return std::string();
  return check_plan(plan, *available, *ceiling);
}

// The widest input of a matrix of the model, whichever of them a checkpoint has quantised.
int64_t widest_input(const ModelConfig& config) {
  int64_t widest = std::max(config.hidden_size, config.moe_intermediate_size);
  for (const TensorSpec& tensor : list_tensors(config).resident) {
    if (tensor.stored != StoredAs::kVector) widest = std::max(widest, tensor.columns);
  }
  return widest;
}

// Below half of the experts in memory a draft costs more reads than it can save time (and memory
// that slots would use better), so nothing is set aside for it.
bool may_draft(const PlanRequest& request) {
  const Result<MemoryPlan> plan = plan_memory(request);
  return plan && 2 * plan->slots_of_each >= plan->num_experts;
}

// Tokenizer and template are read before their size is known: parsing takes up to so much for each
// byte of the tokenizer, for a moment.
uint64_t bytes_to_read_texts(Storage& storage, const std::string& model) {
  constexpr uint64_t kForEachByte = 20;
  constexpr uint64_t kBesides = 16ull << 20;
  const Result<FileStat> stat = storage.stat(model + "/tokenizer.json");
  return kBesides + (stat ? kForEachByte * stat->bytes : 0);
}

StoreOptions store_options(const EngineOptions& options, int64_t num_slots, ThreadPool& team) {
  StoreOptions made;
  made.num_slots = static_cast<int>(num_slots);
  made.policy = options.policy;
  made.verify = options.verify;
  made.prefetch = options.prefetch;
  made.team = &team;
  made.ahead = options.tuning.ahead;
  made.half_life_runs = options.tuning.half_life_runs;
  return made;
}

Result<std::unique_ptr<Reader>> reader_of(const EngineOptions& options, std::string* note) {
  if (options.reader_factory) return options.reader_factory();
  return make_reader(options.reader, note);
}

// What is left, as the watch sees it, and of which limit.
Result<MemoryAvailability> look_at_memory(const EngineOptions& options) {
  const MemoryReading reading = PENSTOCK_TRY(options.memory_watch.probe());
  const Result<MemoryAvailability> machine = memory_available();
  MemoryAvailability left = machine ? *machine : MemoryAvailability{};
  left.available_bytes = reading.available_bytes;
  left.limit_bytes = reading.limit_bytes;
  return left;
}

// For all that was planned but slots beyond the floor; also for what is planned and comes as it is
// used, the KV cache.
Result<void> make_room_for_floor(const MemoryPlan& plan, const PlanRequest& request,
                                 const EngineOptions& options) {
  if (!options.memory_watch.is_on) return {};
  const auto beyond = static_cast<uint64_t>(plan.num_slots - plan.floor_slots);
  const auto beyond_of_copy = static_cast<uint64_t>(plan.copy_slots - plan.copy_floor_slots);
  return make_room(not_yet_in_use(plan.total_bytes - beyond * request.record_bytes -
                                  beyond_of_copy * request.copy.record_bytes),
                   {.probe = [&] { return look_at_memory(options); }, .tell = options.tell});
}

// One engine after the other: see host/memory_turn.h.
std::optional<MemoryTurn> take_turn(const EngineOptions& options) {
  constexpr std::chrono::seconds kPatience(60);
  if (!options.memory_watch.is_on) return std::nullopt;
  constexpr std::chrono::seconds kUntold(2);
  const auto begin = std::chrono::steady_clock::now();
  std::optional<MemoryTurn> turn = MemoryTurn::take(kUntold);
  // At once: there are no turns here.
  if (turn || std::chrono::steady_clock::now() - begin < kUntold) return turn;
  if (options.tell) options.tell("waiting for another engine that is starting");
  return MemoryTurn::take(kPatience);
}

}  // namespace

Result<ResolvedOptions> resolve_options(const ModelFiles& files, const EngineOptions& options,
                                        const ChosenGpu* gpu) {
  const ModelConfig& config = files.config;
  PENSTOCK_TRY(
      check_option("--experts-per-token", options.experts_per_token, 0, config.num_experts));
  const int64_t chosen =
      options.experts_per_token > 0 ? options.experts_per_token : config.num_experts_per_tok;
  PENSTOCK_TRY(check_limits(options.expert_limits, config.num_expert_layers(), chosen));
  if (options.low_bits.is_on()) {
    PENSTOCK_TRY(check_option(kLowBitFromFlag, options.low_bits.from_rank, 1, chosen + 1));
  }
  PENSTOCK_TRY(check_option("--context", options.context, 0, config.context_max()));
  PENSTOCK_TRY(check_option("--threads", options.threads, 0, 1024));
  PENSTOCK_TRY(check_option("--parallel", options.parallel, 1, 256));
  ResolvedOptions resolved;
  PlanRequest& request = resolved.request;
  request.config = config;
  if (options.speculation == Speculation::kOff) request.config.mtp_num_hidden_layers = 0;
  request.resident_bytes = files.resident_bytes();
  const auto experts =
      PENSTOCK_TRY(files.expert_sizes(static_cast<int>(request.config.num_moe_layers())));
  request.record_bytes = experts.slot_bytes;
  request.checksum_bytes = experts.checksum_bytes;
  request.layout_bytes = experts.layout_bytes;
  PENSTOCK_CHECK(files.low_bit_copy.has_value() == options.low_bits.is_on());
  const bool has_codes =
      files.has_codes() ||
      (files.low_bit_copy && files.low_bit_copy->manifest().version() > kFormatVersion);
  if (has_codes) request.coded_columns = widest_input(config);
  request.text_bytes = files.texts.bytes();
  request.experts_per_token = chosen;
  if (files.low_bit_copy) {
    const ExpertParts& copy = files.low_bit_copy->experts();
    request.copy = {.record_bytes = copy.largest_record(),
                    .checksum_bytes = copy.num_sums() * sizeof(Hash128),
                    .experts_per_token = chosen + 1 - options.low_bits.from_rank};
  }
  request.context =
      options.context > 0 ? options.context : std::min(kContextDefault, config.context_max());
  request.parallel = options.parallel;
  request.num_checkpoints = options.num_checkpoints;
  request.kv_form = options.kv_form;
  if (!options.prefix_store.directory.empty()) {
    request.prefix_store_bytes = PrefixStore::kMemoryBytes;
  }
  request.threads = options.threads > 0 ? options.threads : usable_processors().count;
  request.chunk_tokens = std::min(options.chunk_tokens, request.context);
  request.chunk_tokens_max = options.tuning.chunk_tokens_max;
  request.num_slots = options.num_slots;
  if (gpu != nullptr) request.gpu_bytes = gpu_host_bytes(*gpu, request);
  if (options.memory_bytes > 0) {
    request.budget_bytes = options.memory_bytes;
    resolved.budget_reason = "--memory";
  } else {
    request.budget_bytes = uint64_t{1} << 62;
    const MemoryPlan whole = PENSTOCK_TRY(plan_memory(request));
    const MemoryAvailability available = PENSTOCK_TRY(memory_available());
    const Budget budget = default_budget(
        available,
        {.minimum_bytes = whole.minimum_bytes, .all_resident_bytes = whole.all_resident_bytes});
    request.budget_bytes = budget.bytes;
    resolved.budget_reason = budget.reason;
  }
  if (options.speculation == Speculation::kAuto && !may_draft(request)) {
    request.config.mtp_num_hidden_layers = 0;
  }
  return resolved;
}

Result<std::unique_ptr<Engine>> Engine::open(Storage& storage, const EngineOptions& options,
                                             const LoadObserver& on_load) {
  std::optional<MemoryTurn> turn = take_turn(options);
  if (turn) {
    const uint64_t bytes = bytes_to_read_texts(storage, options.model);
    constexpr int kLooks = 100;  // it is a guess: no reason to refuse
    const auto probe = [&] { return look_at_memory(options); };
    static_cast<void>(make_room(bytes, {.probe = probe, .looks_max = kLooks}));
  }
  ModelFiles files = PENSTOCK_TRY(open_model(storage, options.model, options.chat_template_file));
  PENSTOCK_TRY(open_low_bit_copy(storage, options, files));
  turn.reset();
  std::optional<ChosenGpu> gpu = PENSTOCK_TRY(choose_engine_gpu(options));
  const ResolvedOptions resolved =
      PENSTOCK_TRY(resolve_options(files, options, gpu ? &*gpu : nullptr));
  std::unique_ptr<Engine> engine(new Engine(std::move(files)));
  engine->storage_ = &storage;
  engine->request_ = resolved.request;
  engine->moe_scratch_.limits = options.expert_limits;
  engine->low_bits_ = options.low_bits;
  engine->budget_reason_ = resolved.budget_reason;
  PENSTOCK_TRY(engine->open_expert_source(storage, options));
  PENSTOCK_TRY(engine->open_mirrors(storage, options));
  engine->plan_ = PENSTOCK_TRY(plan_memory(engine->request_));
  const Result<std::string> shortage = check_machine(engine->plan_);
  if (!shortage) return shortage.error();
  if (options.tell && !shortage->empty()) options.tell(*shortage);
  engine->speculation_ = engine->can_draft() ? options.speculation : Speculation::kOff;
  PENSTOCK_TRY(engine->read_generation_config(options.tell));
  const MemoryPlan& plan = engine->plan_;
  const ModelConfig& config = resolved.request.config;
  turn = take_turn(options);
  PENSTOCK_TRY(make_room_for_floor(plan, engine->request_, options));
  const ScratchShape shape = scratch_shape(plan.chunk_tokens, resolved.request.experts_per_token,
                                           resolved.request.parallel);
  const BackendLimits backend_sizes =
      backend_limits(config, shape, resolved.request.context, resolved.request.coded_columns,
                     resolved.request.kv_form);
  auto backend = PENSTOCK_TRY(CpuBackend::create(resolved.request.threads, backend_sizes,
                                                 {.target = options.simd_target,
                                                  .arithmetic = options.arithmetic,
                                                  .tasks = options.tuning.tasks,
                                                  .spins = options.tuning.spins}));
  ThreadPool& team = backend->team();
  engine->backend_ = std::move(backend);
  Memory& memory = engine->backend_->memory();
  engine->scratch_ = PENSTOCK_TRY(Scratch::create(config, shape, memory));
  engine->sequence_memory_ = PENSTOCK_TRY(
      SequenceMemory::create(config, sequence_limits(resolved.request), *engine->backend_));
  engine->resident_ = PENSTOCK_TRY(
      memory.take(engine->files_.resident_bytes(), "resident weights", Prefault::kYes));
  PENSTOCK_TRY(engine->open_store(options, team));
  PENSTOCK_TRY(engine->open_experts(options, team, std::move(gpu)));
  engine->sequence_memory_->set_backend(engine->ops());
  PENSTOCK_TRY(engine->open_copy(storage, options, team));
  engine->slots_.emplace(engine->request_, plan, *engine->store_, engine->low_bit_experts());
  engine->take_slots(options, std::move(turn));
  if (engine->gpu_) engine->gpu_->reach_slots();
  // Loading takes long enough for another engine to start.
  const auto on_step = [&engine = *engine, &on_load](uint64_t done, uint64_t total) {
    engine.watch_memory();
    if (on_load) on_load(done, total);
  };
  PENSTOCK_TRY(engine->load_weights(team, on_step));
  PENSTOCK_TRY(engine->open_prefix_store(storage, options));
  engine->prefixes_.emplace(resolved.request.num_checkpoints);
  engine->parts_.emplace(
      PassParts{.model = *engine->model_,
                .backend = engine->ops(),
                .team = team,
                .experts = engine->copy_ ? engine->copy_->experts() : *engine->experts_,
                .store = *engine->store_,
                .scratch = *engine->scratch_,
                .moe = engine->moe_scratch_,
                .memory = *engine->sequence_memory_,
                .prefixes = *engine->prefixes_,
                .between_layers = [&engine = *engine] { engine.watch_memory(); },
                .prefix_store = engine->prefix_store_.get(),
                .copy = engine->low_bit_experts()});
  return engine;
}

Engine::Engine(ModelFiles files) : files_(std::move(files)) {}

Engine::~Engine() = default;

Result<void> Engine::read_generation_config(const TellNote& tell) {
  const Json& config = files_.generation_config;
  std::vector<std::string> notes;
  sampling_defaults_ = penstock::sampling_defaults(config, notes);
  const auto json_of = [&](const char* name, Json otherwise) -> Result<Json> {
    const auto text = PENSTOCK_TRY(files_.optional_text(name));
    if (!text) return otherwise;
    Result<Json> parsed = parse_json(*text, files_.path_of(name));
    if (parsed) return parsed;
    notes.push_back(parsed.error().message);
    return otherwise;
  };
  const Json tokenizer_config = PENSTOCK_TRY(json_of("tokenizer_config.json", Json()));
  // The manifest's has only what is computed from.
  const Json model_config = PENSTOCK_TRY(
      json_of("config.json", files_.packed ? files_.packed->config() : Json::object()));
  const auto& tokenizer = files_.texts.tokenizer;
  StopTokens stops = stop_tokens({.generation_config = config,
                                  .config = model_config,
                                  .tokenizer_config = tokenizer_config,
                                  .tokenizer = tokenizer ? &*tokenizer : nullptr,
                                  .vocab_size = this->config().vocab_size});
  stop_ids_ = std::move(stops.ids);
  notes.insert(notes.end(), stops.notes.begin(), stops.notes.end());
  if (tell) std::ranges::for_each(notes, tell);
  return {};
}

// Without drafts the prediction block's experts, which come last, are left out.
Result<void> Engine::open_expert_source(Storage& storage, const EngineOptions& options) {
  const auto num_layers = static_cast<int>(request_.config.num_moe_layers());
  if (!options.expert_source) {
    source_ = PENSTOCK_TRY(files_.open_experts(storage, num_layers));
    if (!files_.source) return {};
    request_.record_bytes = SlotLayout(source_.table).slot_bytes();
    request_.checksum_bytes = source_.table.checksum_bytes();
    return options.verify ? load_checksums(options.checksum_file) : Result<void>();
  }
  PENSTOCK_CHECK(files_.packed.has_value());
  source_ = PENSTOCK_TRY(options.expert_source(storage, *files_.packed, num_layers));
  PENSTOCK_TRY(check_table(source_.table));
  request_.record_bytes = SlotLayout(source_.table).slot_bytes();
  request_.checksum_bytes = source_.table.checksum_bytes();
  return {};
}

Result<void> Engine::open_mirrors(Storage& storage, const EngineOptions& options) {
  if (options.mirrors.empty()) return {};
  if (!options.verify) {
    return Error{
        ErrorCode::kInvalidArgument,
        "--mirror needs the checksums of experts: a copy is trusted by nothing else; leave "
        "out --verify off"};
  }
  const std::vector<std::string> notes =
      PENSTOCK_TRY(open_copies(storage, options.mirrors, source_));
  if (options.tell) std::ranges::for_each(notes, options.tell);
  return check_table(source_.table);
}

// Whose states may be taken for ours: all that their bits depend on.
Result<void> Engine::open_prefix_store(Storage& storage, const EngineOptions& options) {
  if (options.prefix_store.directory.empty()) return {};
  constexpr int kEdition = 3;  // raised whenever the same model computes other bits
  std::string identity = fmt::format(
      "{} {} {} {} {} {}", kEdition, files_.id_text(), static_cast<int>(options.arithmetic),
      request_.experts_per_token, request_.config.mtp_num_hidden_layers, kKvPagePositions);
  if (!expert_limits().is_off()) identity += " " + to_text(expert_limits());
  if (kv_form() != KvForm::kFloat32) identity += fmt::format(" kv{}", bits_of(kv_form()));
  if (low_bits_.is_on()) identity += " " + low_bits_identity(files_, low_bits_);
  Storage* own = options.prefix_store.storage;
  prefix_store_ =
      PENSTOCK_TRY(PrefixStore::open(own == nullptr ? storage : *own, options.prefix_store,
                                     checksum(std::as_bytes(std::span(identity)), 0)));
  return {};
}

// A file of checksums that cannot be used is told and made anew: it protects nothing any more.
Result<void> Engine::load_checksums(const std::string& path) {
  checksum_file_ = path;
  if (path.empty()) return {};
  Result<KeptChecksums> kept = penstock::load_checksums(*storage_, path, files_.id());
  if (kept) {
    kept_checksums_ = std::move(*kept);
  } else if (kept.error().code != ErrorCode::kNotFound) {
    checksum_note_ = kept.error().message;
  }
  learn_checksums(kept_checksums_, source_.table);
  return {};
}

Result<void> Engine::keep_checksums() {
  if (checksum_file_.empty() || store_->stats().checksums_learned == 0) return {};
  return penstock::keep_checksums(*storage_, checksum_file_, files_.id(), store_->table(),
                                  kept_checksums_);
}

Result<void> Engine::open_store(const EngineOptions& options, ThreadPool& team) {
  std::unique_ptr<Reader> reader = PENSTOCK_TRY(reader_of(options, &reader_note_));
  store_ = PENSTOCK_TRY(ExpertStore::create(std::move(source_.table), std::move(reader),
                                            store_options(options, plan_.num_slots, team)));
  return {};
}

Result<void> Engine::open_copy(Storage& storage, const EngineOptions& options, ThreadPool& team) {
  if (!files_.low_bit_copy) return {};
  std::unique_ptr<Reader> reader = PENSTOCK_TRY(reader_of(options, nullptr));
  copy_ = PENSTOCK_TRY(EngineCopy::open(
      storage, *files_.low_bit_copy, static_cast<int>(request_.config.num_moe_layers()),
      std::move(reader), store_options(options, plan_.copy_slots, team)));
  copy_->stand_before(*experts_, *backend_, scratch_->rows().expert_hidden, low_bits_.from_rank);
  return {};
}

Result<void> Engine::open_experts(const EngineOptions& options, ThreadPool& team,
                                  std::optional<ChosenGpu> gpu) {
  const std::span<std::byte> memory = resident_.host_bytes();
  const ResidentWeights weights = files_.source
                                      ? files_.source_weights->placed(*files_.source, memory)
                                      : packed_weights(*files_.packed, memory);
  gpu_ = PENSTOCK_TRY(EngineGpu::open(std::move(gpu),
                                      {.config = request_.config,
                                       .weights = weights,
                                       .forms = source_.forms,
                                       .store = *store_,
                                       .cpu = *backend_,
                                       .team = team,
                                       .limits = gpu_limits(request_, plan_.chunk_tokens),
                                       .calls = trunk_calls(request_, plan_.chunk_tokens)},
                                      options));
  experts_.emplace(*store_, ops(), source_.forms, scratch_->rows().expert_hidden,
                   gpu_ ? &gpu_->tier() : nullptr);
  return {};
}

Backend& Engine::ops() {
  return gpu_ ? gpu_->backend() : *backend_;
}

std::optional<GpuReport> Engine::gpu_report() const {
  if (gpu_ == nullptr) return std::nullopt;
  return gpu_->report();
}

// The resident weights, as the model's files have them or as they are made of a checkpoint's.
Result<ResidentWeights> Engine::load_resident(ThreadPool& team, const LoadObserver& on_load) {
  const std::span<std::byte> memory = resident_.host_bytes();
  if (files_.source) return files_.source_weights->load(*files_.source, memory, &team, on_load);
  PENSTOCK_TRY(files_.packed->load_resident(memory, on_load));
  return packed_weights(*files_.packed, memory);
}

Result<void> Engine::load_weights(ThreadPool& team, const LoadObserver& on_load) {
  const ResidentWeights weights = PENSTOCK_TRY(load_resident(team, on_load));
  if (files_.low_bit_copy) {
    PENSTOCK_TRY(check_routers(*storage_, *files_.low_bit_copy, config(), weights));
  }

  const auto half = static_cast<size_t>(request_.context * config().rotary_dim() / 2);
  rope_ = PENSTOCK_TRY(backend_->memory().take(2 * half * sizeof(float), "rotary tables"));
  float* cos = rope_.floats();
  const std::span<float> table(reinterpret_cast<float*>(rope_.host_bytes().data()), 2 * half);
  fill_rope_table(config(), table.first(half), table.last(half));

  Result<std::unique_ptr<Model>> model = bind_model(config(), weights, {cos, cos + half});
  if (!model) return model.error().with_context(files_.path());
  model_ = std::move(*model);
  if (gpu_) gpu_->load();
  return {};
}

int64_t Engine::sampled_vocab() const {
  if (!files_.texts.tokenizer) return config().vocab_size;
  return std::min(config().vocab_size, files_.texts.tokenizer->vocab_size());
}

}  // namespace penstock
