// Experts that nobody asked for yet: read ahead, or at the start what an earlier run used most (G15, G16).
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>

#include "gates/gate.h"

namespace penstock::test {
namespace {

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

}  // namespace
}  // namespace penstock::test
