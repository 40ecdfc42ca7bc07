// The last of a token's experts from a copy in fewer bits, lossy by name (G13): the rank decides, so
// these are the same bits whatever budget, slots, threads, chunks, readers, drafts; and at the ends of
// the ranks the answer is the model's own, or that of the copy.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gates/gate.h"

namespace penstock::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChosen = 8;  // of 24
constexpr int64_t kPrompt = 29;

std::string model_path() {
  return model_with_block(DType::kQ4);
}

std::string copy_path() {
  return model_with_block(DType::kQ2);
}

EngineOptions exact_options() {
  EngineOptions with = small_options(model_path());
  with.context = 128;
  with.speculation = Speculation::kOff;
  return with;
}

EngineOptions from_rank(int64_t rank) {
  EngineOptions with = exact_options();
  with.low_bits = {copy_path(), rank};
  return with;
}

Answer answer_with(const EngineOptions& with) {
  return answer_of(*open_engine(with), kPrompt);
}

Error refusal_of(const EngineOptions& with) {
  const auto engine = Engine::open(posix_storage(), with, {});
  EXPECT_FALSE(engine);
  return engine ? Error{} : engine.error();
}

TEST(LowBits, g13_the_ends_of_the_ranks_are_the_model_and_the_copy) {
  const Answer exact = answer_with(exact_options());
  EngineOptions alone = exact_options();
  alone.model = copy_path();
  const Answer all_of_copy = answer_with(alone);
  ASSERT_FALSE(exact == all_of_copy);
  EXPECT_TRUE(answer_with(from_rank(kChosen + 1)) == exact);
  EXPECT_TRUE(answer_with(from_rank(1)) == all_of_copy);
  std::vector<Answer> between;
  for (const int64_t rank : {2, 5, 8}) between.push_back(answer_with(from_rank(rank)));
  for (const Answer& answer : between) {
    EXPECT_FALSE(answer == exact || answer == all_of_copy);
    EXPECT_EQ(std::ranges::count(between, answer), 1);
  }
  EXPECT_TRUE(open_engine(from_rank(5))->is_lossy());
  EngineOptions itself = from_rank(3);
  itself.low_bits.folder = model_path();
  EXPECT_TRUE(answer_with(itself) == exact) << "a copy with the model's own bits";
}

TEST(LowBits, g13_a_copy_gives_the_same_bits_everywhere) {
  for (const double weight : {1.0, 0.6}) {
    EngineOptions with = from_rank(4);
    with.expert_limits.weight = weight;
    const Answer expected = answer_with(with);
    for (const int64_t chunk : {1, 3, 16}) {
      with.chunk_tokens = chunk;
      with.num_slots = chunk == 3 ? 5 : 11;
      with.threads = static_cast<int>(chunk % 4);
      with.prefetch = chunk != 3;
      with.reader.kind = chunk == 16 ? ReaderKind::kThreads : ReaderKind::kAuto;
      if (chunk == 3) with.reader_factory = [] { return fake_reader(8, nullptr); };
      const auto engine = open_engine(with);
      EXPECT_TRUE(answer_of(*engine, kPrompt) == expected)
          << "chunks of " << chunk << ", " << weight << " of the weight";
      EXPECT_GT(engine->experts().stats().evictions, 0u);
      EXPECT_GT(engine->low_bit_experts()->stats().evictions, 0u);
      with.reader_factory = {};
    }
  }
  const Answer expected = answer_with(from_rank(4));
  for (const std::string& target : targets_to_compare()) {
    EngineOptions with = from_rank(4);
    with.simd_target = target;
    EXPECT_TRUE(answer_with(with) == expected) << target;
  }
}

