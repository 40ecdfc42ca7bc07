// Benchmarks on small synthetic models: what they run is what they say, and what they compute does
// not depend on budget, cache or repetition.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "model/shapes.h"
#include "pack/synth.h"
#include "support/test_model.h"
#include "survey/bench_report.h"
#include "survey/bench_run.h"

namespace penstock {
namespace {

using test::value_of;
using testing::HasSubstr;

ModelConfig small_config(int64_t layers) {
  ModelConfig config = value_of(config_of(value_of(find_model_shape("demo")), layers));
  config.vocab_size = 512;
  config.hidden_size = 128;
  config.num_experts = 32;
  config.num_experts_per_tok = 4;
  config.moe_intermediate_size = 64;
  config.shared_expert_intermediate_size = 64;
  return config;
}

std::string synthetic_model(const std::string& name, int64_t layers, DType dtype) {
  SynthOptions options;
  options.target = test::temporary_folder() + "/" + name;
  options.name = name;
  options.config = small_config(layers);
  options.experts = options.resident = dtype;
  options.force = true;
  value_of(synthesise_model(posix_storage(), options, {}, {}));
  return options.target;
}

BenchOptions small_bench(const std::string& model, const std::string& routing) {
  BenchOptions options;
  options.engine = test::small_options(model);
  options.engine.context = 128;
  options.routing = routing;
  return options;
}

BenchTest small_test(CacheStart start, int64_t prompt, int64_t answer) {
  BenchTest bench_test;
  bench_test.start = start;
  bench_test.prompt_tokens = prompt;
  bench_test.answer_tokens = answer;
  bench_test.repetitions = 2;
  return bench_test;
}

BenchRow run_at(Bench& bench, BenchTest bench_test, const std::string& budget) {
  bench_test.budget_bytes = value_of(bench.budget_of(budget));
  return value_of(bench.run(bench_test, {}, {}));
}

TEST(SynthModel, activations_stay_finite_and_of_order_one_over_many_layers) {
  for (const DType dtype : {DType::kQ4, DType::kBF16}) {
    const auto engine = test::open_engine(test::small_options(synthetic_model("deep", 24, dtype)));
    const std::vector<TokenId> tokens = test::random_tokens(48, 512, 1);
    const test::Evaluation evaluation = test::evaluate(*engine, tokens);
    double squares = 0;
    for (const float logit : evaluation.logits) {
      ASSERT_TRUE(std::isfinite(logit));
      squares += double{logit} * logit;
    }
    const double deviation = std::sqrt(squares / static_cast<double>(evaluation.logits.size()));
    EXPECT_GT(deviation, 0.3) << name_of(dtype);
    EXPECT_LT(deviation, 3) << name_of(dtype);
    // About even routing: 48 tokens of 4 experts leave out few of 32.
    for (const std::vector<int32_t>& chosen : evaluation.experts) {
      EXPECT_GT(std::set<int32_t>(chosen.begin(), chosen.end()).size(), 20u);
    }
  }
}

TEST(Bench, budget_in_percent_is_the_share_of_experts_in_slots) {
  Bench bench = value_of(
      Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), "model")));
  for (const auto& [words, slots] : {std::pair("100%", 128), {"50%", 64}, {"25%", 32}}) {
    const BenchRow row = run_at(bench, small_test(CacheStart::kWarm, 4, 0), words);
    EXPECT_GE(row.num_slots, slots) << words;
    EXPECT_LE(row.num_slots, slots + 1) << words;
  }
  EXPECT_EQ(run_at(bench, small_test(CacheStart::kWarm, 4, 0), "floor").num_slots, 16);
  EXPECT_EQ(value_of(bench.budget_of("64M")), 64u << 20);
  for (const char* words : {"0%", "101%", "x%", "many"}) EXPECT_FALSE(bench.budget_of(words));
}

TEST(Bench, every_expert_that_fits_is_warm_with_any_number_of_experts_per_token) {
  for (const int64_t chosen : {1, 2, 7, 16}) {
    BenchOptions options = small_bench(synthetic_model("a", 4, DType::kQ4), "model");
    options.engine.experts_per_token = chosen;
    Bench bench = value_of(Bench::create(posix_storage(), options));
    const BenchRow row = run_at(bench, small_test(CacheStart::kWarm, 0, 12), "100%");
    EXPECT_EQ(row.total().store.bytes_read, 0u) << chosen << " experts per token";
  }
}

TEST(Bench, logits_are_the_same_at_every_budget_cold_or_warm) {
  for (const char* routing : {"model", "uniform", "session"}) {
    Bench bench = value_of(
        Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), routing)));
    for (const BenchTest& bench_test :
         {small_test(CacheStart::kWarm, 24, 0), small_test(CacheStart::kWarm, 0, 12)}) {
      std::set<uint64_t> hashes;
      for (const char* budget : {"100%", "40%", "floor"}) {
        for (const CacheStart start : {CacheStart::kCold, CacheStart::kWarm}) {
          BenchTest variant = bench_test;
          variant.start = start;
          variant.depth = 7;
          hashes.insert(run_at(bench, variant, budget).logits_hash);
        }
      }
      EXPECT_EQ(hashes.size(), 1u) << routing;
    }
  }
}

