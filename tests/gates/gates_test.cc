// Gates: identities that hold bit for bit on the logits, whatever the store and the clock do.
//
//   G1  all experts resident == streamed with any number of slots, down to one
//   G2  any reader, any queue depth, any order of completion
//   G3  any number of threads
//   G4  prompt in one chunk == in chunks of any size, down to one token
//   G5  a session that holds a prefix, or goes back to a checkpoint == a fresh one
//   G6  after a cancelled request == as if it had never been
//   G7  after a read that failed and was tried again; a read that fails for good is an error and
//       leaves nothing behind
//   G8  any eviction policy, checksums compared or not
//   G9  any instruction set, none included; the demo model also against the hashes it had elsewhere
//   G10 the decode path, token by token == the prompt path
//   G11 quantised weights: G1, G3, G4 and G9 again, in each arithmetic
//   G12 any budget that the plan accepts
//   G13 fewer experts per token is another model, and says so
//   G14 any allocation that fails while loading is an error, and the next attempt works
//   G15 experts read ahead or not, right or wrong, in time or not, or not at all because the read
//       failed or the request was cancelled
//   G16 warm-started with what an earlier run used most, wholly, in part or with a failed read, or
//       cold
//   G17 slots given back and taken again at any time, between tokens and between layers
//   G18 drafts, right or wrong, kept or dropped (speculation_gates_test.cc)
//   G20 sequences evaluated together, in any mix of prompts and answers, joining and leaving at any
//       pass, with drafts, forked and gone back == each alone (sequence_gates_test.cc)
//   G21 a pass that failed or was cancelled, for one sequence or several == as if it had never been
//   G22 prefixes from a disk, after a restart, with files that are damaged, torn, missing or another
//       model's, and disks that fail or are full == computed anew (prefix_gates_test.cc)
//   G29 any value of any knob
//
// Numbers are given once and never reused. A gate also asserts that what it is about really
// happened: evictions, chunks, retries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>

#include "base/memory.h"
#include "compute/cpu/cpu_backend.h"
#include "engine/knobs.h"
#include "io/checksum.h"
#include "support/fake_reader.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

struct GateModel {
  const char* name;
  int64_t prompt_tokens;
};

// Two shapes: many small experts with eight of 32 chosen; and one chosen of four, biases, other
// convolution.
constexpr GateModel kModels[] = {{"r3-wrapped", 41}, {"r2-top1", 33}, {"m2-dense", 37}};

std::vector<TokenId> prompt_for(const Engine& engine, int64_t tokens) {
  return random_tokens(tokens, engine.config().vocab_size, 7);
}

std::unique_ptr<Reader> fake_reader(uint64_t seed, FakeFaults* faults) {
  return std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed}, faults);
}

// Logits of all positions, then a greedy continuation, as one list of bits.
struct Answer {
  std::vector<float> logits;
  std::vector<TokenId> tokens;
  uint64_t hash = 0;
  StoreStats store;
  int64_t chunks = 0;

  bool operator==(const Answer& other) const {
    return same_bits(logits, other.logits) && tokens == other.tokens && hash == other.hash;
  }
};

Answer answer_of(Engine& engine, int64_t prompt_tokens) {
  const std::vector<TokenId> prompt = prompt_for(engine, prompt_tokens);
  Answer answer;
  answer.logits = evaluate(engine, prompt).logits;
  Session session = value_of(engine.new_session());
  const GenerateResult result = continue_greedily(session, prompt, 12);
  answer.tokens = result.tokens;
  answer.hash = result.metrics.logits_hash;
  answer.chunks = result.metrics.chunks;
  answer.store = engine.experts().stats();
  return answer;
}

