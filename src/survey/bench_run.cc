#include "survey/bench_run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <random>
#include <utility>

#include "base/byte_text.h"
#include "engine/gpu_setup.h"
#include "host/memory_limits.h"
#include "host/peak_memory.h"
#include "io/checksum.h"
#include "survey/probes.h"

namespace penstock {
namespace {

// Sequences that no repetition uses.
constexpr uint64_t kWarmUpSequence = uint64_t{1} << 32;

std::string utc_now() {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
}

Error not_a_budget(const std::string& words) {
  return {
      ErrorCode::kInvalidArgument,
      fmt::format("\"{}\" is no budget; write 50%, floor or a number of bytes such as 6G", words)};
}

// The smallest budget at which so many experts are in slots. The longer chunks of larger budgets
// take a little room from the slots, so it is searched for and not computed.
Result<uint64_t> budget_for_slots(PlanRequest request, int64_t slots) {
  request.budget_bytes = uint64_t{1} << 62;
  const MemoryPlan largest = PENSTOCK_TRY(plan_memory(request));
  uint64_t low = largest.minimum_bytes, high = largest.all_resident_bytes;
  request.budget_bytes = low;
  if (PENSTOCK_TRY(plan_memory(request)).slots_of_each >= slots) return low;
  while (high - low > 4096) {
    request.budget_bytes = low + (high - low) / 2;
    const bool is_enough = PENSTOCK_TRY(plan_memory(request)).slots_of_each >= slots;
    (is_enough ? high : low) = request.budget_bytes;
  }
  return high;
}

PhaseMetrics add(PhaseMetrics a, const PhaseMetrics& b) {
  a.tokens += b.tokens;
  a.wall_ns += b.wall_ns;
  a.times += b.times;
  a.loop_ends_ns += b.loop_ends_ns;
  a.store = a.store + b.store;
  return a;
}

void add_recall(std::span<const LayerRecall> recall, std::vector<LayerRecall>& sum) {
  sum.resize(recall.size());
  for (size_t layer = 0; layer < sum.size(); ++layer) sum[layer] += recall[layer];
}

// What was counted since the last time; whether it rests is said of now.
void add_drives(std::vector<DriveReport> now, std::vector<DriveReport>& sum) {
  for (size_t i = 0; i < sum.size(); ++i) {
    now[i].stats.reads += sum[i].stats.reads;
    now[i].stats.bytes += sum[i].stats.bytes;
    now[i].stats.failures += sum[i].stats.failures;
  }
  sum = std::move(now);
}

void note_gpu(const Engine& engine, BenchRow& row) {
  const bool was_lost = row.gpu && row.gpu->is_lost;
  row.gpu = engine.gpu_report();
  if (row.gpu && was_lost) row.gpu->is_lost = true;
}

}  // namespace

std::string_view name_of(CacheStart start) {
  return start == CacheStart::kCold ? "cold" : "warm";
}

PhaseMetrics BenchRow::total() const {
  PhaseMetrics sum;
  for (const BenchSample& sample : samples) sum = add(sum, sample.phase);
  return sum;
}

std::vector<double> BenchRow::speeds() const {
  std::vector<double> result;
  for (const BenchSample& sample : samples) result.push_back(sample.phase.tokens_per_second());
  return result;
}

int64_t context_of(const BenchTest& test, const ModelConfig& config, int64_t experts_per_token) {
  const int64_t chosen = experts_per_token > 0 ? experts_per_token : config.num_experts_per_tok;
  const int64_t warm_up = (config.num_experts + chosen - 1) / chosen;
  const int64_t needed =
      test.depth + std::max<int64_t>(1, test.prompt_tokens) + test.answer_tokens + 1;
  return std::max(needed, warm_up + 1);
}

namespace {

// With the share of this machine's memory that a GPU has, as the engine will count it. The GPU is given
// back: what cannot be is told when the engine opens it.
Result<PlanRequest> request_of(const ModelFiles& files, EngineOptions options) {
  options.tell = {};
  const std::optional<ChosenGpu> gpu = PENSTOCK_TRY(choose_engine_gpu(options));
  return PENSTOCK_TRY(resolve_options(files, options, gpu ? &*gpu : nullptr)).request;
}

}  // namespace

Result<Bench> Bench::create(Storage& storage, BenchOptions options) {
  ModelFiles files = PENSTOCK_TRY(open_model(storage, options.engine.model));
  PENSTOCK_TRY(open_low_bit_copy(storage, options.engine, files));
  PlanRequest request = PENSTOCK_TRY(request_of(files, options.engine));
  const RoutingShape shape = {files.config.num_expert_layers(), files.config.num_experts,
                              request.experts_per_token};
  RoutingSource routing =
      PENSTOCK_TRY(RoutingSource::open(storage, options.routing, shape, options.seed));
  if (!routing.is_model() && request.config.mtp_num_hidden_layers > 0) {
    if (options.engine.speculation == Speculation::kOn) {
      return Error{ErrorCode::kInvalidArgument,
                   "--speculate on goes with --routing model only: a pass with a draft asks for "
                   "experts that a generated or recorded routing does not have"};
    }
    options.engine.speculation = Speculation::kOff;
    request = PENSTOCK_TRY(request_of(files, options.engine));
  }
  std::vector<TokenId> text;
  if (!options.text.empty()) {
    if (!files.texts.tokenizer) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} has no tokenizer, so a benchmark cannot take a text",
                               options.engine.model)};
    }
    text = files.texts.tokenizer->encode(options.text, SpecialTokens::kAsText);
  }
  // Every engine brings its own; a second one would be memory that no budget knows of.
  files.texts.tokenizer.reset();
  files.texts.chat_template.reset();
  return Bench(storage, std::move(options), {std::move(files), std::move(request), shape},
               std::move(routing), std::move(text));
}

