// Gates of speculation, in the manner of gates_test.cc:
//
//   G18 tokens drafted or not, right or wrong, kept or dropped, wherever the answer ends: the same
//       logits are sampled from, and the session goes on as if nothing had been drafted
//   G19 a draft follows from the tokens before it alone: not from chunks, slots, threads, or which
//       drafts were kept before
#include <gtest/gtest.h>

#include <map>

#include "support/fake_reader.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

constexpr int64_t kPromptTokens = 21, kAnswerTokens = 24;

EngineOptions options_with(Speculation speculation) {
  EngineOptions options = small_options(model_with_block());
  options.speculation = speculation;
  options.context = 128;
  return options;
}

SamplingOptions drawn() {
  SamplingOptions sampling;
  sampling.temperature = 1;
  sampling.repetition_penalty = 1.1f;
  sampling.seed = 5;
  return sampling;
}

struct DraftedAnswer {
  std::vector<TokenId> tokens, held;
  uint64_t hash = 0;
  int64_t drafts = 0, accepted = 0, passes = 0;
  std::map<int64_t, TokenId> drafted;  // by position
};

// Which drafts are replaced by what the sampler will choose; the others by something else.
enum class Right { kNever, kAlways, kThird, kAsDrafted };

struct Asked {
  SamplingOptions sampling;
  Right right = Right::kAsDrafted;
  const std::vector<TokenId>* truth = nullptr;  // prompt and answer
  int64_t max_tokens = kAnswerTokens;
  std::vector<TokenId> stop_ids = {};
};

DraftedAnswer ask(Session& session, std::span<const TokenId> prompt, const Asked& asked) {
  DraftedAnswer answer;
  GenerateOptions options;
  options.sampling = asked.sampling;
  options.max_tokens = asked.max_tokens;
  options.stop_ids = asked.stop_ids;
  options.redraft = [&](int64_t position, TokenId drafted) {
    answer.drafted[position] = drafted;
    if (asked.right == Right::kAsDrafted) return drafted;
    const auto at = static_cast<size_t>(position);
    const TokenId truth = at < asked.truth->size() ? (*asked.truth)[at] : 0;
    const bool right =
        asked.right == Right::kAlways || (asked.right == Right::kThird && position % 3 == 0);
    return right ? truth : (truth + 1) % 640;
  };
  const GenerateResult result = value_of(session.generate(prompt, options, {}));
  answer.tokens = result.tokens;
  answer.hash = result.metrics.logits_hash;
  answer.drafts = result.metrics.drafts;
  answer.accepted = result.metrics.drafts_accepted;
  answer.held.assign(session.tokens().begin(), session.tokens().end());
  if (asked.stop_ids.empty()) {
    EXPECT_EQ(result.metrics.answer.tokens + 1, std::ssize(result.tokens));
  }
  return answer;
}

class Speculating : public ::testing::TestWithParam<bool> {
 protected:
  SamplingOptions sampling() const { return GetParam() ? drawn() : SamplingOptions{}; }
  // What comes out where nothing is drafted.
  const DraftedAnswer& plain() const {
    static std::map<bool, DraftedAnswer> known;
    auto [place, is_new] = known.try_emplace(GetParam());
    if (is_new) {
      const auto engine = open_engine(options_with(Speculation::kOff));
      EXPECT_FALSE(engine->can_draft());
      Session session = value_of(engine->new_session());
      place->second = ask(session, prompt(), {.sampling = sampling()});
      EXPECT_EQ(place->second.drafts, 0);
    }
    return place->second;
  }
  std::vector<TokenId> prompt() const { return random_tokens(kPromptTokens, 640, 3); }
  std::vector<TokenId> truth() const {
    std::vector<TokenId> all = prompt();
    all.insert(all.end(), plain().tokens.begin(), plain().tokens.end());
    return all;
  }
  void expect_plain(const DraftedAnswer& answer, const std::string& what) const {
    EXPECT_EQ(answer.tokens, plain().tokens) << what;
    EXPECT_EQ(answer.hash, plain().hash) << what;
    EXPECT_EQ(answer.held, plain().held) << what;
  }
};

