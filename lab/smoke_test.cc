// A smoke experiment: two arms on a small model and a simulated disk of a fixed speed.
//
// What the laboratory does with clocks on real machines is done here with counts, which are the
// same on every machine: reads, bytes, evictions, hits, waits. It shows that the counters which
// experiments are judged by mean what the cost model says they mean.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>

#include "base/check.h"
#include "io/read_progress.h"
#include "support/test_model.h"
#include "survey/cost_model.h"

namespace penstock::test {
namespace {

constexpr int64_t kPromptTokens = 24;
constexpr int64_t kAnswerTokens = 16;

// What the disk saw; outlives the reader.
struct DiskMeter {
  uint64_t reads = 0, bytes = 0;
  uint64_t waits = 0;  // calls of reap() that waited
  int most_in_flight = 0;
};

// A disk that brings so many bytes per wait, in order, and nothing in between.
class ThrottledDisk final : public Reader {
 public:
  ThrottledDisk(uint64_t bytes_per_wait, DiskMeter& meter)
      : bytes_per_wait_(bytes_per_wait), meter_(meter) {}
  ~ThrottledDisk() override { PENSTOCK_CHECK(queue_.empty()); }

  std::string description() const override { return "simulated, throttled"; }
  int capacity() const override { return 64; }
  int in_flight() const override { return static_cast<int>(queue_.size()); }

  void submit(std::span<ReadRequest* const> requests) override {
    for (ReadRequest* request : requests) {
      begin_read(*request);
      queue_.push_back(request);
      ++meter_.reads;
      meter_.bytes += request->bytes;
    }
    meter_.most_in_flight = std::max(meter_.most_in_flight, in_flight());
  }

  void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) override {
    if (timeout.count() <= 0 || queue_.empty()) return;
    ++meter_.waits;
    uint64_t brought = 0;
    do {
      ReadRequest* request = queue_.front();
      queue_.pop_front();
      read_to_the_end(*request);
      finished.push_back(request);
      brought += request->bytes;
    } while (!queue_.empty() && brought + queue_.front()->bytes <= bytes_per_wait_);
  }

 private:
  uint64_t bytes_per_wait_;
  DiskMeter& meter_;
  std::deque<ReadRequest*> queue_;
};

struct Arm {
  int64_t num_slots = 0;
  int64_t chunk_tokens = 8;
  EvictionPolicy policy = EvictionPolicy::kFrequencyRecency;
  uint64_t bytes_per_wait = 64 << 10;
};

struct Outcome {
  std::vector<TokenId> tokens;
  uint64_t hash = 0;
  DiskMeter disk;
  PhaseMetrics prompt, answer;
  uint64_t distinct = 0;   // experts asked for, of every layer of every chunk and token
  uint64_t ever_used = 0;  // different experts of the whole run
  uint64_t record_bytes = 0;
  int64_t num_slots = 0, num_experts = 0;