Result<uint64_t> Bench::budget_of(const std::string& words) const {
  if (words == "default") return model_.request.budget_bytes;
  if (words == "floor") return budget_for_slots(model_.request, 0);
  if (!words.ends_with('%')) return parse_bytes(words);
  double percent = 0;
  const char* end = words.data() + words.size() - 1;
  const auto [stopped, failure] = std::from_chars(words.data(), end, percent);
  if (failure != std::errc{} || stopped != end || !(percent > 0 && percent <= 100)) {
    return not_a_budget(words);
  }
  const ModelConfig& config = model_.request.config;
  const int64_t all = config.num_moe_layers() * config.num_experts;
  return budget_for_slots(model_.request,
                          static_cast<int64_t>(percent / 100 * static_cast<double>(all) + 0.5));
}

Result<double> Bench::probe_disk(double seconds, std::stop_token stop) {
  // The first of the files that hold experts stands for all.
  const std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage_->open(model_.files.expert_paths().front(), OpenMode::kReadDirect));
  std::string note;
  const std::unique_ptr<Reader> reader =
      options_.engine.reader_factory ? options_.engine.reader_factory()
                                     : PENSTOCK_TRY(make_reader(options_.engine.reader, &note));
  // A layer of a decoded token asks for all parts of top_k experts.
  constexpr auto kParts = std::ssize(kPackedParts);
  const int64_t in_flight = kParts * model_.shape.top_k;
  // The best of some slices is what the disk can give, their mean what others leave of it.
  constexpr int kSlices = 3;
  const FlashCase how = {
      .read_bytes = align_file(model_.request.record_bytes / kParts),
      .depth = static_cast<int>(std::min<int64_t>(in_flight, reader->capacity())),
      .seconds = seconds / kSlices};
  flash_gbps_ = flash_mean_gbps_ = 0;
  for (int slice = 0; slice < kSlices; ++slice) {
    const double gbps = PENSTOCK_TRY(probe_flash(*reader, *file, how, stop)).gbps;
    flash_gbps_ = std::max(flash_gbps_, gbps);
    flash_mean_gbps_ += gbps / kSlices;
  }
  return flash_gbps_;
}