INSTANTIATE_TEST_SUITE_P(Sampling, Speculating, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "drawn" : "greedy"; });

TEST_P(Speculating, g18_the_same_answer_whatever_is_drafted) {
  const std::vector<TokenId> all = truth();
  struct Variation {
    int64_t slots, chunk;
    int threads;
  };
  for (const Variation v :
       {Variation{0, 0, 1}, Variation{60, 16, 2}, Variation{40, 2, 3}, Variation{9, 5, 1}}) {
    EngineOptions with = options_with(Speculation::kOn);
    with.num_slots = v.slots;
    with.chunk_tokens = v.chunk;
    with.threads = v.threads;
    const auto engine = open_engine(with);
    for (const Right right : {Right::kAlways, Right::kThird, Right::kAsDrafted}) {
      Session session = value_of(engine->new_session());
      const DraftedAnswer answer =
          ask(session, prompt(), {.sampling = sampling(), .right = right, .truth = &all});
      const std::string what =
          "slots " + std::to_string(v.slots) + ", right " + std::to_string(static_cast<int>(right));
      expect_plain(answer, what);
      EXPECT_GT(answer.drafts, 0) << what;
      if (right == Right::kAlways) {
        EXPECT_EQ(answer.accepted, answer.drafts) << what;
      } else if (right == Right::kThird) {
        EXPECT_GT(answer.accepted, 0) << what;
        EXPECT_LT(answer.accepted, answer.drafts) << what;
      }
    }
    EXPECT_EQ(engine->experts().stats().evictions > 0, v.slots > 0);
  }
}

TEST_P(Speculating, g18_the_answer_may_end_anywhere_and_go_on) {
  const std::vector<TokenId> all = truth();
  EngineOptions with = options_with(Speculation::kOn);
  with.num_slots = 50;
  with.parallel = 2;
  const auto engine = open_engine(with);
  for (const int64_t tokens : {1, 2, 3, 6}) {
    std::vector<TokenId> so_far = prompt();
    so_far.insert(so_far.end(), plain().tokens.begin(), plain().tokens.begin() + tokens);
    // Greedy from there on: penalties and draws would start anew with a new request.
    Session fresh = value_of(engine->new_session());
    const GenerateResult expected = continue_greedily(fresh, so_far, 6);
    for (const Right right : {Right::kAlways, Right::kThird}) {
      // By number, by a stop token, by cancellation; the next request continues from there.
      for (const int end : {0, 1, 2}) {
        Session session = value_of(engine->new_session());
        Asked asked = {.sampling = sampling(), .right = right, .truth = &all};
        if (end == 0) asked.max_tokens = tokens;
        if (end == 1) asked.stop_ids = {plain().tokens[static_cast<size_t>(tokens)]};
        if (end == 2) {
          std::stop_source stop;
          GenerateOptions options;
          options.sampling = sampling();
          options.redraft = [&](int64_t position, TokenId) {
            return all[std::min(static_cast<size_t>(position), all.size() - 1)];
          };
          int64_t seen = 0;
          options.on_token = [&](TokenId) {
            if (++seen == tokens) stop.request_stop();
          };
          const GenerateResult result =
              value_of(session.generate(prompt(), options, stop.get_token()));
          EXPECT_EQ(result.finish, FinishReason::kCancelled);
          EXPECT_EQ(std::ssize(result.tokens), tokens);
        } else {
          ask(session, prompt(), asked);
        }
        EXPECT_LE(session.tokens().size(), so_far.size());
        const GenerateResult went_on = continue_greedily(session, so_far, 6);
        EXPECT_EQ(went_on.tokens, expected.tokens) << tokens << " tokens, end " << end;
        EXPECT_EQ(went_on.metrics.logits_hash, expected.metrics.logits_hash);
        EXPECT_GT(went_on.metrics.cached_tokens, 0);
      }
    }
  }
}

