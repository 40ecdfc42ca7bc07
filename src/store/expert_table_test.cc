// Experts however they lie in files: as records of our own, as slices of large tensors at multiples
// of 32, as a tensor for every expert in two shards, in nine parts at odd offsets. The store brings
// the same bytes from each, in as many reads as there are parts.

#include "store/expert_table.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "io/readers.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

constexpr int kExperts = 6;

// A tensor [experts, ...] whose slices follow one another; `end` goes on behind it.
PartPlace tensor(int file, uint64_t& end, uint64_t bytes, uint64_t alignment) {
  end = (end + alignment - 1) / alignment * alignment;
  const PartPlace place = {.first = {file, end}, .stride = bytes, .bytes = bytes};
  end += kExperts * bytes;
  return place;
}

// Gate, up and down as slices of three tensors, at multiples of 32, down in another shard; down is
// larger in every other layer.
std::vector<LayerPlaces> slices_of_three_tensors() {
  std::vector<LayerPlaces> layers(4);
  uint64_t ends[] = {1952, 4096 + 32};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    layers[layer].first_parts = 2;
    layers[layer].parts = {tensor(0, ends[0], 144 * 40, 32), tensor(0, ends[0], 144 * 40, 32),
                           tensor(1, ends[1], layer % 2 == 0 ? 210 * 32 : 144 * 32, 32)};
  }
  return layers;
}

// A tensor and its scales for every expert and matrix, by falling number, cut into two shards in
// the middle of a layer. One layer was left as it was: three parts.
std::vector<LayerPlaces> tensors_of_their_own() {
  std::vector<LayerPlaces> layers(3);
  FilePlace end = {0, 777};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const int num_parts = layer == 1 ? 3 : 6;
    layers[layer].first_parts = num_parts / 3 * 2;
    layers[layer].parts.resize(static_cast<size_t>(num_parts));
    for (int expert = kExperts - 1; expert >= 0; --expert) {
      if (layer == 1 && expert == 2) end = {1, 8};
      for (int part = 0; part < num_parts; ++part) {
        PartPlace& place = layers[layer].parts[static_cast<size_t>(part)];
        place.bytes = num_parts == 3 ? 12288 : part % 2 == 0 ? 6144 : 12;
        place.each.resize(kExperts);
        place.each[static_cast<size_t>(expert)] = end;
        end.offset += place.bytes;
      }
    }
  }
  return layers;
}

// Codes, scales and biases of each matrix, behind a header of odd length, in three files.
std::vector<LayerPlaces> nine_parts_at_odd_offsets() {
  std::vector<LayerPlaces> layers(2);
  uint64_t ends[] = {12345, 99, 4095};
  for (LayerPlaces& layer : layers) {
    layer.first_parts = 6;
    for (int matrix = 0; matrix < 3; ++matrix) {
      layer.parts.push_back(tensor(matrix, ends[matrix], 8192, 1));
      layer.parts.push_back(tensor(matrix, ends[matrix], 514, 1));
      layer.parts.push_back(tensor(matrix, ends[matrix], 513, 1));
    }
  }
  return layers;
}

struct Layout {
  const char* name;
  std::vector<LayerPlaces> (*layers)();
  uint64_t reads;        // of one expert of each layer, counted by hand
  int reads_of_layer_0;  // likewise
};

class AnyLayout : public testing::TestWithParam<Layout> {
 protected:
  std::unique_ptr<ExpertStore> make(int num_slots, FakeReaderOptions reader = {}) {
    return *ExpertStore::create(experts_.table(), std::make_unique<FakeReader>(reader, &faults_),
                                {.num_slots = num_slots});
  }
  int num_layers() const { return experts_.table().num_layers(); }
  uint64_t num_reads() const { return kExperts * GetParam().reads; }
  static std::vector<int32_t> every() { return {0, 1, 2, 3, 4, 5}; }

  SimStorage disk_{31};
  TestExperts experts_{disk_, "/model", GetParam().layers(), kExperts};
  FakeFaults faults_;
};

// Tensors of their own follow one another; of nine parts, scales and biases are near enough.
constexpr Layout kLayouts[] = {{"slices_of_three_tensors", slices_of_three_tensors, 4 * 3, 3},
                               {"tensors_of_their_own", tensors_of_their_own, 3, 1},
                               {"nine_parts_at_odd_offsets", nine_parts_at_odd_offsets, 2 * 6, 6}};

INSTANTIATE_TEST_SUITE_P(Layouts, AnyLayout, testing::ValuesIn(kLayouts),
                         [](const auto& test) { return test.param.name; });