Result<void> Bench::drop_file_cache() {
  std::vector<std::string> paths = model_.files.expert_paths();
  if (model_.files.low_bit_copy) paths.push_back(model_.files.low_bit_copy->experts_path());
  for (const std::string& path : paths) {
    const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage_->open(path, OpenMode::kRead));
    file->drop_cached(0, PENSTOCK_TRY(file->stat()).bytes);
  }
  return {};
}

Result<void> Bench::open_engine(const BenchTest& test) {
  engine_.reset();  // two at a time would be beyond the budget
  if (test.start == CacheStart::kCold) PENSTOCK_TRY(drop_file_cache());
  EngineOptions options = options_.engine;
  options.memory_bytes = test.budget_bytes;
  engine_ = PENSTOCK_TRY(Engine::open(*storage_, options, {}));
  return {};
}

std::vector<TokenId> Bench::prompt_of(uint64_t sequence, int64_t tokens) const {
  std::vector<TokenId> prompt(static_cast<size_t>(tokens));
  if (!text_.empty()) {
    size_t at = static_cast<size_t>(sequence * prompt.size() % text_.size());
    for (TokenId& id : prompt) id = text_[at++ % text_.size()];
    return prompt;
  }
  std::mt19937_64 random(options_.seed * 1'000'003 + sequence);
  const auto vocab = static_cast<uint64_t>(engine_->sampled_vocab());
  for (TokenId& id : prompt) id = static_cast<TokenId>(random() % vocab);
  return prompt;
}

Result<GenerateResult> Bench::generate(Session& session, std::span<const TokenId> prompt,
                                       int64_t answer_tokens, const Draws& draws,
                                       std::stop_token stop) {
  GenerateOptions options;
  // The most likely token of a model of random weights soon comes in a loop; draws do not. From so
  // many as the published models' own defaults.
  options.sampling.temperature = 1;
  options.sampling.top_k = 20;
  options.sampling.seed = draws.seed;
  options.max_tokens = answer_tokens + 1;  // the first one comes out of the prompt's pass
  if (draws.player != nullptr) options.reroute = draws.player->override_routes();
  std::mt19937_64 random(draws.seed);
  const auto vocab = static_cast<TokenId>(engine_->sampled_vocab());
  if (draws.answer != nullptr) {
    options.redraft = [&](int64_t position, TokenId) {
      const auto at = static_cast<size_t>(position) - prompt.size();
      const TokenId truth = at < draws.answer->size() ? (*draws.answer)[at] : 0;
      const bool is_right = static_cast<double>(random() >> 11) * 0x1p-53 < *options_.drafts_right;
      return is_right ? truth : (truth + 1) % vocab;
    };
  }
  GenerateResult result = PENSTOCK_TRY(session.generate(prompt, options, stop));
  if (result.finish == FinishReason::kCancelled) {
    return Error{ErrorCode::kCancelled, "the benchmark was stopped"};
  }
  return result;
}

Result<BenchSample> Bench::repeat(const BenchTest& test, Session& session, uint64_t sequence,
                                  uint64_t& hash, std::stop_token stop) {
  const int64_t prompt_tokens = std::max<int64_t>(1, test.prompt_tokens);
  const int64_t fed = test.depth + prompt_tokens + test.answer_tokens;
  const std::vector<TokenId> prompt = prompt_of(sequence, test.depth + prompt_tokens);
  std::optional<RoutePlayer> routes;
  if (!routing_.is_model()) routes.emplace(routing_.make(sequence, fed));
  Draws draws = {.seed = sequence, .player = routes ? &*routes : nullptr};

  std::vector<TokenId> answer;
  if (options_.drafts_right && engine_->can_draft()) {
    session.reset();
    answer = PENSTOCK_TRY(generate(session, prompt, test.answer_tokens, draws, stop)).tokens;
    draws.answer = &answer;
  }
  session.reset();
  if (test.depth > 0) {
    const auto before = std::span(prompt).first(static_cast<size_t>(test.depth));
    PENSTOCK_TRY(generate(session, before, 0, draws, stop));
  }
  const GenerationMetrics metrics =
      PENSTOCK_TRY(generate(session, prompt, test.answer_tokens, draws, stop)).metrics;
  const uint64_t hashes[] = {hash, metrics.logits_hash};
  hash = checksum(std::as_bytes(std::span(hashes)), 0).low;
  const BenchSample sample = {test.prompt_tokens > 0 ? metrics.prompt : metrics.answer,
                              metrics.first_token_ns, metrics.drafts, metrics.drafts_accepted};
  PENSTOCK_CHECK(sample.phase.tokens == std::max(test.prompt_tokens, test.answer_tokens));
  return sample;
}

