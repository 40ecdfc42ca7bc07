// Gate G22: prefixes that are kept on a disk (index in gates_test.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "engine/prefix_store.h"
#include "support/sim_storage.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

constexpr const char* kFolder = "/kv";
constexpr int64_t kLongPrompt = 1200;
// Before, at and behind the ends of pages.
const std::vector<int64_t> kPlaces = {17, kKvPagePositions, kKvPagePositions + 1, 1100};

// The model with room for several pages: what positions mean does not depend on how many there are.
std::string with_long_context(const std::string& name) {
  static std::map<std::string, std::string> made;
  const auto [place, is_new] = made.try_emplace(name);
  if (!is_new) return place->second;
  const std::string folder = temporary_folder() + "/" + name;
  std::filesystem::copy(data_path("random/" + name), folder,
                        std::filesystem::copy_options::recursive);
  const std::string path = folder + "/config.json";
  Json config = value_of(parse_json(value_of(read_text(posix_storage(), path, 1 << 20)), path));
  Json& text = config.contains("text_config") ? config["text_config"] : config;
  text["max_position_embeddings"] = 4096;
  std::ofstream(path) << to_text(config);
  place->second = packed(folder);
  return place->second;
}

class OnDisk : public ::testing::TestWithParam<const char*> {
 protected:
  EngineOptions options() {
    const bool has_block = std::string_view(GetParam()) == "mtp";
    EngineOptions with =
        small_options(has_block ? model_with_block() : with_long_context(GetParam()));
    if (has_block) with.speculation = Speculation::kOn;
    with.context = 1400;
    with.prefix_store.directory = kFolder;
    with.prefix_store.bytes_max = 1ull << 30;
    with.prefix_store.storage = &disk_;
    with.prefix_store.on_trouble = [this](const std::string& line) { told_.push_back(line); };
    return with;
  }

  // The first `shared` tokens of one prompt, then others.
  static std::vector<TokenId> branch(const Engine& engine, int64_t shared) {
    const int64_t vocab = engine.config().vocab_size;
    std::vector<TokenId> tokens = random_tokens(kLongPrompt, vocab, 11);
    tokens.resize(static_cast<size_t>(shared));
    const auto more = random_tokens(9, vocab, static_cast<uint64_t>(shared) + 1);
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  }

  static GenerateResult answer(Engine& engine, const std::vector<TokenId>& prompt,
                               const std::vector<int64_t>& places = {}) {
    Session session = value_of(engine.new_session());
    GenerateOptions generate;
    generate.max_tokens = 6;
    generate.checkpoints = places;
    return value_of(session.generate(prompt, generate, {}));
  }

  // What a run that keeps nothing says: computed once.
  const GenerateResult& anew(int64_t shared) {
    static std::map<std::pair<std::string, int64_t>, GenerateResult> known;
    const auto [place, is_new] = known.try_emplace({GetParam(), shared});
    if (is_new) {
      EngineOptions with = options();
      with.prefix_store = {};
      const auto engine = open_engine(with);
      place->second = answer(*engine, branch(*engine, shared));
    }
    return place->second;
  }

  // Files of a state for each place, and of two pages.
  void fill() {
    const auto engine = open_engine(options());
    answer(*engine, branch(*engine, 1150), kPlaces);
    EXPECT_EQ(engine->parts().prefix_store->figures().saved, kPlaces.size() + 2);
  }

  // A new run, whose prompt begins as before.
  GenerateResult after_restart(int64_t shared, PrefixStoreFigures* figures = nullptr) {
    const auto engine = open_engine(options());
    const GenerateResult result = answer(*engine, branch(*engine, shared));
    if (figures != nullptr) *figures = engine->parts().prefix_store->figures();
    return result;
  }

  std::vector<std::string> files() {
    std::vector<std::string> all;
    for (const std::string& folder : value_of(disk_.list(kFolder))) {
      const std::string path = std::string(kFolder) + "/" + folder;
      for (const std::string& name : value_of(disk_.list(path))) all.push_back(path + "/" + name);
    }
    return all;
  }

  SimStorage disk_;
  std::vector<std::string> told_;
};