class Gate : public ::testing::TestWithParam<GateModel> {
 protected:
  std::string model() const { return packed_random(GetParam().name); }
  EngineOptions options() const { return small_options(model()); }
  Answer answer(const EngineOptions& with) const {
    const auto engine = open_engine(with);
    return answer_of(*engine, GetParam().prompt_tokens);
  }
  const Answer& resident() const {
    static std::map<std::string, Answer> known;
    auto [place, is_new] = known.try_emplace(GetParam().name);
    if (is_new) place->second = answer(options());
    return place->second;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Gate, ::testing::ValuesIn(kModels), [](const auto& test) {
  std::string name = test.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST_P(Gate, g1_streamed_equals_resident_at_any_number_of_slots) {
  const auto engine = open_engine(options());
  const int64_t all = engine->plan().num_experts;
  const int64_t top_k = engine->experts_per_token();
  const int64_t floor = top_k * engine->config().num_expert_layers();
  EXPECT_EQ(resident().store.evictions, 0u);
  for (const int64_t slots : {all / 2, all / 4, floor, top_k + 1, top_k, int64_t{1}}) {
    EngineOptions with = options();
    with.num_slots = slots;
    const Answer streamed = answer(with);
    EXPECT_TRUE(streamed == resident()) << slots << " slots";
    if (slots < all) {
      EXPECT_GT(streamed.store.evictions, 0u) << slots << " slots";
    }
  }
}

TEST_P(Gate, g2_any_reader_depth_and_order_of_completion) {
  for (const ReaderKind kind : {ReaderKind::kUring, ReaderKind::kThreads}) {
    for (const int depth : {1, 3, 64, 256}) {
      EngineOptions with = options();
      with.num_slots = 9;
      with.reader = {.kind = kind, .depth = depth, .threads = 3};
      const Answer streamed = answer(with);
      EXPECT_TRUE(streamed == resident()) << "depth " << depth;
      EXPECT_GT(streamed.store.evictions, 0u);
    }
  }
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    EngineOptions with = options();
    with.num_slots = 11;
    with.reader_factory = [seed] { return fake_reader(seed, nullptr); };
    const Answer streamed = answer(with);
    EXPECT_TRUE(streamed == resident()) << "seed " << seed;
    EXPECT_GT(streamed.store.reads, 0u);
  }
}

TEST_P(Gate, g3_any_number_of_threads) {
  for (int threads = 2; threads <= 5; ++threads) {
    EngineOptions with = options();
    with.threads = threads;
    EXPECT_TRUE(answer(with) == resident()) << threads << " threads";
  }
}

TEST_P(Gate, g4_any_chunk_size) {
  for (const int64_t chunk : {1, 2, 3, 7, 16}) {
    EngineOptions with = options();
    with.chunk_tokens = chunk;
    with.num_slots = 13;
    const Answer chunked = answer(with);
    EXPECT_TRUE(chunked == resident()) << "chunks of " << chunk;
    EXPECT_EQ(chunked.chunks, (GetParam().prompt_tokens + chunk - 1) / chunk);
  }
}

TEST_P(Gate, g5_a_held_prefix_equals_a_fresh_session) {
  EngineOptions with = options();
  with.num_checkpoints = 2;
  with.parallel = 4;
  with.num_slots = 17;
  const auto engine = open_engine(with);
  const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
  Session fresh = value_of(engine->new_session());
  const GenerateResult expected = continue_greedily(fresh, prompt, 12);

  Session session = value_of(engine->new_session());
  // A prompt that shares 20 tokens, with a checkpoint there, then goes elsewhere.
  std::vector<TokenId> other(prompt.begin(), prompt.begin() + 20);
  const std::vector<TokenId> elsewhere = random_tokens(15, engine->config().vocab_size, 99);
  other.insert(other.end(), elsewhere.begin(), elsewhere.end());
  GenerateOptions first;
  first.max_tokens = 5;
  first.checkpoints = {20};
  value_of(session.generate(other, first, {}));
  const GenerateResult rewound = continue_greedily(session, prompt, 12);
  EXPECT_EQ(rewound.metrics.cached_tokens, 20);
  EXPECT_EQ(rewound.tokens, expected.tokens);
  EXPECT_EQ(rewound.metrics.logits_hash, expected.metrics.logits_hash);

  // The same prompt again: everything but nothing of the answer is held, no token is evaluated.
  Session again = value_of(engine->new_session());
  GenerateOptions only_prompt;
  only_prompt.max_tokens = 1;
  value_of(again.generate(prompt, only_prompt, {}));
  const GenerateResult repeated = continue_greedily(again, prompt, 12);
  EXPECT_EQ(repeated.metrics.cached_tokens, GetParam().prompt_tokens);
  EXPECT_EQ(repeated.metrics.prompt.tokens, 0);
  EXPECT_EQ(repeated.tokens, expected.tokens);
  EXPECT_EQ(repeated.metrics.logits_hash, expected.metrics.logits_hash);

  // The conversation goes on: prompt, answer and more, of which only the rest is evaluated.
  std::vector<TokenId> longer = prompt;
  longer.insert(longer.end(), expected.tokens.begin(), expected.tokens.end());
  longer.insert(longer.end(), elsewhere.begin(), elsewhere.begin() + 6);
  const GenerateResult extended = continue_greedily(again, longer, 8);
  EXPECT_GT(extended.metrics.cached_tokens, GetParam().prompt_tokens);
  engine->parts().prefixes.clear();  // so that this one begins with nothing
  Session plain = value_of(engine->new_session());
  const GenerateResult whole = continue_greedily(plain, longer, 8);
  EXPECT_EQ(extended.tokens, whole.tokens);
  EXPECT_EQ(extended.metrics.logits_hash, whole.metrics.logits_hash);
}

TEST_P(Gate, g6_a_cancelled_request_leaves_no_trace) {
  EngineOptions with = options();
  with.num_slots = 9;
  with.chunk_tokens = 8;
  with.num_checkpoints = 1;
  const auto engine = open_engine(with);
  const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
  const int64_t layers = engine->config().num_expert_layers();
  Session session = value_of(engine->new_session());
  // Stops inside of every layer of the third chunk, and in the middle of the answer.
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::stop_source stop;
    int64_t chunk = -1;
    GenerateOptions cancelled;
    cancelled.max_tokens = 12;
    cancelled.on_route = [&](int64_t at, const Routing&, Rows) {
      if (at == 0) ++chunk;
      if (chunk == 2 && at == layer) stop.request_stop();
    };
    const GenerateResult stopped = value_of(session.generate(
        random_tokens(40, engine->config().vocab_size, static_cast<uint64_t>(layer) + 50),
        cancelled, stop.get_token()));
    EXPECT_EQ(stopped.finish, FinishReason::kCancelled);
    EXPECT_TRUE(stopped.tokens.empty());
    const GenerateResult after = continue_greedily(session, prompt, 12);
    EXPECT_EQ(after.tokens, resident().tokens) << "stopped in layer " << layer;
    EXPECT_EQ(after.metrics.logits_hash, resident().hash) << "stopped in layer " << layer;
  }
  std::stop_source stop;
  GenerateOptions answering;
  answering.max_tokens = 12;
  int64_t seen = 0;
  answering.on_token = [&](TokenId) {
    if (++seen == 4) stop.request_stop();
  };
  session.reset();
  const GenerateResult stopped = value_of(session.generate(prompt, answering, stop.get_token()));
  EXPECT_EQ(stopped.finish, FinishReason::kCancelled);
  EXPECT_EQ(stopped.tokens.size(), 4u);
  session.reset();
  EXPECT_EQ(continue_greedily(session, prompt, 12).metrics.logits_hash, resident().hash);
}

TEST_P(Gate, g7_a_failed_read_is_tried_again_or_ends_the_request_cleanly) {
  uint64_t retried = 0, reads = 0;
  for (uint64_t n = 0; n < 60; n += 4) {
    FakeFaults faults;
    faults.fail_read(n, EIO, Lasting::kOnce);
    EngineOptions with = options();
    with.num_slots = 9;
    with.reader_factory = [&] { return fake_reader(n + 1, &faults); };
    const Answer healed = answer(with);
    EXPECT_TRUE(healed == resident()) << "read " << n;
    retried += healed.store.io_retries;
    reads = healed.store.reads;
  }
  EXPECT_EQ(retried, 15u);

  for (const uint64_t n : {uint64_t{0}, reads / 4, reads / 2}) {
    FakeFaults faults;
    faults.fail_read(n, EIO, Lasting::kForGood);
    EngineOptions with = options();
    with.num_slots = 9;
    with.reader_factory = [&] { return fake_reader(3, &faults); };
    const auto engine = open_engine(with);
    const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
    Session session = value_of(engine->new_session());
    GenerateOptions generate;
    generate.max_tokens = 12;
    const Result<GenerateResult> failed = session.generate(prompt, generate, {});
    ASSERT_FALSE(failed.has_value()) << "read " << n;
    EXPECT_EQ(failed.error().code, ErrorCode::kIo);
    EXPECT_NE(failed.error().message.find("expert"), std::string::npos) << failed.error().message;
    faults.heal();
    EXPECT_EQ(continue_greedily(session, prompt, 12).metrics.logits_hash, resident().hash);
  }
}

TEST_P(Gate, g8_any_eviction_policy_and_verification) {
  for (const EvictionPolicy policy : kEvictionPolicies) {
    EngineOptions with = options();
    with.num_slots = 15;
    with.policy = policy;
    with.verify = policy != EvictionPolicy::kLru;
    const Answer streamed = answer(with);
    EXPECT_TRUE(streamed == resident()) << name_of(policy);
    EXPECT_GT(streamed.store.evictions, 0u);
    EXPECT_EQ(streamed.store.bytes_verified > 0, with.verify);
  }
}

// All of this machine; on x86 with AVX2 those are at least that one and the code without vectors.
std::vector<std::string> targets_to_compare() {
  std::vector<std::string> targets = CpuBackend::targets();
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    EXPECT_TRUE(std::ranges::count(targets, "AVX2") == 1 && targets.size() >= 2);
  }
#endif
  EXPECT_FALSE(targets.empty());
  return targets;
}