TEST(LowBits, g13_any_budget_with_a_copy_gives_the_same_bits_and_is_kept) {
  for (const int64_t rank : {int64_t{1}, int64_t{4}, kChosen + 1}) {
    EngineOptions with = from_rank(rank);
    const auto all = open_engine(with);
    const MemoryPlan most = all->plan();
    const Answer expected = answer_of(*all, kPrompt);
    const int64_t of_model = rank > 1 ? most.num_experts : 1;
    const int64_t of_copy = rank <= kChosen ? most.num_experts : 1;
    EXPECT_EQ(most.num_slots, of_model);
    EXPECT_EQ(most.copy_slots, of_copy);
    with.memory_bytes = most.minimum_bytes - 1;
    EXPECT_EQ(refusal_of(with).code, ErrorCode::kOutOfMemory);
    for (int step = 0; step <= 3; ++step) {
      with.memory_bytes = most.minimum_bytes + (most.all_resident_bytes - most.minimum_bytes) *
                                                   static_cast<uint64_t>(step) / 3;
      const auto planned = open_engine(with);
      const MemoryPlan& plan = planned->plan();
      EXPECT_LE(plan.total_bytes, with.memory_bytes);
      EXPECT_GE(plan.num_slots, plan.floor_slots);
      EXPECT_GE(plan.copy_slots, plan.copy_floor_slots);
      EXPECT_TRUE(answer_of(*planned, kPrompt) == expected) << "rank " << rank << ", step " << step;
    }
  }
}

// Of the choices of a decoded token every store is asked for its ranks, no more and no less.
TEST(LowBits, g13_each_store_is_asked_for_its_ranks) {
  const auto engine = open_engine(from_rank(3));
  Session session = value_of(engine->new_session());
  const GenerateResult result = continue_greedily(session, prompt_for(*engine, 1), 5);
  const auto passes = engine->experts().stats().steps;
  const auto layers = static_cast<uint64_t>(engine->config().num_expert_layers());
  EXPECT_EQ(engine->experts().stats().requests, passes * layers * 2);
  EXPECT_EQ(engine->low_bit_experts()->stats().requests, passes * layers * (kChosen - 2));
  const StoreStats told = result.metrics.prompt.store + result.metrics.answer.store;
  EXPECT_EQ(told.requests, passes * layers * kChosen);
  EXPECT_EQ(told.bytes_read,
            engine->experts().stats().bytes_read + engine->low_bit_experts()->stats().bytes_read);
}

TEST(LowBits, g13_drafts_change_nothing_where_experts_come_from_a_copy) {
  std::vector<GenerateResult> results;
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    EngineOptions with = from_rank(4);
    with.speculation = speculation;
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    results.push_back(continue_greedily(session, prompt_for(*engine, 21), 24));
  }
  EXPECT_GT(results[1].metrics.drafts, 0);
  EXPECT_EQ(results[1].tokens, results[0].tokens);
  EXPECT_EQ(results[1].metrics.logits_hash, results[0].metrics.logits_hash);
}

TEST(LowBits, g13_sequences_in_one_pass_with_a_copy_are_what_each_is_alone) {
  constexpr int kSequences = 3;
  const auto logits_of = [](bool together) {
    EngineOptions with = from_rank(4);
    with.parallel = kSequences;
    with.num_slots = together ? 9 : 0;
    const auto engine = open_engine(with);
    std::vector<Session> sessions;
    for (int i = 0; i < kSequences; ++i) sessions.push_back(value_of(engine->new_session()));
    std::vector<float> logits;
    for (int pass = 0; pass < 3; ++pass) {
      Batch batch(engine->parts());
      for (int i = 0; i < kSequences; ++i) {
        const auto tokens = random_tokens(pass == 0 ? 1 + 4 * i : 1, engine->config().vocab_size,
                                          static_cast<uint64_t>(10 * pass + i));
        batch.add(sessions[static_cast<size_t>(i)].sequence(), tokens);
        if (!together) value_of(batch.run({}));
      }
      if (together) value_of(batch.run({}));
      for (Session& session : sessions) {
        logits.insert(logits.end(), session.logits().begin(), session.logits().end());
      }
    }
    return logits;
  };
  EXPECT_TRUE(same_bits(logits_of(true), logits_of(false)));
}

