// Gates of where experts lie, in the manner of gates_test.cc:
//
//   G23 experts in any parts and files: gate and up together or apart, in one file or two, at any
//       offset, one behind the other or each in a place of its own, of one type or several: the same
//       logits, from memory and streamed
//   G28 copies of these files on other drives, sound or rotten: the same logits, whichever drive
//       brings which read in whatever order
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "support/fake_reader.h"
#include "support/relaid_experts.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

constexpr RelaidLayout kLayouts[] = {
    {.name = "as_packed_in_two_files", .are_gate_and_up_apart = false},
    {.name = "as_packed_at_odd_offsets", .are_gate_and_up_apart = false, .first = 4099, .gap = 13},
    {.name = "three_parts_in_one_file", .has_two_files = false, .first = 96},
    {.name = "three_parts_in_two_files_at_odd_offsets", .first = 8191, .gap = 1},
    {.name = "each_in_a_place_of_its_own", .first = 7, .gap = 2, .has_own_places = true},
    {.name = "several_types", .first = 33, .gap = 31, .widens = true}};

struct Relaid {
  const char* model;  // of tests/data/random; "demo": the demo model, 4 bits
  RelaidLayout layout;
};

std::vector<Relaid> all_relaid() {
  std::vector<Relaid> all;
  for (const char* model : {"r3-wrapped", "r2-top1", "demo"}) {
    for (const RelaidLayout& layout : kLayouts) {
      // Codes of 4 bits are not widened here: a product of codes is no product of values, bit for
      // bit. Of a larger model the oddest two layouts are enough.
      if (std::string(model) == "demo" && (layout.widens || layout.gap == 0 || layout.first < 99)) {
        continue;
      }
      all.push_back({model, layout});
    }
  }
  return all;
}

class RelaidGate : public ::testing::TestWithParam<Relaid> {
 protected:
  struct Answer {
    std::vector<float> logits;
    uint64_t hash = 0;
    StoreStats store;
  };

  static Answer answer_of(Engine& engine) {
    const auto prompt = random_tokens(29, engine.config().vocab_size, 7);
    Answer answer;
    answer.logits = evaluate(engine, prompt).logits;
    Session session = value_of(engine.new_session());
    answer.hash = continue_greedily(session, prompt, 8).metrics.logits_hash;
    answer.store = engine.experts().stats();
    return answer;
  }

  EngineOptions options() const {
    const std::string model = GetParam().model;
    return small_options(model == "demo" ? PENSTOCK_DEMO_MODEL : packed_random(model));
  }

  const Answer& as_packed() const {
    static std::map<std::string, Answer> known;
    auto [place, is_new] = known.try_emplace(GetParam().model);
    if (is_new) place->second = answer_of(*open_engine(options()));
    return place->second;
  }
};

INSTANTIATE_TEST_SUITE_P(Layouts, RelaidGate, ::testing::ValuesIn(all_relaid()),
                         [](const auto& test) {
                           std::string name =
                               std::string(test.param.model) + "_" + test.param.layout.name;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(RelaidGate, g23_the_same_bits_wherever_the_experts_lie) {
  EngineOptions with = options();
  with.expert_source = relaid_experts(temporary_folder(), GetParam().layout);
  const auto in_memory = open_engine(with);
  const Answer resident = answer_of(*in_memory);
  EXPECT_TRUE(same_bits(resident.logits, as_packed().logits));
  EXPECT_EQ(resident.hash, as_packed().hash);
  const auto parts = GetParam().layout.are_gate_and_up_apart ? 3u : 2u;
  EXPECT_GE(resident.store.reads, resident.store.misses * parts);  // some are read ahead in vain
  EXPECT_EQ(resident.store.reads % parts, 0u);
  EXPECT_GT(resident.store.bytes_verified, 0u);

  const int64_t all = in_memory->plan().num_experts;
  for (const int64_t slots : {all / 3, in_memory->experts_per_token() + 1}) {
    with.num_slots = slots;
    const Answer streamed = answer_of(*open_engine(with));
    EXPECT_TRUE(same_bits(streamed.logits, as_packed().logits)) << slots << " slots";
    EXPECT_EQ(streamed.hash, as_packed().hash) << slots << " slots";
    EXPECT_GT(streamed.store.evictions, 0u);
    with.threads = 2;
    with.reader_factory = [] {
      return std::make_unique<FakeReader>(FakeReaderOptions{.seed = 5, .depth = 8}, nullptr);
    };
  }
}

std::string copy_of(const std::string& folder) {
  const std::string copy = temporary_folder();
  std::filesystem::copy(folder, copy);
  return copy;
}

// Of every 60 bytes one or two are others: no part is spared.
void rot(const std::string& folder) {
  std::mt19937 random(11);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    for (uintmax_t at = random() % 60; at < entry.file_size(); at += 1 + random() % 60) {
      file.seekp(static_cast<std::streamoff>(at));
      file.put(static_cast<char>(random()));
    }
  }
}

TEST_P(RelaidGate, g28_the_same_bits_from_whichever_drive) {
  const std::string folder = temporary_folder();
  EngineOptions with = options();
  with.expert_source = relaid_experts(folder, GetParam().layout);
  with.num_slots = open_engine(with)->experts_per_token() + 2;  // the files are written now
  const std::string rotten = copy_of(folder);
  with.mirrors = {copy_of(folder), rotten};
  rot(rotten);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    with.reader_factory = [seed] {
      return std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed, .depth = 16}, nullptr);
    };
    const auto engine = open_engine(with);
    const Answer mirrored = answer_of(*engine);
    EXPECT_TRUE(same_bits(mirrored.logits, as_packed().logits)) << "seed " << seed;
    EXPECT_EQ(mirrored.hash, as_packed().hash) << "seed " << seed;
    const std::vector<DriveReport> drives = engine->experts().drives();
    ASSERT_EQ(drives.size(), 3u);
    for (const DriveReport& drive : drives) EXPECT_GT(drive.stats.reads, 0u) << drive.path;
    EXPECT_EQ(drives[0].stats.failures + drives[1].stats.failures, 0u);
    EXPECT_GT(drives[2].stats.failures, 0u);
  }
}

}  // namespace
}  // namespace penstock::test