TEST_P(Speculating, g18_a_full_context_and_a_checkpoint) {
  const std::vector<TokenId> all = truth();
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    EngineOptions with = options_with(speculation);
    with.context = kPromptTokens + 10;
    with.num_checkpoints = 2;
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    GenerateOptions options;
    options.sampling = sampling();
    options.checkpoints = {8};
    options.redraft = [&](int64_t position, TokenId) {
      return all[std::min(static_cast<size_t>(position), all.size() - 1)];
    };
    const GenerateResult result = value_of(session.generate(prompt(), options, {}));
    EXPECT_EQ(result.finish, FinishReason::kLength);
    EXPECT_EQ(std::ssize(result.tokens), 11);
    EXPECT_TRUE(std::ranges::equal(result.tokens, std::span(plain().tokens).first(11)));
    // Back to the checkpoint, and on with other tokens.
    std::vector<TokenId> other(all.begin(), all.begin() + 8);
    for (int i = 0; i < 6; ++i) other.push_back(static_cast<TokenId>(i + 1));
    const auto untouched = open_engine(with);
    Session fresh = value_of(untouched->new_session());
    const GenerateResult expected = continue_greedily(fresh, other, 6);
    const GenerateResult rewound = continue_greedily(session, other, 6);
    EXPECT_EQ(rewound.metrics.cached_tokens, 8);
    EXPECT_EQ(rewound.metrics.logits_hash, expected.metrics.logits_hash);
  }
}

TEST_P(Speculating, g18_auto_tries_drafts_where_experts_fit_and_sets_nothing_aside_elsewhere) {
  EngineOptions with = options_with(Speculation::kAuto);
  const auto engine = open_engine(with);
  EXPECT_TRUE(engine->can_draft());
  Session session = value_of(engine->new_session());
  const DraftedAnswer answer = ask(session, prompt(), {.sampling = sampling()});
  expect_plain(answer, "auto");
  EXPECT_GT(answer.drafts, 0);
  with.num_slots = 40;
  EXPECT_FALSE(open_engine(with)->can_draft());
}

TEST_P(Speculating, g18_a_failed_read_of_a_draft_ends_the_request_cleanly) {
  const std::vector<TokenId> all = truth();
  int failed = 0;
  for (uint64_t n = 150; n < 400; n += 25) {
    FakeFaults faults;
    faults.fail_read(n, EIO, Lasting::kForGood);
    EngineOptions with = options_with(Speculation::kOn);
    with.num_slots = 30;
    with.prefetch = false;
    with.num_checkpoints = 1;
    with.reader_factory = [&] {
      return std::make_unique<FakeReader>(FakeReaderOptions{.seed = n}, &faults);
    };
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    GenerateOptions options;
    options.sampling = sampling();
    options.max_tokens = kAnswerTokens;
    options.redraft = [&](int64_t position, TokenId) {
      return all[std::min(static_cast<size_t>(position), all.size() - 1)];
    };
    const Result<GenerateResult> result = session.generate(prompt(), options, {});
    failed += result ? 0 : 1;
    faults.heal();
    const DraftedAnswer answer =
        ask(session, prompt(), {.sampling = sampling(), .right = Right::kThird, .truth = &all});
    EXPECT_EQ(answer.tokens, plain().tokens) << "read " << n;
    EXPECT_EQ(answer.hash, plain().hash) << "read " << n;
  }
  EXPECT_GT(failed, 3);
}