INSTANTIATE_TEST_SUITE_P(Models, OnDisk,
                         ::testing::Values("r3-wrapped", "r2-top1", "m2-dense", "mtp"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

void expect_same(const GenerateResult& got, const GenerateResult& expected) {
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(got.metrics.logits_hash, expected.metrics.logits_hash);
}

TEST_P(OnDisk, g22_a_prefix_from_disk_equals_one_computed_anew) {
  fill();
  for (const int64_t place : kPlaces) {
    PrefixStoreFigures figures;
    const GenerateResult result = after_restart(place, &figures);
    expect_same(result, anew(place));
    EXPECT_EQ(result.metrics.cached_tokens, place);
    EXPECT_EQ(figures.loaded_tokens, static_cast<uint64_t>(place));
  }
  // Between places the one before counts.
  const GenerateResult between = after_restart(900);
  expect_same(between, anew(900));
  EXPECT_EQ(between.metrics.cached_tokens, kKvPagePositions + 1);
  EXPECT_TRUE(told_.empty()) << told_.front();
}

TEST_P(OnDisk, g22_a_flipped_bit_anywhere_is_told_and_never_used) {
  fill();
  const auto names = files();
  ASSERT_EQ(names.size(), kPlaces.size() + 2);
  std::mt19937_64 random(5);
  for (const std::string& name : names) {
    const bool is_short = name.find("/17-") != std::string::npos;
    const bool is_met = is_short || name.find("/1100-") != std::string::npos ||
                        name.find(".page") != std::string::npos;
    if (!is_met) continue;  // a state of a place before: nobody asks for it
    for (int i = 0; i < 4; ++i) {
      const uint64_t bits = value_of(disk_.stat(name)).bytes * 8;
      // In the header, in the checksum, anywhere.
      const uint64_t bit = i == 0   ? random() % 448
                           : i == 1 ? bits - 1 - random() % 128
                                    : random() % bits;
      disk_.flip_stored_bit(name, bit);
      told_.clear();
      PrefixStoreFigures figures;
      const int64_t shared = is_short ? 17 : 1100;
      expect_same(after_restart(shared, &figures), anew(shared));
      EXPECT_EQ(figures.damaged, 1u) << name << " bit " << bit;
      ASSERT_EQ(told_.size(), 1u);
      EXPECT_NE(told_[0].find(name), std::string::npos) << told_[0];
      value_of(disk_.remove_tree(kFolder));
      fill();
    }
  }
}

TEST_P(OnDisk, g22_a_power_cut_or_a_failure_at_any_call_leaves_right_answers) {
  uint64_t cuts = 0;
  for (uint64_t call = 0;; call += 11) {
    SimStorage fresh(call + 1);
    EngineOptions with = options();
    with.prefix_store.storage = &fresh;
    const auto writer = open_engine(with);
    fresh.inject({.after = call, .times = kForEver, .error = EIO});
    expect_same(answer(*writer, branch(*writer, 1100), kPlaces), anew(1100));
    const bool has_struck = fresh.faults_struck() > 0;
    fresh.crash();
    const auto reader = open_engine(with);
    const GenerateResult result = answer(*reader, branch(*reader, 1100));
    expect_same(result, anew(1100));
    if (!has_struck) {
      EXPECT_EQ(result.metrics.cached_tokens, 1100);
      break;
    }
    ++cuts;
  }
  EXPECT_GT(cuts, 3u);
}

TEST_P(OnDisk, g22_the_oldest_make_room_and_a_full_disk_is_only_told) {
  uint64_t largest = 0;
  fill();
  for (const std::string& name : files()) {
    largest = std::max(largest, value_of(disk_.stat(name)).bytes);
  }
  value_of(disk_.remove_tree(kFolder));
  EngineOptions with = options();
  with.prefix_store.bytes_max = 3 * largest;
  const auto engine = open_engine(with);
  const PrefixStoreFigures& figures = engine->parts().prefix_store->figures();
  for (const int64_t place : {500, 501, 502, 503, 400, 300}) {
    expect_same(answer(*engine, branch(*engine, place), {place}), anew(place));
    EXPECT_LE(figures.held_bytes, with.prefix_store.bytes_max);
  }
  EXPECT_GT(figures.evicted, 0u);
  uint64_t bytes = 0;
  for (const std::string& name : files()) bytes += value_of(disk_.stat(name)).bytes;
  EXPECT_EQ(bytes, figures.held_bytes);
  EXPECT_TRUE(told_.empty());
  disk_.set_capacity(1000);
  expect_same(answer(*engine, branch(*engine, 1100), kPlaces), anew(1100));
  EXPECT_EQ(told_.size(), 1u);
}

TEST_P(OnDisk, g22_states_of_another_arithmetic_are_not_taken) {
  fill();
  EngineOptions with = options();
  with.arithmetic = Arithmetic::kFloat32;
  const auto engine = open_engine(with);
  EXPECT_EQ(answer(*engine, branch(*engine, 1100)).metrics.cached_tokens, 0);
}

TEST_P(OnDisk, g22_states_of_other_experts_are_not_taken) {
  fill();
  const ExpertLimits limits[] = {{.by_layer = {}, .weight = 0.9}, {.by_layer = {}, .weight = 0.95}};
  for (const ExpertLimits& limit : limits) {
    EngineOptions with = options();
    with.expert_limits = limit;
    const auto engine = open_engine(with);
    EXPECT_EQ(answer(*engine, branch(*engine, 1100), kPlaces).metrics.cached_tokens, 0)
        << to_text(limit);
  }
}

TEST_P(OnDisk, g22_states_of_experts_from_a_copy_are_not_taken) {
  fill();
  EngineOptions with = options();
  for (const int64_t rank : {1, 2}) {
    with.low_bits = {with.model, rank};
    const auto engine = open_engine(with);
    EXPECT_EQ(answer(*engine, branch(*engine, 1100), kPlaces).metrics.cached_tokens, 0) << rank;
  }
  const auto engine = open_engine(with);
  EXPECT_GT(answer(*engine, branch(*engine, 1100)).metrics.cached_tokens, 0) << "those of its own";
}

TEST_P(OnDisk, g22_keys_and_values_in_codes_are_kept_for_themselves) {
  fill();
  EngineOptions with = options();
  with.kv_form = KvForm::kCodes8;
  EngineOptions without = with;
  without.prefix_store = {};
  const auto fresh = open_engine(without);
  const GenerateResult expected = answer(*fresh, branch(*fresh, 1100));
  {
    const auto engine = open_engine(with);
    const GenerateResult first = answer(*engine, branch(*engine, 1100), kPlaces);
    EXPECT_EQ(first.metrics.cached_tokens, 0) << "files of floats were taken";
    expect_same(first, expected);
  }
  const auto engine = open_engine(with);
  const GenerateResult again = answer(*engine, branch(*engine, 1100));
  EXPECT_EQ(again.metrics.cached_tokens, 1100);
  expect_same(again, expected);
  // Those of floats are still there for who wants them.
  expect_same(after_restart(1100), anew(1100));
  EXPECT_TRUE(told_.empty());
}

TEST_P(OnDisk, g22_a_session_saved_by_name_goes_on_after_a_restart) {
  uint64_t bytes = 0;
  {
    const auto engine = open_engine(options());
    Session session = value_of(engine->new_session());
    GenerationMetrics metrics;
    const auto tokens = branch(*engine, 1100);
    const auto prefix = std::span(tokens).first(1100);
    session.reuse(prefix);
    value_of(session.sync(prefix, {}, metrics, {}));
    bytes = value_of(session.save_as("talk-1.bin"));
    for (const char* name : {"../talk", ".hidden", "", "a/b", "a.partial"}) {
      EXPECT_FALSE(session.save_as(name)) << name;
    }
  }
  const auto engine = open_engine(options());
  Session session = value_of(engine->new_session());
  EXPECT_EQ(value_of(session.restore_from("talk-1.bin")), bytes);
  EXPECT_EQ(session.tokens().size(), 1100u);
  GenerateOptions generate;
  generate.max_tokens = 6;
  const GenerateResult result = value_of(session.generate(branch(*engine, 1100), generate, {}));
  EXPECT_EQ(result.metrics.cached_tokens, 1100);
  expect_same(result, anew(1100));
  EXPECT_FALSE(session.restore_from("nobody"));
}

}  // namespace
}  // namespace penstock::test