TEST_P(Gate, g9_any_instruction_set) {
  for (const std::string& target : targets_to_compare()) {
    EngineOptions with = options();
    with.simd_target = target;
    EXPECT_TRUE(answer(with) == resident()) << target;
  }
}

// A change of these numbers is a change of arithmetic: docs/quality.md is then to be made again.
TEST(Gates, g9_the_demo_model_has_the_same_logits_on_every_instruction_set_and_processor) {
  const std::pair<Arithmetic, uint64_t> expected[] = {{Arithmetic::kFixed16, 0x811944579676998fu},
                                                      {Arithmetic::kFloat32, 0x2a11d40eeb30dfe1u}};
  for (const auto& [arithmetic, hash] : expected) {
    for (const std::string& target : targets_to_compare()) {
      EngineOptions with = small_options(PENSTOCK_DEMO_MODEL);
      with.arithmetic = arithmetic;
      with.simd_target = target;
      const auto engine = open_engine(with);
      EXPECT_TRUE(engine->backend().description().starts_with(target + ","));
      const std::vector<TokenId> prompt = random_tokens(40, engine->config().vocab_size, 11);
      const std::vector<float> logits = evaluate(*engine, prompt).logits;
      Session session = value_of(engine->new_session());
      const uint64_t answer_hash = continue_greedily(session, prompt, 12).metrics.logits_hash;
      EXPECT_EQ(checksum(std::as_bytes(std::span(logits)), answer_hash).low, hash)
          << target << " " << name_of(arithmetic);
    }
  }
}