TEST_P(Speculating, g19_a_draft_follows_from_the_tokens_alone) {
  const std::vector<TokenId> all = truth();
  std::map<int64_t, TokenId> expected;
  for (const int64_t chunk : {int64_t{32}, int64_t{2}, int64_t{7}}) {
    for (const Right right : {Right::kNever, Right::kAlways, Right::kThird}) {
      EngineOptions with = options_with(Speculation::kOn);
      with.chunk_tokens = chunk;
      with.num_slots = chunk == 7 ? 33 : 0;
      with.threads = chunk == 2 ? 2 : 1;
      const auto engine = open_engine(with);
      Session session = value_of(engine->new_session());
      const DraftedAnswer answer =
          ask(session, prompt(), {.sampling = sampling(), .right = right, .truth = &all});
      if (expected.empty()) expected = answer.drafted;
      ASSERT_GE(std::ssize(answer.drafted), kAnswerTokens / 2 - 1);
      for (const auto& [position, token] : answer.drafted) {
        ASSERT_TRUE(expected.contains(position));
        EXPECT_EQ(token, expected[position]) << "position " << position << ", chunks of " << chunk;
      }
    }
  }
  std::map<TokenId, int> different;
  for (const auto& [position, token] : expected) ++different[token];
  EXPECT_GT(different.size(), 3u) << "drafts that are all the same would prove nothing";
}

// Sequences side by side in a pass, one with a draft, one without, then the other way round; drafts
// right and wrong in turns.
TEST(SpeculatingTogether, g20_drafts_of_several_sequences_in_one_pass) {
  constexpr int kLines = 3;
  const auto prompt_of = [](int i) {
    return random_tokens(5 + 9 * i, 640, 70 + static_cast<uint64_t>(i));
  };
  std::vector<GenerateResult> expected;
  for (int i = 0; i < kLines; ++i) {
    const auto alone = open_engine(options_with(Speculation::kOff));
    Session session = value_of(alone->new_session());
    expected.push_back(continue_greedily(session, prompt_of(i), kAnswerTokens));
  }
  EngineOptions with = options_with(Speculation::kOn);
  with.parallel = kLines;
  with.num_slots = 30;
  const auto engine = open_engine(with);
  struct Line {
    Session session;
    std::vector<TokenId> answer;
  };
  std::vector<Line> lines;
  GenerationMetrics metrics;
  const auto choose = [](Line& line) {
    const auto logits = line.session.logits();
    line.answer.push_back(static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin()));
  };
  for (int i = 0; i < kLines; ++i) {
    lines.push_back({value_of(engine->new_session()), {}});
    value_of(lines.back().session.sync(prompt_of(i), {}, metrics, {}));
    choose(lines.back());
  }
  int kept = 0, dropped = 0;
  const auto has_more = [](const Line& line) { return std::ssize(line.answer) < kAnswerTokens; };
  for (int step = 0; std::ranges::any_of(lines, has_more); ++step) {
    Batch batch(engine->parts());
    for (int i = 0; i < kLines; ++i) {
      Line& line = lines[static_cast<size_t>(i)];
      if (!has_more(line)) continue;
      const std::vector<TokenId>& truth = expected[static_cast<size_t>(i)].tokens;
      const TokenId next = line.answer.back();
      const TokenId after = truth[line.answer.size()];
      const TokenId pair[] = {next, (step + i) % 4 == 0 ? (after + 1) % 640 : after};
      SegmentWish wish;
      wish.last_is_draft = (step + i) % 3 != 0;
      batch.add(line.session.sequence(), std::span(pair).first(wish.last_is_draft ? 2 : 1), wish);
    }
    value_of(batch.run({}));
    for (Line& line : lines) {
      if (!has_more(line)) continue;
      choose(line);
      Sequence& sequence = line.session.sequence();
      if (!sequence.on_trial) continue;
      if (*std::exchange(sequence.on_trial, std::nullopt) == line.answer.back()) {
        sequence.state.keep_trial();
        sequence.tokens.push_back(line.answer.back());
        sequence.logits.swap(sequence.trial_logits);
        ++kept;
        if (has_more(line)) choose(line);
      } else {
        sequence.state.drop_trial();
        ++dropped;
      }
    }
  }
  EXPECT_GT(kept, 5);
  EXPECT_GT(dropped, 2);
  for (int i = 0; i < kLines; ++i) {
    EXPECT_EQ(lines[static_cast<size_t>(i)].answer, expected[static_cast<size_t>(i)].tokens) << i;
  }
}

}  // namespace
}  // namespace penstock::test
