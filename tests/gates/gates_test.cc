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
//   G11 quantised weights: G1, G3, G4 and G9 again, in each arithmetic (weights_gates_test.cc)
//   G12 any budget that the plan accepts
//   G13 fewer experts per token, some of them from a copy in fewer bits, and keys and values in codes
//       are another model, and say so (weights_gates_test.cc, low_bits_gates_test.cc, kv_gates_test.cc)
//   G14 any allocation that fails while loading is an error, and the next attempt works
//       (weights_gates_test.cc)
//   G15 experts read ahead or not, right or wrong, in time or not, or not at all because the read
//       failed or the request was cancelled (ahead_gates_test.cc)
//   G16 warm-started with what an earlier run used most, wholly, in part or with a failed read, or
//       cold (ahead_gates_test.cc)
//   G17 slots given back and taken again at any time, between tokens and between layers
//   G18 drafts, right or wrong, kept or dropped (speculation_gates_test.cc)
//   G20 sequences evaluated together, in any mix of prompts and answers, joining and leaving at any
//       pass, with drafts, forked and gone back == each alone (sequence_gates_test.cc)
//   G21 a pass that failed or was cancelled, for one sequence or several == as if it had never been
//   G22 prefixes from a disk, after a restart, with files that are damaged, torn, missing or another
//       model's, and disks that fail or are full == computed anew (prefix_gates_test.cc)
//   G29 any value of any knob
//   G31 slots whose memory comes while the engine is at work, at any pace, in part or never
//       (arrivals_gates_test.cc)
//
// Numbers are given once and never reused. A gate also asserts that what it is about really
// happened: evictions, chunks, retries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "engine/knobs.h"
#include "gates/gate.h"
#include "io/checksum.h"

namespace penstock::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Models, Gate, ::testing::ValuesIn(kModels), name_of_gate);

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

}  // namespace
}  // namespace penstock::test