TEST_P(Gate, g10_token_by_token_equals_the_prompt_path) {
  const auto engine = open_engine(options());
  const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
  const Evaluation whole = evaluate(*engine, prompt);
  EngineOptions with = options();
  with.chunk_tokens = 1;
  const auto single = open_engine(with);
  const Evaluation stepped = evaluate(*single, prompt);
  EXPECT_TRUE(same_bits(whole.logits, stepped.logits));
  EXPECT_EQ(whole.experts, stepped.experts);
}

TEST_P(Gate, g12_any_budget_that_the_plan_accepts) {
  const auto engine = open_engine(options());
  const uint64_t least = engine->plan().minimum_bytes;
  const uint64_t most = engine->plan().all_resident_bytes;
  EngineOptions with = options();
  with.memory_bytes = least - 1;
  const auto refused = Engine::open(posix_storage(), with, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(refused.error().message.find(std::to_string(least)), std::string::npos);
  for (int step = 0; step <= 4; ++step) {
    with.memory_bytes = least + (most - least) * static_cast<uint64_t>(step) / 4;
    const auto planned = open_engine(with);
    EXPECT_LE(planned->plan().total_bytes, with.memory_bytes);
    EXPECT_TRUE(answer_of(*planned, GetParam().prompt_tokens) == resident()) << "step " << step;
  }
}

TEST_P(Gate, g15_experts_are_read_ahead_or_not) {
  const auto engine = open_engine(options());
  const int64_t all = engine->plan().num_experts;
  const int64_t floor = engine->experts_per_token() * engine->config().num_expert_layers();
  for (const int64_t slots : {all, all - 1, all / 2, floor}) {
    for (const int64_t chunk : {1, 16}) {
      for (const bool prefetch : {true, false}) {
        EngineOptions with = options();
        with.num_slots = slots;
        with.chunk_tokens = chunk;
        with.prefetch = prefetch;
        with.reader_factory = [&] { return fake_reader(static_cast<uint64_t>(slots), nullptr); };
        const Answer streamed = answer(with);
        EXPECT_TRUE(streamed == resident()) << slots << " slots, chunks of " << chunk;
        EXPECT_EQ(streamed.store.prefetches > 0, prefetch) << slots << " slots, chunk " << chunk;
        EXPECT_EQ(streamed.store.prefetches_used > 0, prefetch);
        EXPECT_LE(streamed.store.prefetches_used, streamed.store.prefetches);
      }
    }
  }
}

// A place that cannot be read is an error for who asks for it, and none for who only wished.
TEST_P(Gate, g15_a_wish_that_cannot_be_read_is_no_error) {
  const auto in_memory = open_engine(options());
  const std::vector<TokenId> prompt = prompt_for(*in_memory, 3);  // so that wishes stay in vain
  Session expected_session = value_of(in_memory->new_session());
  const uint64_t expected = continue_greedily(expected_session, prompt, 2).metrics.logits_hash;
  EngineOptions with = options();
  with.num_slots = in_memory->plan().num_experts / 2;
  with.chunk_tokens = 1;
  int refused = 0, answered = 0;
  for (uint64_t n = 0; n < 120; ++n) {
    FakeFaults faults;
    faults.fail_read(n, EIO, Lasting::kForGood);
    with.reader_factory = [&] { return fake_reader(n + 1, &faults); };
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    GenerateOptions generate;
    generate.max_tokens = 2;
    const Result<GenerateResult> result = session.generate(prompt, generate, {});
    if (!result) {
      EXPECT_EQ(result.error().code, ErrorCode::kIo);
      ++refused;
    } else if (engine->experts().stats().io_retries > 0) {
      EXPECT_EQ(result->metrics.logits_hash, expected) << "read " << n;
      ++answered;
    }
    faults.heal();
    EXPECT_EQ(continue_greedily(session, prompt, 2).metrics.logits_hash, expected) << "read " << n;
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(answered, 0);
}

TEST_P(Gate, g15_a_request_is_cancelled_while_wishes_are_read) {
  EngineOptions with = options();
  with.num_slots = open_engine(options())->plan().num_experts / 2;
  with.chunk_tokens = 4;
  with.num_checkpoints = 1;
  with.reader_factory = [] { return fake_reader(5, nullptr); };
  const auto engine = open_engine(with);
  const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
  Session session = value_of(engine->new_session());
  for (int64_t routes = 1; routes < 24; ++routes) {
    std::stop_source stop;
    int64_t seen = 0;
    GenerateOptions cancelled;
    cancelled.max_tokens = 4;
    cancelled.on_route = [&](int64_t, const Routing&, Rows) {
      if (++seen == routes) stop.request_stop();
    };
    const auto tokens =
        random_tokens(40, engine->config().vocab_size, static_cast<uint64_t>(routes));
    const GenerateResult stopped = value_of(session.generate(tokens, cancelled, stop.get_token()));
    EXPECT_EQ(stopped.finish, FinishReason::kCancelled);
    EXPECT_EQ(continue_greedily(session, prompt, 12).metrics.logits_hash, resident().hash)
        << "cancelled after " << routes << " layers";
  }
  EXPECT_GT(engine->experts().stats().prefetches_used, 0u);
}

// An engine that begins with the experts of an earlier run, and how it differs from a cold one.
struct WarmEngine {
  std::unique_ptr<Engine> engine;
  uint64_t preloaded = 0, failed = 0;
};

WarmEngine warm_engine(const EngineOptions& with, const ExpertUsage& usage, int steps) {
  WarmEngine warm{open_engine(with)};
  ExpertStore& experts = warm.engine->experts();
  experts.restore_usage(usage);
  experts.preload(most_used(usage));
  for (int i = 0; i < steps && experts.preload_more(std::chrono::milliseconds(1)); ++i) {
  }
  warm.preloaded = experts.preloaded().experts;
  warm.failed = experts.preloaded().failed;
  return warm;
}

TEST_P(Gate, g16_a_warm_start_changes_nothing_but_time) {
  EngineOptions with = options();
  with.num_slots = open_engine(options())->plan().num_experts / 2;
  const auto cold = open_engine(with);
  const std::vector<TokenId> earlier = random_tokens(30, cold->config().vocab_size, 3);
  Session session = value_of(cold->new_session());
  continue_greedily(session, earlier, 12);
  const ExpertUsage usage = cold->experts().usage();
  const auto first_hits = [&](Engine& engine) {  // of a prompt of one token
    Session one = value_of(engine.new_session());
    return continue_greedily(one, std::vector<TokenId>{1}, 1).metrics.prompt.store.hits;
  };
  EXPECT_EQ(first_hits(*open_engine(with)), 0u);

  constexpr int kAll = 1000000;
  for (const int steps : {kAll, 0, 1, 4, 9}) {
    const uint64_t seed = static_cast<uint64_t>(steps) + 1;
    with.reader_factory = [seed] { return fake_reader(seed, nullptr); };
    const WarmEngine warm = warm_engine(with, usage, steps);
    if (steps == kAll) {
      EXPECT_EQ(warm.preloaded, static_cast<uint64_t>(with.num_slots));
    }
    EXPECT_TRUE(answer_of(*warm.engine, GetParam().prompt_tokens) == resident()) << steps;
    EXPECT_GT(warm.engine->experts().stats().evictions, 0u);
  }
  const WarmEngine warm = warm_engine(with, usage, kAll);
  EXPECT_GT(first_hits(*warm.engine), 0u);
}

TEST_P(Gate, g16_an_expert_that_cannot_be_preloaded_is_left_out) {
  EngineOptions with = options();
  with.num_slots = open_engine(options())->plan().num_experts / 2;
  const auto cold = open_engine(with);
  answer_of(*cold, GetParam().prompt_tokens);
  for (uint64_t nth = 0; nth < 12; ++nth) {
    FakeFaults faults;
    faults.fail_read(nth, EIO, Lasting::kForGood);
    with.reader_factory = [&] { return fake_reader(nth + 1, &faults); };
    const WarmEngine warm = warm_engine(with, cold->experts().usage(), 1000000);
    EXPECT_EQ(warm.failed, 1u);
    faults.heal();
    EXPECT_TRUE(answer_of(*warm.engine, GetParam().prompt_tokens) == resident()) << "read " << nth;
  }
}

// A machine whose free memory goes down and up again, so that the cache shrinks to its floor and
// grows step by step, in the middle of chunks and of the answer.
TEST_P(Gate, g17_slots_are_given_back_and_taken_again) {
  const auto in_memory = open_engine(options());
  const int64_t all = in_memory->plan().num_experts;
  const int64_t floor = in_memory->plan().floor_slots;
  constexpr uint64_t kPlenty = 1ull << 30;
  for (const int64_t slots : {all, (all + floor) / 2}) {
    for (const int64_t chunk : {1, 16}) {
      Engine* engine_seen = nullptr;
      int looks = 0;
      std::vector<int> sizes;
      EngineOptions with = options();
      with.num_slots = slots;
      with.chunk_tokens = chunk;
      with.reader_factory = [] { return fake_reader(8, nullptr); };
      with.memory_watch.is_on = true;
      with.memory_watch.every = with.memory_watch.quiet = std::chrono::nanoseconds(0);
      with.memory_watch.probe = [&]() -> Result<MemoryReading> {
        if (engine_seen != nullptr) sizes.push_back(engine_seen->experts().num_slots());
        const bool is_short = looks++ % 14 >= 7;
        return MemoryReading{
            .available_bytes = is_short ? 0 : kPlenty, .limit_bytes = kPlenty, .stalled_share = 0};
      };
      const auto engine = open_engine(with);
      engine_seen = engine.get();
      EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident())
          << slots << " slots, chunks of " << chunk;
      const int fewest = *std::ranges::min_element(sizes);
      EXPECT_EQ(fewest, floor);
      EXPECT_EQ(sizes.front(), slots);
      EXPECT_NE(std::ranges::adjacent_find(sizes, std::less()), sizes.end());  // it grew again
      EXPECT_GT(engine->experts().stats().shrinks, 2u);
      EXPECT_GT(engine->experts().stats().slots_given_back, static_cast<uint64_t>(slots - floor));
      EXPECT_GT(engine->experts().stats().evictions, 0u);
    }
  }
}

void expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic arithmetic) {
  EngineOptions options = small_options(PENSTOCK_DEMO_MODEL);
  options.arithmetic = arithmetic;
  const auto engine = open_engine(options);
  const std::vector<TokenId> prompt = random_tokens(24, engine->config().vocab_size, 5);
  Session session = value_of(engine->new_session());
  const GenerateResult expected = continue_greedily(session, prompt, 6);
  struct Variation {
    int64_t slots, chunk;
    int threads;
    std::string simd_target = {};
  };
  std::vector<Variation> variations = {{64, 0, 1}, {64, 5, 2}, {9, 24, 3}, {0, 1, 2}};
  for (const std::string& target : targets_to_compare()) {
    variations.push_back({64, 7, 2, target});
  }
  for (const Variation& v : variations) {
    EngineOptions with = options;
    with.simd_target = v.simd_target;
    with.num_slots = v.slots;
    with.chunk_tokens = v.chunk;
    with.threads = v.threads;
    const auto other = open_engine(with);
    Session streamed = value_of(other->new_session());
    const GenerateResult result = continue_greedily(streamed, prompt, 6);
    EXPECT_EQ(result.metrics.logits_hash, expected.metrics.logits_hash)
        << v.slots << " slots, chunks of " << v.chunk << ", " << v.threads << " threads "
        << v.simd_target;
    if (v.slots > 0) {
      EXPECT_GT(other->experts().stats().evictions, 0u);
    }
  }
}