  StoreStats store() const { return prompt.store + answer.store; }
};

Outcome run(const Arm& arm) {
  Outcome outcome;
  EngineOptions options = small_options(packed_random("r3-wrapped"));
  options.num_slots = arm.num_slots;
  options.chunk_tokens = arm.chunk_tokens;
  options.policy = arm.policy;
  options.prefetch = false;  // every read is a demanded one: the ledger below is exact
  options.reader_factory = [&] {
    return std::make_unique<ThrottledDisk>(arm.bytes_per_wait, outcome.disk);
  };
  const auto engine = open_engine(options);
  outcome.record_bytes = engine->plan_request().record_bytes;
  outcome.num_slots = engine->plan().num_slots;
  outcome.num_experts = engine->plan().num_experts;
  std::set<std::pair<int64_t, int32_t>> ever;
  GenerateOptions how;
  how.max_tokens = kAnswerTokens;
  how.on_route = [&](int64_t layer, const Routing& routing, Rows) {
    const auto count = routing.num_tokens * routing.top_k;
    const std::set<int32_t> distinct(routing.experts.begin(), routing.experts.begin() + count);
    outcome.distinct += distinct.size();
    for (const int32_t expert : distinct) ever.insert({layer, expert});
  };
  Session session = value_of(engine->new_session());
  const std::vector<TokenId> prompt = random_tokens(kPromptTokens, engine->config().vocab_size, 11);
  const GenerateResult result = value_of(session.generate(prompt, how, {}));
  outcome.tokens = result.tokens;
  outcome.hash = result.metrics.logits_hash;
  outcome.prompt = result.metrics.prompt;
  outcome.answer = result.metrics.answer;
  outcome.ever_used = ever.size();
  return outcome;
}

// The smallest cache that is not useless, and all experts.
int64_t floor_slots() {
  return 4 * 8;
}
int64_t half_slots() {
  return 4 * 32 / 2;
}

TEST(Smoke, every_miss_is_one_read_per_part_and_every_byte_is_accounted_for) {
  for (const int64_t slots : {floor_slots(), half_slots(), int64_t{0}}) {
    const Outcome outcome = run({.num_slots = slots});
    const StoreStats store = outcome.store();
    EXPECT_GT(store.misses, 0u);
    EXPECT_EQ(store.reads, 2 * store.misses);
    EXPECT_EQ(outcome.disk.reads, store.reads);
    EXPECT_EQ(outcome.disk.bytes, store.bytes_read);
    EXPECT_EQ(store.bytes_read, store.misses * outcome.record_bytes);
    EXPECT_EQ(store.hits + store.misses, outcome.distinct);
    EXPECT_GT(outcome.disk.waits, 0u);
  }
}

TEST(Smoke, what_is_read_and_not_evicted_is_what_the_slots_hold) {
  const Outcome tight = run({.num_slots = floor_slots()});
  ASSERT_GT(tight.ever_used, static_cast<uint64_t>(tight.num_slots));
  EXPECT_GT(tight.store().evictions, 0u);
  EXPECT_EQ(tight.store().misses - tight.store().evictions, static_cast<uint64_t>(tight.num_slots));
  const Outcome roomy = run({});
  EXPECT_EQ(roomy.num_slots, roomy.num_experts);
  EXPECT_EQ(roomy.store().evictions, 0u);
  EXPECT_EQ(roomy.store().misses, roomy.ever_used) << "each expert is read once";
}

TEST(Smoke, the_same_arm_twice_counts_the_same) {
  const Outcome first = run({.num_slots = half_slots()});
  const Outcome second = run({.num_slots = half_slots()});
  EXPECT_EQ(first.disk.reads, second.disk.reads);
  EXPECT_EQ(first.disk.bytes, second.disk.bytes);
  EXPECT_EQ(first.disk.waits, second.disk.waits);
  EXPECT_EQ(first.store().evictions, second.store().evictions);
  EXPECT_EQ(first.hash, second.hash);
}

// Hypothesis: more slots cut flash traffic. Refuted if bytes do not fall from arm to arm.
TEST(Smoke, experiment_more_slots_fewer_bytes_same_answer) {
  const Outcome a = run({.num_slots = floor_slots()});
  const Outcome b = run({.num_slots = half_slots()});
  const Outcome c = run({});
  EXPECT_GT(a.disk.bytes, b.disk.bytes);
  EXPECT_GT(b.disk.bytes, c.disk.bytes);
  EXPECT_GT(a.store().evictions, b.store().evictions);
  for (const Outcome* other : {&b, &c}) {
    EXPECT_EQ(a.tokens, other->tokens);
    EXPECT_EQ(a.hash, other->hash);
  }
}

// Hypothesis: a longer chunk reads each expert for more tokens. It does, and changes nothing else.
TEST(Smoke, experiment_longer_chunks_read_less_for_the_same_prompt) {
  const Outcome single = run({.num_slots = floor_slots(), .chunk_tokens = 1});
  const Outcome whole = run({.num_slots = floor_slots(), .chunk_tokens = kPromptTokens});
  EXPECT_GT(single.prompt.store.bytes_read, whole.prompt.store.bytes_read);
  // One pass: each expert of the prompt is read at most once.
  EXPECT_LE(whole.prompt.store.misses, static_cast<uint64_t>(whole.num_experts));
  EXPECT_EQ(single.hash, whole.hash);
}

// Hypothesis: the policy decides who goes, and so what is read; never what is computed.
TEST(Smoke, experiment_policies_differ_in_reads_alone) {
  std::set<uint64_t> reads;
  const Outcome base = run({.num_slots = half_slots()});
  for (const EvictionPolicy policy : kEvictionPolicies) {
    const Outcome outcome = run({.num_slots = half_slots(), .policy = policy});
    EXPECT_EQ(outcome.hash, base.hash) << name_of(policy);
    EXPECT_EQ(outcome.distinct, base.distinct) << name_of(policy);
    reads.insert(outcome.disk.reads);
  }
  EXPECT_GT(reads.size(), 1u) << "a policy that changes no read did not act";
}

TEST(Smoke, a_slower_disk_means_more_waits_and_nothing_else) {
  const Outcome fast = run({.num_slots = half_slots(), .bytes_per_wait = 1 << 20});
  const Outcome slow = run({.num_slots = half_slots(), .bytes_per_wait = 1});
  EXPECT_GT(slow.disk.waits, fast.disk.waits);
  EXPECT_LE(slow.disk.waits, slow.disk.reads) << "one read per wait, and some without";
  EXPECT_EQ(slow.disk.bytes, fast.disk.bytes);
  EXPECT_EQ(slow.hash, fast.hash);
}

// The model's flash term at the measured hit rate is the measured traffic, to the byte.
TEST(Smoke, the_cost_model_predicts_the_bytes_of_a_token_from_its_hit_rate) {
  const Outcome outcome = run({.num_slots = half_slots()});
  const StoreStats& store = outcome.answer.store;
  ASSERT_GT(store.misses, 0u);
  CostInput input;
  const auto engine = open_engine(small_options(packed_random("r3-wrapped")));
  input.config = engine->config();
  input.sizes = model_sizes(input.config, {.experts = 16, .resident = 16});
  input.sizes.record_bytes = outcome.record_bytes;
  input.rates = {.flash_gbps = 1, .memory_gbps = 10, .prefill_gflops = 10};
  input.hits = {HitKind::kGiven,
                static_cast<double>(store.hits) / static_cast<double>(store.hits + store.misses)};
  input.experts_per_token = engine->experts_per_token();
  const double measured =
      static_cast<double>(store.bytes_read) / static_cast<double>(outcome.answer.tokens);
  EXPECT_NEAR(token_cost(input).flash_bytes, measured, 1);
}

}  // namespace
}  // namespace penstock::test