Result<void> Bench::warm_up(const BenchTest& test, Session& session, std::stop_token stop) {
  if (engine_->plan().slots_of_each >= engine_->plan().num_experts) {
    RouteTable routes = routes_through_all(model_.shape);
    const int64_t tokens = routes.num_tokens;
    RoutePlayer player(std::move(routes));
    session.reset();
    PENSTOCK_TRY(
        generate(session, prompt_of(kWarmUpSequence, tokens), 0, {.player = &player}, stop));
  }
  uint64_t hash = 0;
  PENSTOCK_TRY(repeat(test, session, kWarmUpSequence, hash, stop));
  return {};
}

void Bench::describe(BenchRow& row) const {
  const MemoryPlan& plan = engine_->plan();
  row.routing = routing_.name();
  row.reader = engine_->experts().reader_description();
  row.compute = engine_->backend().description();
  row.is_direct = engine_->reads_direct();
  row.threads = engine_->plan_request().threads;
  row.chunk_tokens = plan.chunk_tokens;
  row.num_slots = plan.num_slots;
  row.num_experts = plan.num_experts;
  const PlanRequest& request = engine_->plan_request();
  row.cache_bytes = static_cast<uint64_t>(plan.num_slots) * request.record_bytes +
                    static_cast<uint64_t>(plan.copy_slots) * request.copy.record_bytes;
  // Of the first drive: with more of them it is no limit, and nobody's share.
  if (options_.engine.mirrors.empty()) {
    row.flash_gbps = flash_gbps_;
    row.flash_mean_gbps = flash_mean_gbps_;
  }
}

Result<BenchRow> Bench::run(const BenchTest& test, const Observer& observer, std::stop_token stop) {
  PENSTOCK_CHECK((test.prompt_tokens > 0) != (test.answer_tokens > 0));
  PENSTOCK_CHECK(test.repetitions > 0);
  BenchRow row;
  row.test = test;
  row.time = utc_now();
  const bool is_cold = test.start == CacheStart::kCold;
  const bool fits = engine_ && engine_->plan_request().budget_bytes == test.budget_bytes;
  if (is_cold || !fits) engine_.reset();
  row.is_peak_of_test = reset_peak_resident_bytes();
  if (engine_ == nullptr) PENSTOCK_TRY(open_engine(test));
  describe(row);
  std::optional<Session> session = PENSTOCK_TRY(engine_->new_session());
  if (!is_cold) PENSTOCK_TRY(warm_up(test, *session, stop));
  for (int i = 0; i < test.repetitions; ++i) {
    if (observer) observer(i, test.repetitions);
    add_drives(engine_->experts().drives(), row.drives);
    if (is_cold && i > 0) {
      note_gpu(*engine_, row);
      session.reset();
      PENSTOCK_TRY(open_engine(test));
      session = PENSTOCK_TRY(engine_->new_session());
    }
    engine_->experts().reset_stats();
    row.samples.push_back(
        PENSTOCK_TRY(repeat(test, *session, static_cast<uint64_t>(i), row.logits_hash, stop)));
    add_recall(engine_->experts().recall(), row.recall);
  }
  session.reset();
  add_drives(engine_->experts().drives(), row.drives);
  note_gpu(*engine_, row);
  if (is_cold) engine_.reset();  // its cache is not that of a warm test
  row.peak_resident_bytes = peak_resident_bytes();
  return row;
}

}  // namespace penstock