TEST_P(AnyLayout, every_part_is_read_once_into_its_place) {
  const auto store = make(num_layers() * kExperts);
  uint64_t bytes = 0;
  for (int round = 0; round < 2; ++round) {
    for (int layer = 0; layer < num_layers(); ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, every()).has_value());
      if (round > 0) continue;
      for (int expert = 0; expert < kExperts; ++expert) {
        for (const PartPlace& part : experts_.table().layer(layer).parts) bytes += part.bytes;
      }
    }
  }
  const StoreStats stats = store->stats();
  EXPECT_EQ(stats.reads, num_reads());
  EXPECT_EQ(stats.bytes_verified, bytes);
  EXPECT_GE(stats.bytes_read, bytes);
  EXPECT_LT(stats.bytes_read, bytes + num_reads() * 2 * kReadAlignment);
  EXPECT_EQ(stats.hits, static_cast<uint64_t>(num_layers() * kExperts));
}

TEST_P(AnyLayout, any_slots_depth_and_order_give_the_same_bytes) {
  for (const int num_slots : {1, 2, 5, 7}) {
    for (const int depth : {1, 3, 64}) {
      const auto store = make(num_slots, {.seed = 7, .depth = depth, .delay_reaps_max = 4});
      std::mt19937 random(static_cast<uint32_t>(num_slots * depth));
      for (int run = 0; run < 12; ++run) {
        std::vector<int32_t> wanted = every();
        std::ranges::shuffle(wanted, random);
        wanted.resize(1 + random() % wanted.size());
        if (run % 3 == 0) store->prefetch((run + 1) % num_layers(), std::vector<int32_t>{1, 4});
        ASSERT_TRUE(run_layer(*store, run % num_layers(), wanted).has_value());
      }
      EXPECT_GT(store->stats().evictions, 0u);
    }
  }
}

TEST_P(AnyLayout, slots_change_hands_between_layers_of_other_sizes_and_places) {
  const auto store = make(num_layers() * kExperts, {.seed = 2, .depth = 64});
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    store->resize(1 + static_cast<int>(random() % static_cast<uint32_t>(num_layers() * kExperts)));
    const auto expert = static_cast<int32_t>(random() % (kExperts - 1));
    ASSERT_TRUE(run_layer(*store, i % num_layers(), {expert, expert + 1}).has_value());
  }
  EXPECT_GT(store->stats().slots_given_back, 20u);
  EXPECT_GT(store->stats().hits, 0u);
}

TEST_P(AnyLayout, buffered_files_and_real_ones_are_read_alike) {
  const std::string path = testing::TempDir() + "penstock_layout_" + GetParam().name;
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadDirect}) {
    const TestExperts real(posix_storage(), path, GetParam().layers(), kExperts, mode);
    for (const ReaderKind kind : {ReaderKind::kThreads, ReaderKind::kAuto}) {
      const auto store = *ExpertStore::create(
          real.table(), *make_reader({.kind = kind, .depth = 9}, nullptr), {.num_slots = 4});
      for (int layer = 0; layer < num_layers(); ++layer) {
        ASSERT_TRUE(run_layer(*store, layer, every()).has_value());
      }
      EXPECT_EQ(store->stats().reads, num_reads());
    }
  }
}

// Every bit of the payloads is guarded, none of their neighbours in the window is in the way.
TEST_P(AnyLayout, a_flipped_bit_is_detected_where_it_belongs_and_nowhere_else) {
  const ExpertTable& table = experts_.table();
  std::mt19937_64 random(3);
  for (int i = 0; i < 400; ++i) {
    const int layer = static_cast<int>(random() % static_cast<uint64_t>(num_layers()));
    const int expert = static_cast<int>(random() % kExperts);
    const int part = static_cast<int>(random() % table.layer(layer).parts.size());
    const FilePlace place = table.part(layer, part).of(expert);
    const uint64_t bit = place.offset * 8 + random() % (table.part(layer, part).bytes * 8);
    const std::string& path = table.files[static_cast<size_t>(place.file)]->path();
    disk_.flip_stored_bit(path, bit);
    const auto store = make(1, {.seed = random()});
    const auto failed = run_layer(*store, layer, {expert});
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
    const auto name = "layer " + std::to_string(layer) + " expert " + std::to_string(expert) +
                      " part " + std::to_string(part) + ":";
    EXPECT_NE(failed.error().message.find(name), std::string::npos) << failed.error().message;
    EXPECT_NE(failed.error().message.find(path), std::string::npos) << failed.error().message;
    std::vector<int32_t> others = every();
    std::erase(others, expert);
    EXPECT_TRUE(run_layer(*store, layer, others).has_value());
    disk_.flip_stored_bit(path, bit);
  }
}