TEST(Gates, g11_quantised_weights_stream_and_chunk_alike_in_fixed_point) {
  expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic::kFixed16);
}

TEST(Gates, g11_quantised_weights_stream_and_chunk_alike_in_float) {
  expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic::kFloat32);
}

// Both ends of every range, also together; with few slots, so that experts are read ahead and go.
TEST_P(Gate, g29_any_value_of_any_knob) {
  const auto streamed_with = [&](const std::function<void(EngineOptions&)>& turn) {
    EngineOptions with = options();
    with.threads = 3;  // workers wait and loops are cut, while one thread gave resident()
    with.num_slots = open_engine(with)->plan().num_experts / 3;
    turn(with);
    return answer(with);
  };
  for (const Knob& knob : all_knobs()) {
    for (const int64_t value : {knob.low, knob.high}) {
      const Answer streamed = streamed_with([&](EngineOptions& with) { knob.set(with, value); });
      EXPECT_TRUE(streamed == resident()) << knob.name << "=" << value;
      EXPECT_GT(streamed.store.evictions, 0u);
    }
  }
  for (const bool high : {false, true}) {
    const Answer streamed = streamed_with([&](EngineOptions& with) {
      for (const Knob& knob : all_knobs()) knob.set(with, high ? knob.high : knob.low);
    });
    EXPECT_TRUE(streamed == resident()) << (high ? "all high" : "all low");
    EXPECT_GT(streamed.store.prefetches, 0u);
  }
}

