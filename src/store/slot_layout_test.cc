// Which parts come with one read, and that those get where they belong, whatever becomes of them there.

#include "store/slot_layout.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"
#include "support/test_part_forms.h"

namespace penstock {
namespace {

constexpr uint64_t kKiB = 1024;

// Parts of these sizes one behind the other, experts far apart.
ExpertTable in_a_row(const std::vector<uint64_t>& bytes, uint64_t gap = 0) {
  ExpertTable table;
  table.num_experts = 3;
  table.layers.resize(1);
  uint64_t end = 100;
  for (const uint64_t each : bytes) {
    table.layers[0].parts.push_back({.first = {0, end}, .stride = 100 << 20, .bytes = each});
    end += each + gap;
  }
  return table;
}

std::vector<std::vector<int>> joined(const ExpertTable& table) {
  std::vector<std::vector<int>> lists;
  const SlotLayout layout(table);
  for (const JoinedRead& read : layout.reads(0)) lists.push_back(read.parts);
  for (int i = 0; i < layout.num_reads(0); ++i) {
    for (const int part : lists[static_cast<size_t>(i)]) EXPECT_EQ(layout.read_of(0, part), i);
  }
  return lists;
}

using Lists = std::vector<std::vector<int>>;

TEST(SlotLayout, small_parts_that_are_neighbours_come_with_one_read) {
  EXPECT_EQ(joined(in_a_row({40 * kKiB, 40 * kKiB, 40 * kKiB})), (Lists{{0, 1, 2}}));
  EXPECT_EQ(joined(in_a_row({40 * kKiB, 40 * kKiB}, 8 * kKiB)), (Lists{{0, 1}}));
  EXPECT_EQ(joined(in_a_row({40 * kKiB, 40 * kKiB}, 8 * kKiB + 1)), (Lists{{0}, {1}}));
}

TEST(SlotLayout, large_ones_come_apart_with_the_small_ones_behind_them) {
  const uint64_t large = 1000 * kKiB;
  EXPECT_EQ(joined(in_a_row({large, large, large})), (Lists{{0}, {1}, {2}}));
  EXPECT_EQ(joined(in_a_row({large, 192, large, 192, large, 192})),
            (Lists{{0, 1}, {2, 3}, {4, 5}}));
}

TEST(SlotLayout, reads_go_by_the_order_of_the_file_and_come_by_that_of_need) {
  ExpertTable table = in_a_row({100, 1000 * kKiB, 1000 * kKiB});
  std::vector<PartPlace>& parts = table.layers[0].parts;
  std::rotate(parts.begin(), parts.begin() + 1, parts.end());  // now 2 is the first in the file
  EXPECT_EQ(joined(table), (Lists{{2, 0}, {1}}));
}

TEST(SlotLayout, what_is_not_so_in_every_expert_does_not_count) {
  const auto with = [](const auto& change) {
    ExpertTable table = in_a_row({4096, 4096});
    PartPlace& second = table.layers[0].parts[1];
    second.each = {second.of(0), second.of(1), second.of(2)};
    change(second.each[2], table.layers[0].parts);
    return joined(table);
  };
  using Parts = std::vector<PartPlace>;
  const Lists apart = {{0}, {1}};
  EXPECT_EQ(with([](FilePlace&, Parts&) {}), (Lists{{0, 1}}));
  EXPECT_EQ(with([](FilePlace& place, Parts&) { place.file = 1; }), apart);
  EXPECT_EQ(with([](FilePlace& place, Parts&) { place.offset += 8 * kKiB + 1; }), apart);
  EXPECT_EQ(with([](FilePlace& place, Parts&) { place.offset -= 2 * 4096; }), apart);  // before it
  EXPECT_EQ(with([](FilePlace& place, Parts&) { place.offset -= 1; }), apart);  // shares a byte
  // One of them would have to move for the other's sake.
  EXPECT_EQ(with([](FilePlace&, Parts& parts) { parts[0].alignment = 64; }), apart);
  EXPECT_EQ(
      with([](FilePlace&, Parts& parts) { parts[1].form = std::make_shared<Backwards>(4096); }),
      apart);
}

TEST(SlotLayout, a_slot_has_room_for_what_grows_before_what_follows) {
  ExpertTable table = in_a_row({3000, 3000, 3000});
  for (PartPlace& part : table.layers[0].parts) part.form = std::make_shared<Tripled>(3000);
  const SlotLayout layout(table);
  ASSERT_EQ(layout.num_reads(0), 1);
  // The second ends at 9,024 + 9,000 of the area and the third was read to 100 + 6,000 of the window:
  // 11,924 bytes too early, three blocks. The window is 9,100 bytes, three more.
  EXPECT_EQ(layout.reads(0)[0].window_offset, 3 * kReadAlignment);
  EXPECT_EQ(layout.slot_bytes(), 7 * kReadAlignment);  // 18,048 + 9,000 bytes
}

// Experts of up to eight parts: neighbours or not, with forms that grow, that do not, or none.
std::vector<LayerPlaces> any_layers(uint64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  const auto below = [&](uint64_t most) { return random() % most; };
  std::vector<LayerPlaces> layers(TestExperts::kLayers);
  FilePlace end = {0, below(9000)};
  for (LayerPlaces& layer : layers) {
    const uint64_t count = 1 + below(8);
    layer.parts.resize(count);
    layer.first_parts = static_cast<int>(1 + below(count));
    std::vector<size_t> order;
    for (size_t i = 0; i < count; ++i) {
      PartPlace& part = layer.parts[i];
      part.bytes = 1 + below(below(2) == 0 ? 100 : 9000);
      const uint64_t kind = below(8);
      if (kind < 3) part.form = std::make_shared<Backwards>(part.bytes);
      if (kind == 3 || kind == 4) part.form = std::make_shared<Tripled>(part.bytes);
      if (kind == 5) part.alignment = 64;
      order.push_back(i);
    }
    std::shuffle(order.begin(), order.end(), random);
    const bool is_ragged = below(4) == 0;  // one expert differs
    for (int expert = 0; expert < TestExperts::kExperts; ++expert) {
      for (const size_t i : order) {
        if (is_ragged && expert == 7) end.offset += below(20000);
        layer.parts[i].each.push_back(end);
        end.offset += layer.parts[i].bytes + (below(3) == 0 ? below(500) : 0);
      }
    }
    if (below(3) == 0) end = {end.file + 1, below(5000)};
  }
  return layers;
}

TEST(SlotLayout, any_layout_brings_the_right_bytes_through_faults_moves_and_other_tenants) {
  uint64_t joined_parts = 0, failures = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SimStorage disk(seed);
    const TestExperts experts(disk, "/model", any_layers(seed));
    FakeFaults faults;
    std::mt19937 random(static_cast<uint32_t>(seed));
    // So far apart that none of them is the repeat of another.
    for (uint64_t i = 0; i < 4; ++i) faults.fail_read(100 * i + random() % 40, EIO, Lasting::kOnce);
    ThreadPool team(2);
    const auto store = *ExpertStore::create(
        experts.table(),
        std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed, .depth = 24}, &faults),
        {.num_slots = 16, .team = seed % 2 == 0 ? &team : nullptr});
    for (int run = 0; run < 25; ++run) {
      std::vector<int32_t> wanted = all_experts();
      std::shuffle(wanted.begin(), wanted.end(), random);
      wanted.resize(1 + random() % 6);
      if (run % 7 == 6) store->resize(static_cast<int>(6 + random() % 11));
      ASSERT_TRUE(run_layer(*store, run % TestExperts::kLayers, wanted).has_value()) << seed;
    }
    const SlotLayout layout(experts.table());
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      joined_parts +=
          static_cast<uint64_t>(experts.table().layer(layer).num_parts() - layout.num_reads(layer));
    }
    failures += store->stats().io_retries;
  }
  EXPECT_GT(joined_parts, 200u);
  EXPECT_GT(failures, 60u);
}

