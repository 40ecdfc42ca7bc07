// Checksums that first reads make: kept, compared, and what becomes of files that are not theirs.
#include "store/expert_checksums.h"

#include <gtest/gtest.h>

#include "store/expert_store.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

const Hash128 kModel{11, 22};

KeptChecksums some_sums() {
  return {{{{1, 2}, {3, 4}}, {}, {{5, 6}, {}, {7, 8}}}};
}

TEST(KeptChecksums, what_was_kept_comes_back) {
  SimStorage disk{1};
  ASSERT_TRUE(save_checksums(disk, "state/sums", kModel, some_sums()).has_value());
  const auto kept = load_checksums(disk, "state/sums", kModel);
  ASSERT_TRUE(kept.has_value()) << kept.error().message;
  EXPECT_EQ(kept->layers, some_sums().layers);
  EXPECT_EQ(load_checksums(disk, "state/none", kModel).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(load_checksums(disk, "state/sums", {1, 1}).error().code, ErrorCode::kUnsupported);
}

// Two runs of one model, each of which has read what the other has not.
TEST(KeptChecksums, what_runs_beside_each_other_learn_stays) {
  SimStorage disk{3};
  ExpertTable first, second;
  for (ExpertTable* table : {&first, &second}) {
    table->num_experts = 2;
    table->layers.resize(1);
    table->layers[0].parts.resize(1);
    learn_checksums({}, *table);
  }
  first.checksum_of(0, 0, 0) = {1, 1};
  second.checksum_of(0, 1, 0) = {2, 2};
  KeptChecksums of_first, of_second;
  ASSERT_TRUE(keep_checksums(disk, "state/sums", kModel, first, of_first));
  ASSERT_TRUE(keep_checksums(disk, "state/sums", kModel, second, of_second));
  ASSERT_TRUE(keep_checksums(disk, "state/sums", kModel, first, of_first));
  EXPECT_EQ(load_checksums(disk, "state/sums", kModel)->layers,
            (std::vector<std::vector<Hash128>>{{{1, 1}, {2, 2}}}));
}

TEST(KeptChecksums, every_damaged_byte_and_every_cut_is_noticed) {
  SimStorage disk{2};
  ASSERT_TRUE(save_checksums(disk, "sums", kModel, some_sums()).has_value());
  const std::string whole = read_text(disk, "sums", 1 << 20).value();
  const auto refused = [&](const std::string& bytes) {
    const auto file = disk.open("sums", OpenMode::kCreate).value();
    EXPECT_TRUE(file->write(0, std::as_bytes(std::span(bytes))).has_value());
    return !load_checksums(disk, "sums", kModel).has_value();
  };
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_TRUE(refused(damaged)) << i;
    EXPECT_TRUE(refused(whole.substr(0, i))) << i;
  }
  EXPECT_TRUE(refused(whole + "x"));
}

TEST(KeptChecksums, a_table_takes_what_fits_and_gives_back_what_it_knows) {
  ExpertTable table;
  table.num_experts = 2;
  table.layers.resize(2);
  for (LayerPlaces& layer : table.layers) layer.parts.resize(2);
  KeptChecksums kept{{{{1, 1}, {2, 2}, {}, {3, 3}}, {{9, 9}}, {{4, 4}}}};
  learn_checksums(kept, table);
  EXPECT_TRUE(table.learns_checksums);
  EXPECT_EQ(table.checksum_of(0, 1, 1), (Hash128{3, 3}));
  EXPECT_EQ(table.checksum_of(1, 0, 0), Hash128{});  // kept for another number of parts
  table.checksum_of(1, 1, 0) = {5, 5};
  remember_checksums(table, kept);
  ASSERT_EQ(kept.layers.size(), 3u);
  EXPECT_EQ(kept.layers[1], (std::vector<Hash128>{{}, {}, {5, 5}, {}}));
  EXPECT_EQ(kept.layers[2], (std::vector<Hash128>{{4, 4}}));  // of a layer that is not in use
}

}  // namespace
}  // namespace penstock
