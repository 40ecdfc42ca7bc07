// Gates G20 and G21: several sequences in one pass, and passes that fail (index in gates_test.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <random>
#include <tuple>

#include "engine/batch.h"
#include "support/fake_reader.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

constexpr int kSequences = 5;
constexpr int64_t kAnswer = 9;

// A sequence of the test: a prompt and its greedy answer, with the hash of every row of logits that
// the answer was chosen from.
struct Line {
  std::vector<TokenId> prompt;
  std::vector<TokenId> answer;
  std::vector<float> logits;  // of every step, one after the other

  bool operator==(const Line& other) const {
    return answer == other.answer && same_bits(logits, other.logits);
  }
};

TokenId most_likely(std::span<const float> logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

std::vector<TokenId> prompt_of(const Engine& engine, int i) {
  const int64_t tokens[] = {1, 7, 23, 40, 12};
  return random_tokens(tokens[i], engine.config().vocab_size, static_cast<uint64_t>(i) + 300);
}

struct TogetherModel {
  const char* name;
  double expert_weight = 1;  // below 1: lossy, of each token by its own router (G13)
  KvForm kv_form = KvForm::kFloat32;
};

class Together : public ::testing::TestWithParam<TogetherModel> {
 protected:
  EngineOptions options() const {
    EngineOptions with = small_options(packed_random(GetParam().name));
    with.expert_limits.weight = GetParam().expert_weight;
    with.kv_form = GetParam().kv_form;
    with.parallel = kSequences;
    with.chunk_tokens = 16;
    return with;
  }

  // Each alone in an engine of its own, with every expert in memory: computed once.
  const std::vector<Line>& alone() const {
    static std::map<std::tuple<std::string, double, KvForm>, std::vector<Line>> known;
    auto [place, is_new] =
        known.try_emplace({GetParam().name, GetParam().expert_weight, GetParam().kv_form});
    if (!is_new) return place->second;
    for (int i = 0; i < kSequences; ++i) {
      EngineOptions with = options();
      with.parallel = 1;
      const auto engine = open_engine(with);
      Session session = value_of(engine->new_session());
      Line line{prompt_of(*engine, i), {}, {}};
      GenerationMetrics metrics;
      session.reuse(line.prompt);
      value_of(session.sync(line.prompt, {}, metrics, {}));
      for (int64_t step = 0; step < kAnswer; ++step) {
        line.logits.insert(line.logits.end(), session.logits().begin(), session.logits().end());
        line.answer.push_back(most_likely(session.logits()));
        value_of(session.advance(line.answer.back(), metrics.answer, {}));
      }
      place->second.push_back(std::move(line));
    }
    return place->second;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Together,
                         ::testing::Values(TogetherModel{"r3-wrapped"}, TogetherModel{"r2-top1"},
                                           TogetherModel{"m2-dense"},
                                           TogetherModel{"r3-wrapped", 0.6},
                                           TogetherModel{"m2-dense", 1, KvForm::kCodes8}),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           std::ranges::replace(name, '-', '_');
                           if (test.param.kv_form != KvForm::kFloat32) name += "_kv8";
                           return test.param.expert_weight < 1 ? name + "_lossy" : name;
                         });

// One sequence on its way through a schedule.
struct Running {
  Session session;
  Line line;

  bool has_prompt_left() const { return session.tokens().size() < line.prompt.size(); }
  bool is_done() const { return std::ssize(line.answer) == kAnswer; }

  // What the next pass evaluates: at most `rows` of the prompt, or the token chosen from the logits
  // of the last pass.
  std::vector<TokenId> next(int64_t rows) {
    const auto held = session.tokens().size();
    if (has_prompt_left()) {
      const size_t count = std::min(static_cast<size_t>(rows), line.prompt.size() - held);
      return {line.prompt.begin() + static_cast<std::ptrdiff_t>(held),
              line.prompt.begin() + static_cast<std::ptrdiff_t>(held + count)};
    }
    return {line.answer.back()};
  }

  // Chooses from what the last pass gave.
  void choose() {
    if (has_prompt_left() || is_done()) return;
    const auto logits = session.logits();
    line.logits.insert(line.logits.end(), logits.begin(), logits.end());
    line.answer.push_back(most_likely(logits));
  }
};

TEST_P(Together, g20_any_mix_of_sequences_equals_each_alone) {
  for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
    EngineOptions with = options();
    with.num_slots = seed == 1 ? 0 : 3 + static_cast<int64_t>(seed);
    with.threads = seed % 2 == 0 ? 3 : 1;
    const auto engine = open_engine(with);
    std::mt19937_64 random(seed);
    std::vector<Running> all;
    for (int i = 0; i < kSequences; ++i) {
      all.push_back({value_of(engine->new_session()), {prompt_of(*engine, i), {}, {}}});
    }
    int64_t largest = 0, mixed = 0;
    while (std::ranges::any_of(all, [](const Running& one) { return !one.is_done(); })) {
      // Some of them, in any order, each with as many rows of its prompt as there is room for.
      Batch batch(engine->parts());
      std::vector<Running*> order;
      for (Running& one : all) {
        if (!one.is_done() && random() % 3 != 0) order.push_back(&one);
      }
      std::ranges::shuffle(order, random);
      std::vector<Running*> added;
      bool has_prompt = false, has_answer = false;
      for (Running* one : order) {
        if (batch.rows_left() == 0) break;
        const bool is_prompt = one->has_prompt_left();
        const auto most = static_cast<int64_t>(random() % 9) + 1;
        const auto tokens = one->next(std::min(most, batch.rows_left()));
        batch.add(one->session.sequence(), tokens);
        (is_prompt ? has_prompt : has_answer) = true;
        added.push_back(one);
      }
      if (added.empty()) continue;
      const PassFigures figures = value_of(batch.run({}));
      largest = std::max(largest, std::ssize(added));
      if (has_prompt && has_answer) ++mixed;
      // What is shared out adds up to what there was.
      PhaseMetrics sum;
      for (size_t i = 0; i < added.size(); ++i) {
        sum.add(figures, i, 0);
        added[i]->choose();
      }
      EXPECT_EQ(sum.store.bytes_read, figures.store.bytes_read);
      EXPECT_EQ(sum.store.requests, figures.store.requests);
      EXPECT_EQ(sum.store.hits + sum.store.misses, figures.store.requests);
    }
    EXPECT_GE(largest, 3);
    EXPECT_GE(mixed, 1);
    for (int i = 0; i < kSequences; ++i) {
      EXPECT_TRUE(all[static_cast<size_t>(i)].line == alone()[static_cast<size_t>(i)])
          << "sequence " << i << ", seed " << seed;
    }
  }
}