TEST(LowBits, g17_slots_of_model_and_copy_are_given_back_and_taken_again) {
  const Answer expected = answer_with(from_rank(4));
  constexpr uint64_t kPlenty = 1ull << 30;
  Engine* engine_seen = nullptr;
  int looks = 0;
  std::vector<int> of_model, of_copy;
  EngineOptions with = from_rank(4);
  with.chunk_tokens = 4;
  with.memory_watch.is_on = true;
  with.memory_watch.every = with.memory_watch.quiet = std::chrono::nanoseconds(0);
  with.memory_watch.probe = [&]() -> Result<MemoryReading> {
    if (engine_seen != nullptr) {
      of_model.push_back(engine_seen->experts().num_slots());
      of_copy.push_back(engine_seen->low_bit_experts()->num_slots());
    }
    const bool is_short = engine_seen != nullptr && looks++ % 14 >= 7;
    return MemoryReading{
        .available_bytes = is_short ? 0 : kPlenty, .limit_bytes = kPlenty, .stalled_share = 0};
  };
  const auto engine = open_engine(with);
  engine_seen = engine.get();
  EXPECT_TRUE(answer_of(*engine, kPrompt) == expected);
  const MemoryPlan& plan = engine->plan();
  for (const auto& [sizes, floor, full] : {std::tuple(of_model, plan.floor_slots, plan.num_slots),
                                           {of_copy, plan.copy_floor_slots, plan.copy_slots}}) {
    EXPECT_EQ(*std::ranges::min_element(sizes), floor);
    EXPECT_EQ(sizes.front(), full);
    EXPECT_NE(std::ranges::adjacent_find(sizes, std::less()), sizes.end());  // it grew again
  }
  EXPECT_GT(engine->slots().given_back().slots, 0u);
}

TEST(LowBits, g13_what_is_read_of_a_copy_is_compared_with_its_checksums) {
  const std::string broken = temporary_folder() + "/broken";
  fs::copy(copy_path(), broken);
  {
    std::fstream file(broken + "/experts.bin", std::ios::in | std::ios::out | std::ios::binary);
    const auto bytes = static_cast<std::streamoff>(fs::file_size(broken + "/experts.bin"));
    for (std::streamoff at = 0; at < bytes; at += 4096) {
      file.seekg(at);
      const char flipped = static_cast<char>(file.get() ^ 1);
      file.seekp(at);
      file.put(flipped);
    }
  }
  EngineOptions with = from_rank(4);
  with.low_bits.folder = broken;
  const auto engine = open_engine(with);
  Session session = value_of(engine->new_session());
  GenerateOptions generate;
  generate.max_tokens = 1;
  for (int round = 0; round < 2; ++round) {
    const auto failed = session.generate(prompt_for(*engine, 3), generate, {});
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(failed.error().message.find(broken), std::string::npos) << failed.error().message;
  }
}

TEST(LowBits, g13_a_copy_of_another_checkpoint_is_refused) {
  EngineOptions with = from_rank(4);
  with.low_bits.folder = model_with_block(DType::kQ2, 2);
  Error refused = refusal_of(with);
  EXPECT_EQ(refused.code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.message.find("was not made of the model's checkpoint"), std::string::npos)
      << refused.message;
  with.low_bits.folder = packed_random("r3-wrapped");
  refused = refusal_of(with);
  EXPECT_EQ(refused.code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.message.find("another model"), std::string::npos) << refused.message;
  with.low_bits.folder = data_path("random/r3-wrapped");
  refused = refusal_of(with);
  EXPECT_EQ(refused.code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.message.find("penstock pack"), std::string::npos) << refused.message;
  with.low_bits.folder = temporary_folder() + "/nobody";
  refused = refusal_of(with);
  EXPECT_EQ(refused.code, ErrorCode::kNotFound);
  EXPECT_NE(refused.message.find("--lossy-low-bits-copy"), std::string::npos) << refused.message;
}

TEST(LowBits, g13_what_a_copy_does_not_go_with_is_refused_by_name) {
  for (const int64_t rank : {int64_t{0}, int64_t{-1}, kChosen + 2}) {
    const Error refused = refusal_of(from_rank(rank));
    EXPECT_EQ(refused.code, ErrorCode::kInvalidArgument);
    EXPECT_NE(refused.message.find("--lossy-low-bits-from"), std::string::npos) << refused.message;
  }
  EngineOptions with = from_rank(4);
  with.gpu.device = "auto";
  const Error refused = refusal_of(with);
  EXPECT_EQ(refused.code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.message.find("--gpu"), std::string::npos) << refused.message;
  with = from_rank(kChosen);
  with.experts_per_token = 6;  // of which there is no eighth
  EXPECT_NE(refusal_of(with).message.find("--lossy-low-bits-from"), std::string::npos);
}

}  // namespace
}  // namespace penstock::test
