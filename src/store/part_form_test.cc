// Parts that are laid out anew when they have come: in place, larger than they were, at any skew.

#include <gtest/gtest.h>

#include <cerrno>

#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"
#include "support/test_part_forms.h"

namespace penstock {
namespace {

std::vector<LayerPlaces> layers_with_forms() {
  std::vector<LayerPlaces> layers = TestExperts::records();
  for (size_t i = 0; i < layers.size(); ++i) {
    for (PartPlace& part : layers[i].parts) part.first.offset += 77 * i;  // any skew
    PartPlace& first = layers[i].parts[0];
    if (i % 2 == 0) first.form = std::make_shared<Backwards>(first.bytes);
    PartPlace& second = layers[i].parts[1];
    second.bytes -= 1000;
    if (i < 3) second.form = std::make_shared<Tripled>(second.bytes);
  }
  return layers;
}

class PartForms : public testing::Test {
 protected:
  std::unique_ptr<ExpertStore> make(int num_slots, bool verify = true, ThreadPool* team = nullptr) {
    return *ExpertStore::create(
        experts_.table(), std::make_unique<FakeReader>(FakeReaderOptions{.depth = 8}, &faults_),
        {.num_slots = num_slots, .verify = verify, .team = team});
  }
  static void run_all(ExpertStore& store) {
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(store, layer, {0, 3, 7, 11}).has_value());
    }
  }

  SimStorage disk_{24};
  TestExperts experts_{disk_, "/experts", layers_with_forms()};
  FakeFaults faults_;
};

TEST_F(PartForms, every_reader_of_a_slot_sees_the_form_once_made) {
  ThreadPool team(3);
  for (const bool verify : {true, false}) {
    const auto store = make(6, verify, &team);
    run_all(*store);
    run_all(*store);  // some are still there, others come again
    EXPECT_GT(store->stats().evictions, 0u);
    ASSERT_TRUE(run_layer(*store, 0, {0, 1, 2}).has_value());
    const uint64_t reads = store->stats().reads;
    ASSERT_TRUE(run_layer(*store, 0, {2, 1, 0}).has_value());
    EXPECT_EQ(store->stats().reads, reads);
  }
}

TEST_F(PartForms, a_slot_has_room_for_the_largest) {
  const PartPlace& second = experts_.table().part(0, 1);
  EXPECT_GE(SlotLayout(experts_.table()).slot_bytes(), second.form->bytes() + kReadAlignment);
}

TEST_F(PartForms, a_read_that_is_repeated_is_laid_out_once) {
  faults_.fail_read(1, EIO, Lasting::kOnce);
  faults_.fail_read(6, EIO, Lasting::kOnce);  // of layer 1: layer 0 takes four and a repeat
  const auto store = make(20);
  run_all(*store);
  EXPECT_EQ(store->stats().io_retries, 2u);
}

TEST_F(PartForms, slots_that_move_take_it_along) {
  const auto store = make(20);
  run_all(*store);
  ASSERT_TRUE(run_layer(*store, 2, {7, 11}).has_value());
  EXPECT_EQ(store->resize(5), 5);
  const uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 2, {7, 11}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
}

}  // namespace
}  // namespace penstock