TEST_P(AnyLayout, a_file_that_lost_its_last_byte_is_an_error_that_says_so) {
  const auto store = make(3);
  const ExpertTable& table = experts_.table();
  const int last = num_layers() - 1;
  const FilePlace place = table.part(last, table.layer(last).num_parts() - 1).of(0);
  const std::string& path = table.files[static_cast<size_t>(place.file)]->path();
  disk_.truncate(path, disk_.stat(path)->bytes - 1);
  const auto failed = run_layer(*store, last, every());
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.error().message.find("truncated"), std::string::npos);
  EXPECT_FALSE(check_table(table).has_value());
}

TEST_P(AnyLayout, reading_ahead_and_preloading_go_by_whole_experts) {
  const auto store = make(num_layers() * kExperts - 1, {.seed = 1, .depth = 64});
  store->prefetch(1, std::vector<int32_t>{3, 1});
  EXPECT_EQ(store->stats().prefetches, 2u);
  ASSERT_TRUE(run_layer(*store, 1, {1, 3}).has_value());
  EXPECT_EQ(store->stats().prefetches_used, 2u);
  // The window around the last part of a file reaches beyond its end.
  EXPECT_GE(store->stats().prefetch_bytes, store->stats().bytes_read);
  EXPECT_LT(store->stats().prefetch_bytes, store->stats().bytes_read + kReadAlignment);
  store->preload({{0, 4}, {0, 5}});
  while (store->preload_more(1ms)) {
  }
  EXPECT_EQ(store->preloaded().experts, 2u);
  const uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 0, {4, 5}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
}

// Half an expert would wait in a queue before demanded reads.
TEST_P(AnyLayout, a_reader_that_is_narrower_than_an_expert_preloads_nothing_and_ends) {
  const int reads = GetParam().reads_of_layer_0;
  const auto store = make(9, {.seed = 1, .depth = std::max(reads - 1, 1)});
  store->preload({{0, 4}, {0, 5}});
  EXPECT_EQ(store->preloaded().wanted, reads > 1 ? 0u : 2u);
  while (store->preload_more(0ms)) {
  }
  EXPECT_EQ(store->preloaded().experts, reads > 1 ? 0u : 2u);
  EXPECT_TRUE(run_layer(*store, 0, every()).has_value());
}

TEST(ExpertTable, windows_are_whole_blocks_around_the_payload) {
  ExpertTable table;
  table.num_experts = 3;
  table.layers.resize(1);
  table.layers[0].parts = {{.first = {2, 8190}, .stride = 4096 + 3, .bytes = 4000}};
  const int part[] = {0};
  const ReadWindow first = table.window(0, 0, part);
  EXPECT_EQ(first.file, 2);
  EXPECT_EQ(first.offset, 4096u);
  EXPECT_EQ(first.bytes, 2u * 4096);  // 2 bytes of the first block, 3998 of the second
  EXPECT_EQ(first.bytes_needed, 4094u + 4000);
  const ReadWindow second = table.window(0, 1, part);
  EXPECT_EQ(second.offset, 12288u);  // 8190 + 4099 = 12289
  EXPECT_EQ(second.bytes, 4096u);
  EXPECT_EQ(second.bytes_needed, 1u + 4000);
  EXPECT_EQ(SlotLayout(table).read_bytes(table, 0, 2), 4096u);
}

// The plan charges this for every slot, so it is counted by hand.
TEST(ExpertTable, a_slot_has_room_for_the_largest_layer_and_not_a_block_more) {
  SimStorage disk;
  const TestExperts records(disk, "/records");
  const SlotLayout layout(records.table());
  EXPECT_EQ(layout.slot_bytes(), TestExperts::kRecord);
  EXPECT_EQ(layout.reads(3)[1].area_offset, 2 * kReadAlignment);

  // Gate and up of 5,760 bytes at any multiple of 32 reach into three blocks, down of 6,720 bytes
  // (in layers 0 and 2) as well.
  const TestExperts slices(disk, "/slices", slices_of_three_tensors(), kExperts);
  EXPECT_EQ(SlotLayout(slices.table()).slot_bytes(), 9 * kReadAlignment);
  EXPECT_EQ(SlotLayout(slices.table()).num_parts_max(), 3);

  // Three parts of 12,288 bytes, read together, reach into ten blocks; six of 6,144 and 12 bytes
  // into six.
  const TestExperts own(disk, "/own", tensors_of_their_own(), kExperts);
  EXPECT_EQ(SlotLayout(own.table()).slot_bytes(), 10 * kReadAlignment);
  EXPECT_EQ(SlotLayout(own.table()).num_parts_max(), 6);
}

TEST(ExpertTable, the_first_parts_of_all_experts_are_asked_for_together) {
  SimStorage disk;
  const TestExperts experts(disk, "/model", slices_of_three_tensors(), kExperts);
  const auto store = *ExpertStore::create(
      experts.table(), std::make_unique<FakeReader>(FakeReaderOptions{.depth = 1}, nullptr),
      {.num_slots = 5});
  ExpertStream stream = store->stream(1, std::vector<int32_t>{4, 2});
  std::vector<std::pair<int, int>> order;
  for (;;) {
    const auto arrived = *stream.next({});
    if (arrived.empty()) break;
    for (const ExpertArrival& arrival : arrived) order.emplace_back(arrival.index, arrival.part);
  }
  EXPECT_EQ(order,
            (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {0, 2}, {1, 2}}));
}