TEST_P(Together, g20_forks_and_kept_places_disturb_nobody) {
  EngineOptions with = options();
  with.num_checkpoints = 3;
  with.num_slots = 7;
  const auto engine = open_engine(with);
  const std::vector<TokenId> shared = prompt_of(*engine, 3);
  const auto ends = [&](uint64_t seed) {
    std::vector<TokenId> tokens = shared;
    const auto more = random_tokens(6, engine->config().vocab_size, seed);
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  };
  const auto step = [](Line& line, Session& session) {
    GenerationMetrics metrics;
    const auto logits = session.logits();
    line.logits.insert(line.logits.end(), logits.begin(), logits.end());
    line.answer.push_back(most_likely(logits));
    value_of(session.advance(line.answer.back(), metrics.answer, {}));
  };
  constexpr int kSteps = 6;
  const uint64_t seeds[] = {1, 2, 3};
  GenerationMetrics metrics;
  std::map<uint64_t, Line> expected;  // from fresh engines
  for (const uint64_t seed : seeds) {
    const auto fresh = open_engine(options());
    Session session = value_of(fresh->new_session());
    value_of(session.sync(ends(seed), {}, metrics, {}));
    for (int i = 0; i < kSteps; ++i) step(expected[seed], session);
  }
  // One session reads the shared part and keeps the place. Two go on from its mark and one from what
  // the engine has kept, all in turns, so that each writes beside the others into what they share.
  Session first = value_of(engine->new_session());
  value_of(first.sync(shared, {}, metrics, {}));
  first.keep_place();
  const StateMark mark = first.snapshot();
  std::map<uint64_t, Session> forks;
  std::map<uint64_t, Line> lines;
  for (const uint64_t seed : seeds) {
    forks.emplace(seed, value_of(engine->new_session()));
    if (seed != 2) forks.at(seed).restore(mark, shared);
    EXPECT_EQ(forks.at(seed).reuse(ends(seed)), std::ssize(shared)) << seed;
  }
  for (const uint64_t seed : seeds) value_of(forks.at(seed).sync(ends(seed), {}, metrics, {}));
  for (int i = 0; i < kSteps; ++i) {
    for (const uint64_t seed : seeds) step(lines[seed], forks.at(seed));
  }
  for (const uint64_t seed : seeds) EXPECT_TRUE(lines[seed] == expected[seed]) << seed;
  // The one that was forked goes on as if nothing had been.
  EXPECT_EQ(first.reuse(ends(2)), std::ssize(shared));
  value_of(first.sync(ends(2), {}, metrics, {}));
  Line own;
  for (int i = 0; i < kSteps; ++i) step(own, first);
  EXPECT_TRUE(own == expected[2]);
}