TEST(SlotLayout, of_joined_parts_the_wrong_one_is_named_and_a_failed_read_names_all) {
  SimStorage disk(3);
  std::vector<LayerPlaces> layers = in_a_row({5000, 300, 5000}).layers;
  layers[0].parts[0].form = std::make_shared<Backwards>(5000);
  layers[0].parts[1].form = std::make_shared<Tripled>(300);
  layers[0].parts[2].form = std::make_shared<Backwards>(5000);
  for (PartPlace& part : layers[0].parts) part.stride = 20000;
  const TestExperts experts(disk, "/model", layers, 3);
  FakeFaults faults;
  const auto store = *ExpertStore::create(
      experts.table(), std::make_unique<FakeReader>(FakeReaderOptions{}, &faults),
      {.num_slots = 2});
  disk.flip_stored_bit("/model", experts.offset(0, 1, 1) * 8 + 5);
  const auto wrong = run_layer(*store, 0, {0, 1});
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(wrong.error().message.find("layer 0 expert 1 part 1: 300 bytes"), std::string::npos)
      << wrong.error().message;
  disk.flip_stored_bit("/model", experts.offset(0, 1, 1) * 8 + 5);
  ASSERT_TRUE(run_layer(*store, 0, {0, 1}).has_value());
  EXPECT_EQ(store->stats().checksum_failures, 2u);

  faults.fail_read(faults.reads_submitted(), EIO, Lasting::kForGood);
  const auto failed = run_layer(*store, 0, {2});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.error().message.find("layer 0 expert 2 parts 0, 1, 2: read of 10300 bytes"),
            std::string::npos)
      << failed.error().message;
}

}  // namespace
}  // namespace penstock