TEST(Gates, g13_fewer_experts_per_token_is_reported_as_lossy) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto exact = open_engine(with);
  EXPECT_FALSE(exact->is_lossy());
  with.experts_per_token = 4;
  const auto lossy = open_engine(with);
  EXPECT_TRUE(lossy->is_lossy());
  const std::vector<TokenId> prompt = random_tokens(9, exact->config().vocab_size, 1);
  EXPECT_FALSE(same_bits(evaluate(*exact, prompt).logits, evaluate(*lossy, prompt).logits));
}

// What is left out follows from the router alone: the same bits from memory, streamed, in chunks of any
// size, on any number of threads.
TEST(Gates, g13_experts_left_out_by_layer_or_weight_are_the_same_ones_everywhere) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto exact = open_engine(with);
  const std::vector<TokenId> prompt = random_tokens(29, exact->config().vocab_size, 1);
  const auto exact_logits = evaluate(*exact, prompt).logits;
  const uint64_t exact_requests = exact->experts().stats().requests;
  const auto layers = static_cast<size_t>(exact->config().num_expert_layers());
  const int chosen = static_cast<int>(exact->experts_per_token());
  ASSERT_GT(chosen, 1);
  std::vector<int> falling(layers, chosen);
  falling.back() = 1;
  for (const ExpertLimits& limits :
       {ExpertLimits{.by_layer = falling, .weight = 1}, ExpertLimits{.by_layer = {}, .weight = 0.6},
        ExpertLimits{.by_layer = falling, .weight = 0.8}}) {
    with = small_options(packed_random("r3-wrapped"));
    with.expert_limits = limits;
    const auto engine = open_engine(with);
    EXPECT_TRUE(engine->is_lossy());
    const auto expected = evaluate(*engine, prompt).logits;
    EXPECT_FALSE(same_bits(expected, exact_logits)) << to_text(limits);
    EXPECT_LE(engine->experts().stats().requests, exact_requests) << to_text(limits);
    for (const int64_t chunk : {1, 3, 16}) {
      with.chunk_tokens = chunk;
      with.num_slots = chosen;
      with.threads = static_cast<int>(chunk % 4);
      with.prefetch = chunk != 3;
      const auto streamed = open_engine(with);
      EXPECT_TRUE(same_bits(evaluate(*streamed, prompt).logits, expected)) << to_text(limits);
      EXPECT_GT(streamed->experts().stats().evictions, 0u);
    }
  }
  with = small_options(packed_random("r3-wrapped"));
  with.expert_limits = {.by_layer = std::vector<int>(layers, chosen), .weight = 1};
  EXPECT_TRUE(same_bits(evaluate(*open_engine(with), prompt).logits, exact_logits))
      << "a list that leaves nothing out";
}