TEST_P(Together, g20_more_sequences_than_planned_are_refused_and_the_others_go_on) {
  EngineOptions with = options();
  with.parallel = 1;
  const auto engine = open_engine(with);
  GenerationMetrics metrics;
  Session first = value_of(engine->new_session());
  Session second = value_of(engine->new_session());
  value_of(first.sync(prompt_of(*engine, 1), {}, metrics, {}));
  const Result<void> refused = second.sync(prompt_of(*engine, 2), {}, metrics, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(refused.error().message.find("--parallel"), std::string::npos);
  EXPECT_EQ(continue_greedily(first, prompt_of(*engine, 1), kAnswer).tokens, alone()[1].answer);
  first.reset();
  EXPECT_EQ(continue_greedily(second, prompt_of(*engine, 2), kAnswer).tokens, alone()[2].answer);
}

TEST_P(Together, g21_a_pass_that_fails_or_is_cancelled_has_changed_nothing) {
  FakeFaults faults;
  EngineOptions with = options();
  with.num_slots = 5;
  with.prefetch = false;
  with.reader_factory = [&] {
    return std::make_unique<FakeReader>(FakeReaderOptions{.seed = 3}, &faults);
  };
  const auto engine = open_engine(with);
  std::vector<Running> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back({value_of(engine->new_session()), {prompt_of(*engine, i + 1), {}, {}}});
  }
  std::mt19937_64 random(11);
  int failed = 0, cancelled = 0;
  while (std::ranges::any_of(all, [](const Running& one) { return !one.is_done(); })) {
    const uint64_t kind = random() % 3;
    std::stop_source stop;
    PassObservers observers;
    const auto stops_at = static_cast<int64_t>(
        random() % static_cast<uint64_t>(engine->config().num_expert_layers()));
    if (kind == 1) {
      observers.on_route = [&](int64_t layer, const Routing&, Rows) {
        if (layer == stops_at) stop.request_stop();
      };
    }
    if (kind == 2) {
      faults.fail_read(faults.reads_submitted() + random() % 5, EIO, Lasting::kForGood);
    }
    Batch batch(engine->parts());
    std::vector<Running*> added;
    for (Running& one : all) {
      if (one.is_done() || batch.rows_left() < 5) continue;
      batch.add(one.session.sequence(), one.next(5));
      added.push_back(&one);
    }
    const Result<PassFigures> figures = batch.run(stop.get_token(), observers);
    faults.heal();
    if (figures) {
      for (Running* one : added) one->choose();
      continue;
    }
    (figures.error().code == ErrorCode::kCancelled ? cancelled : failed) += 1;
  }
  EXPECT_GT(failed, 2);
  EXPECT_GT(cancelled, 2);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(all[static_cast<size_t>(i)].line == alone()[static_cast<size_t>(i + 1)]) << i;
  }
}

}  // namespace
}  // namespace penstock::test