TEST(Bench, warm_cache_that_holds_everything_reads_nothing) {
  Bench bench = value_of(
      Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), "uniform")));
  const BenchRow warm = run_at(bench, small_test(CacheStart::kWarm, 0, 16), "100%");
  EXPECT_EQ(warm.total().store.bytes_read, 0u);
  EXPECT_EQ(warm.total().store.hits, 2u * 16 * 4 * 4);
  const BenchRow cold = run_at(bench, small_test(CacheStart::kCold, 0, 16), "100%");
  EXPECT_GT(cold.total().store.bytes_read, 0u);
  // Every repetition starts cold: both meet the same number of new experts, or nearly.
  const double first = static_cast<double>(cold.samples[0].phase.store.misses);
  EXPECT_NEAR(static_cast<double>(cold.samples[1].phase.store.misses), first, 0.25 * first);
}

TEST(Bench, routing_of_the_benchmark_replaces_that_of_the_model) {
  const std::string model = synthetic_model("a", 4, DType::kQ4);
  std::set<uint64_t> hashes;
  for (const char* routing : {"model", "uniform", "session"}) {
    Bench bench = value_of(Bench::create(posix_storage(), small_bench(model, routing)));
    hashes.insert(run_at(bench, small_test(CacheStart::kWarm, 16, 0), "floor").logits_hash);
  }
  EXPECT_EQ(hashes.size(), 3u);
}

TEST(Bench, counts_exactly_the_tokens_of_the_test) {
  Bench bench = value_of(
      Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), "uniform")));
  BenchTest bench_test = small_test(CacheStart::kWarm, 20, 0);
  bench_test.depth = 30;
  const BenchRow prompt = run_at(bench, bench_test, "50%");
  EXPECT_EQ(prompt.samples.size(), 2u);
  EXPECT_EQ(prompt.total().tokens, 2 * 20);
  EXPECT_GT(prompt.samples[0].first_token_ns, 0);
  EXPECT_EQ(test_name(bench_test), "pp20 @ d30");
  const BenchRow answer = run_at(bench, small_test(CacheStart::kWarm, 0, 9), "50%");
  EXPECT_EQ(answer.total().tokens, 2 * 9);
  EXPECT_EQ(answer.total().store.requests, 2u * 9 * 4 * 4);
}

TEST(Bench, memory_of_a_test_stays_within_its_budget) {
  Bench bench = value_of(
      Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), "uniform")));
  const BenchRow row = run_at(bench, small_test(CacheStart::kCold, 0, 16), "floor");
  if (!row.is_peak_of_test) GTEST_SKIP() << "this kernel does not let the peak be reset";
  EXPECT_GT(row.peak_resident_bytes, 0u);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(row.peak_resident_bytes, row.test.budget_bytes);
#endif
}

TEST(Bench, json_has_the_keys_of_llama_bench_and_ours) {
  Bench bench = value_of(
      Bench::create(posix_storage(), small_bench(synthetic_model("a", 4, DType::kQ4), "session")));
  EXPECT_GT(value_of(bench.probe_disk(0.05, {})), 0);
  const BenchRow row = run_at(bench, small_test(CacheStart::kCold, 0, 8), "25%");
  const BenchContext context = bench_context(bench.files(), "1.2.3");
  const Json json = to_json(row, context);
  for (const char* key : {"model_filename",   "model_type",     "model_size",
                          "model_n_params",   "n_batch",        "n_threads",
                          "n_prompt",         "n_gen",          "n_depth",
                          "test_time",        "avg_ns",         "stddev_ns",
                          "avg_ts",           "stddev_ts",      "samples_ns",
                          "samples_ts",       "build_commit",   "cpu_info",
                          "budget_bytes",     "cache_bytes",    "hit_rate",
                          "bytes_per_token",  "io_gbps",        "disk_gbps",
                          "disk_share",       "io_wait_frac",   "waits",
                          "unaccounted",      "cache",          "rss_peak",
                          "routing",          "logits_hash",    "prefetches",
                          "prefetches_used",  "prefetch_bytes", "recall",
                          "recall_of_misses", "loop_ends"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["cache"], "cold");
  EXPECT_EQ(json["samples_ts"].size(), 2u);
  EXPECT_GT(json["disk_share"].get<double>(), 0);
  const std::string table = table_head(context, row) + table_line(row);
  EXPECT_THAT(table, HasSubstr("| cold | tg8 |"));
}

TEST(Bench, text_needs_a_tokenizer) {
  BenchOptions options = small_bench(synthetic_model("a", 4, DType::kQ4), "model");
  options.text = "once upon a time";
  const auto refused = Bench::create(posix_storage(), options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("no tokenizer"));
}

TEST(BenchReport, spread_of_known_numbers) {
  const Spread spread = spread_of({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(spread.average, 2.5);
  EXPECT_DOUBLE_EQ(spread.median, 2.5);
  EXPECT_DOUBLE_EQ(spread.low, 1);
  EXPECT_DOUBLE_EQ(spread.high, 4);
  EXPECT_NEAR(spread.deviation, 1.290994, 1e-6);
  EXPECT_DOUBLE_EQ(spread_of({7}).deviation, 0);
}

}  // namespace
}  // namespace penstock