TEST(Gates, g13_limits_that_do_not_fit_the_model_are_refused) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto layers = static_cast<size_t>(open_engine(with)->config().num_expert_layers());
  for (const std::vector<int>& list :
       {std::vector<int>(layers + 1, 1), std::vector<int>(layers - 1, 1),
        std::vector<int>(layers, 1000)}) {
    with.expert_limits.by_layer = list;
    const auto refused = Engine::open(posix_storage(), with, {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(refused.error().message.find("--lossy-experts-by-layer"), std::string::npos);
  }
}

TEST(Gates, g14_any_allocation_that_fails_while_loading_is_an_error) {
  const EngineOptions with = small_options(packed_random("r3-wrapped"));
  int failures = 0;
  for (int64_t n = 0; n < 100; ++n) {
    fail_allocation_after(n);
    auto engine = Engine::open(posix_storage(), with, {});
    Result<Session> session = engine ? (*engine)->new_session() : Result<Session>(engine.error());
    fail_allocation_after(-1);
    if (session) break;
    EXPECT_EQ(session.error().code, ErrorCode::kOutOfMemory) << session.error().message;
    ++failures;
  }
  EXPECT_GE(failures, 4);  // weights, slots, activations, kernel scratch, states
  EXPECT_LT(failures, 100);
  const auto engine = open_engine(with);
  EXPECT_FALSE(evaluate(*engine, random_tokens(3, 100, 1)).logits.empty());
}

}  // namespace
}  // namespace penstock::test
