#include "quality/traffic.h"

#include <gtest/gtest.h>

#include "experts/experts.h"

namespace penstock {
namespace {

// Two layers whose experts take so many bytes in two parts.
ExpertTable table_of(uint64_t first_layer, uint64_t second_layer) {
  ExpertTable table;
  table.num_experts = 8;
  for (const uint64_t bytes : {first_layer, second_layer}) {
    LayerPlaces places;
    places.parts = {{.bytes = bytes / 2}, {.bytes = bytes / 2}};
    table.layers.push_back(std::move(places));
  }
  return table;
}

Routing routing_of(int64_t tokens, int top_k, std::vector<int32_t> experts) {
  return {.num_tokens = tokens, .top_k = top_k, .experts = std::move(experts), .weights = {}};
}

TEST(ExpertTraffic, a_choice_costs_an_expert_of_its_layer) {
  const ExpertTable table = table_of(100, 1000);
  ExpertTraffic traffic(table);
  EXPECT_TRUE(traffic.is_empty());
  const RouteObserver observer = traffic.observer();
  observer(0, routing_of(2, 3, {1, 2, 3, 4, kNoExpert, kNoExpert}), {});
  observer(1, routing_of(1, 3, {1, 2, 3}), {});
  EXPECT_EQ(traffic.bytes_per_token(), 2 * 100 + 3 * 1000);
  EXPECT_NEAR(traffic.experts_per_token(), 7.0 / 3, 1e-12);
}

TEST(ExpertTraffic, choices_from_a_rank_on_cost_what_a_copy_has) {
  const ExpertTable table = table_of(100, 1000), copy = table_of(10, 500);
  ExpertTraffic traffic(table, &copy, 3);
  const RouteObserver observer = traffic.observer();
  observer(0, routing_of(2, 4, {1, 2, 3, 4, 4, 3, 2, kNoExpert}), {});
  observer(1, routing_of(1, 4, {1, 2, 3, 4}), {});
  EXPECT_EQ(traffic.bytes_per_token(), 2 * 100 + 1.5 * 10 + 2 * 1000 + 2 * 500);
  EXPECT_NEAR(traffic.experts_per_token(), 11.0 / 3, 1e-12);
}

}  // namespace
}  // namespace penstock