TEST(ExpertTable, only_the_layers_that_have_checksums_are_compared) {
  SimStorage disk;
  const TestExperts experts(disk, "/model", slices_of_three_tensors(), kExperts);
  ExpertTable table = experts.table();
  table.layers[0].checksums.clear();
  for (const int layer : {0, 1}) {
    disk.flip_stored_bit("/model", experts.offset(layer, 2) * 8);
  }
  const auto store = *ExpertStore::create(
      table, std::make_unique<FakeReader>(FakeReaderOptions{}, nullptr), {.num_slots = 5});
  {
    ExpertStream stream = store->stream(0, std::vector<int32_t>{2});
    auto arrived = stream.next({});
    while (arrived && !arrived->empty()) arrived = stream.next({});
    EXPECT_TRUE(arrived.has_value());
  }
  EXPECT_EQ(run_layer(*store, 1, {2}).error().code, ErrorCode::kCorrupt);
}

class CheckTable : public testing::Test {
 protected:
  // What check_table() says to a changed table of slices; empty: nothing.
  template <class Change>
  std::string refusal(const Change& change) {
    ExpertTable table = slices_.table();
    change(table);
    const auto checked = check_table(table);
    if (checked) return "";
    EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
    return checked.error().message;
  }

  SimStorage disk_;
  TestExperts slices_{disk_, "/model", slices_of_three_tensors(), kExperts};
};

TEST_F(CheckTable, a_table_that_does_not_fit_its_files_is_refused_with_the_reason) {
  using T = ExpertTable;
  EXPECT_EQ(refusal([](T&) {}), "");
  const auto says = [&](const auto& change, const std::string& part) {
    const std::string message = refusal(change);
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << message << "\" has no " << part;
  };
  says([](T& t) { t.layers.clear(); }, "/model: there are no experts");
  says([](T& t) { t.num_experts = 0; }, "/model: there are no experts");
  says([](T& t) { t.num_experts = 7; }, "18 checksums for 21 parts");
  says(
      [](T& t) {
        t.num_experts = 7;
        for (LayerPlaces& layer : t.layers) layer.checksums.clear();
      },
      "is it complete?");
  says([](T& t) { t.layers[1].parts.clear(); }, "layer 1 of the experts: there are no parts");
  says([](T& t) { t.layers[1].first_parts = 4; }, "4 of 3 parts come first");
  says([](T& t) { t.layers[1].first_parts = 0; }, "0 of 3 parts come first");
  says([](T& t) { t.layers[2].parts[1].first.file = 2; }, "layer 2, part 1 of the experts: file 2");
  says([](T& t) { t.layers[2].parts[1].first.file = -1; }, "file -1 of 2");
  says([](T& t) { t.layers[3].parts[2].bytes = 0; }, "layer 3, part 2 of the experts: it has no");
  says([](T& t) { t.layers[3].parts[2].bytes += 1; }, "from one to the next");
  says([](T& t) { t.layers[3].parts[2].stride += 1; }, "/model.1: layer 3, part 2 of expert 5");
  says([](T& t) { t.layers[3].parts[2].stride = UINT64_MAX / 2; }, "bytes apart");
  says([](T& t) { t.layers[3].parts[2].stride = UINT64_MAX / 6; }, "is it complete?");
  says([](T& t) { t.layers[3].parts[2].first.offset = UINT64_MAX - 100; }, "bytes apart");
  says([](T& t) { t.layers[0].parts[0].bytes = UINT64_MAX; }, "from one to the next");
  says([](T& t) { t.layers[0].checksums.pop_back(); }, "17 checksums for 18 parts");
  says([](T& t) { t.layers[0].parts[0].each.resize(5); }, "5 places for 6 experts");
  says([](T& t) { t.layers[0].parts[0].each.assign(6, {0, UINT64_MAX}); }, "of expert 0");
  says([](T& t) { t.layers[0].parts[0].each.assign(6, {7, 0}); }, "file 7 of 2");
}

TEST_F(CheckTable, a_device_with_larger_blocks_than_windows_is_refused) {
  disk_.set_direct_alignment(8192);
  const auto file = *disk_.open("/model", OpenMode::kReadDirect);
  ExpertTable table = slices_.table();
  table.files[0] = file.get();
  const auto checked = check_table(table);
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(checked.error().message.find("8192"), std::string::npos);
}

}  // namespace
}  // namespace penstock
