// One benchmark: a prompt or an answer of some length at some depth of the context, at some budget,
// from a cold or a warm cache, several times over.
//
//   warm  One engine for all repetitions. Before the clock runs, as many experts as fit are read
//         (but those that limits of experts per token, or ranks that go to a copy in fewer bits, leave out of
//         the passes that read them), and
//         one repetition is thrown away.
//   cold  An engine of its own for every repetition: no expert is in memory, and the file is not in
//         the page cache. At a depth above 0 the context before it has been through the cache.
//
// Tokens, routing and draws of repetition i follow from (seed, i) alone; so the logits, of which a
// hash is kept, must be the same at every budget, cold or warm. What a repetition is measured by is
// the session's own account (engine/metrics.h): drawing tokens is outside of it.
//
//   Bench bench = PENSTOCK_TRY(Bench::create(posix_storage(), options));
//   test.budget_bytes = PENSTOCK_TRY(bench.budget_of("50%"));
//   BenchRow row = PENSTOCK_TRY(bench.run(test, {}, stop));
//
// Threads  the computing thread
// Memory   the engine's budget, and tables of routes of two bytes per choice
// Errors   create(): of open_model and RoutingSource. budget_of(): kInvalidArgument. run(): of
//          Engine::open and Session::generate; kCancelled
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "survey/routing_source.h"

namespace penstock {

enum class CacheStart : uint8_t { kWarm, kCold };
std::string_view name_of(CacheStart start);

struct BenchTest {
  uint64_t budget_bytes = 0;
  int64_t prompt_tokens = 0;  // one of these two is 0
  int64_t answer_tokens = 0;
  int64_t depth = 0;  // positions that are in the context already
  CacheStart start = CacheStart::kWarm;
  int repetitions = 5;
};

struct BenchSample {
  PhaseMetrics phase;
  int64_t first_token_ns = 0;  // of a prompt: from the call to the first token drawn
  int64_t drafts = 0, drafts_accepted = 0;
};

struct BenchRow {
  BenchTest test;
  std::string time;  // "2026-11-22T13:20:00Z", when it began
  std::string routing;
  std::string reader;   // "io_uring, depth 64"
  std::string compute;  // "AVX3, 2 threads"
  bool is_direct = false;
  int threads = 0;
  int64_t chunk_tokens = 0;
  int64_t num_slots = 0, num_experts = 0;
  uint64_t cache_bytes = 0;
  uint64_t peak_resident_bytes = 0;
  bool is_peak_of_test = false;  // else of the process so far
  uint64_t logits_hash = 0;      // over all repetitions
  double flash_gbps = 0;  // what the disk gives (Bench::probe_disk); 0: not measured, or several
  double flash_mean_gbps = 0;       // what it gave in the mean, beside others
  std::vector<DriveReport> drives;  // of the whole test, warming up included
  // At the end of the test; lost: at any time of it. Its counts are of the last engine.
  std::optional<GpuReport> gpu;
  std::vector<BenchSample> samples;
  std::vector<LayerRecall> recall;  // [layer], of all repetitions

  PhaseMetrics total() const;          // of all samples
  std::vector<double> speeds() const;  // tokens per second, one per sample
};

struct BenchOptions {
  EngineOptions engine;  // each test brings its budget; the context must hold them all
  std::string routing = "model";
  uint64_t seed = 1;
  std::string text;  // prompts are cut from it, where the model has a tokenizer; empty: random ids
  // 0 to 1: such a share of the drafts is right, whatever the prediction block says (that of a
  // synthetic model guesses nothing). Each repetition then runs twice, first to learn its answer.
  std::optional<double> drafts_right;
};

// Positions that a test needs, the warm-up through all experts included. experts_per_token 0: as
// trained.
int64_t context_of(const BenchTest& test, const ModelConfig& config, int64_t experts_per_token);

class Bench {
 public:
  static Result<Bench> create(Storage& storage, BenchOptions options);

  // Without tokenizer and template: what the engine does not need twice.
  const ModelFiles& files() const { return model_.files; }
  int64_t experts_per_token() const { return model_.request.experts_per_token; }

  const BenchOptions& options() const { return options_; }

  // "100%", "25%": of the experts are in slots. "floor": the smallest workable. "default": of the
  // engine's options, or what the machine has. "6G": as said.
  Result<uint64_t> budget_of(const std::string& words) const;

  // GB/s that the engine's reader gets from the experts' file by reads of the engine's size and
  // depth; rows made from now on carry it.
  Result<double> probe_disk(double seconds, std::stop_token stop);

  using Observer = std::function<void(int done, int total)>;  // repetitions
  Result<BenchRow> run(const BenchTest& test, const Observer& observer, std::stop_token stop);

 private:
  struct Model {
    ModelFiles files;
    PlanRequest request;  // with the budget that the options ask for
    RoutingShape shape;
  };

  Bench(Storage& storage, BenchOptions options, Model model, RoutingSource routing,
        std::vector<TokenId> text)
      : storage_(&storage),
        options_(std::move(options)),
        model_(std::move(model)),
        routing_(std::move(routing)),
        text_(std::move(text)) {}

  Result<void> open_engine(const BenchTest& test);
  Result<void> drop_file_cache();
  Result<void> warm_up(const BenchTest& test, Session& session, std::stop_token stop);
  Result<BenchSample> repeat(const BenchTest& test, Session& session, uint64_t sequence,
                             uint64_t& hash, std::stop_token stop);
  struct Draws {
    uint64_t seed = 0;
    RoutePlayer* player = nullptr;
    const std::vector<TokenId>* answer = nullptr;  // known from before: what right drafts are
  };
  Result<GenerateResult> generate(Session& session, std::span<const TokenId> prompt,
                                  int64_t answer_tokens, const Draws& draws, std::stop_token stop);
  std::vector<TokenId> prompt_of(uint64_t sequence, int64_t tokens) const;
  void describe(BenchRow& row) const;

  Storage* storage_;
  BenchOptions options_;
  Model model_;
  RoutingSource routing_;
  std::vector<TokenId> text_;
  double flash_gbps_ = 0, flash_mean_gbps_ = 0;
  std::unique_ptr<Engine> engine_;  // of the last warm test
};

}  // namespace penstock
