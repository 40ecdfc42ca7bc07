#include "survey/routing_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <list>
#include <numeric>
#include <set>

#include "format/safetensors.h"
#include "store/routing_trace.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using testing::HasSubstr;

RoutingSource source_of(const std::string& words, const RoutingShape& shape, uint64_t seed = 1) {
  SimStorage disk;
  return *RoutingSource::open(disk, words, shape, seed);
}

std::set<uint16_t> experts_of(const RouteTable& table, int64_t layer, int64_t token) {
  const auto row = table.at(layer, token);
  return {row.begin(), row.end()};
}

// Share of a token's experts that the token before it used as well, over all layers.
double repeat_rate(const RouteTable& table) {
  int64_t repeats = 0, all = 0;
  for (int64_t layer = 0; layer < table.shape.num_layers; ++layer) {
    for (int64_t token = 1; token < table.num_tokens; ++token) {
      const std::set<uint16_t> before = experts_of(table, layer, token - 1);
      for (const uint16_t expert : table.at(layer, token)) {
        repeats += before.contains(expert) ? 1 : 0;
        ++all;
      }
    }
  }
  return static_cast<double>(repeats) / static_cast<double>(all);
}

double distinct_per_layer(const RouteTable& table) {
  size_t distinct = 0;
  for (int64_t layer = 0; layer < table.shape.num_layers; ++layer) {
    std::set<uint16_t> seen;
    for (int64_t token = 0; token < table.num_tokens; ++token)
      seen.merge(experts_of(table, layer, token));
    distinct += seen.size();
  }
  return static_cast<double>(distinct) / static_cast<double>(table.shape.num_layers);
}

// 0: all experts are used alike; 1: one does everything.
double gini(std::vector<double> counts) {
  std::ranges::sort(counts);
  const double sum = std::accumulate(counts.begin(), counts.end(), 0.0);
  const auto n = static_cast<double>(counts.size());
  double weighted = 0;
  for (size_t i = 0; i < counts.size(); ++i) weighted += static_cast<double>(i + 1) * counts[i];
  return 2 * weighted / (n * sum) - (n + 1) / n;
}

TEST(RoutingSource, session_repeats_experts_as_published) {
  const RouteTable table = source_of("session", {16, 512, 4}).make(0, 430);
  EXPECT_NEAR(repeat_rate(table), 0.266, 0.02);     // 26.6 % measured on the 397B model
  EXPECT_NEAR(distinct_per_layer(table), 220, 20);  // about 230 measured, 209 of the fit
}

TEST(RoutingSource, twenty_sessions_use_experts_as_unevenly_as_published) {
  std::vector<double> counts(512);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const RouteTable table = source_of("session", {1, 512, 10}, seed).make(0, 60);
    for (const uint16_t expert : table.experts) counts[expert] += 1;
  }
  EXPECT_NEAR(gini(counts), 0.42, 0.05);  // 0.38 measured, 0.44 of the fit
  std::ranges::sort(counts, std::greater());
  const double top_fifth =
      std::accumulate(counts.begin(), counts.begin() + 102, 0.0) / (20 * 60 * 10);
  EXPECT_NEAR(top_fifth, 0.44, 0.05);  // 42 % measured
}

TEST(RoutingSource, session_hits_an_lru_cache_as_the_published_fit_does) {
  struct Point {
    int slots;
    double hit_rate;
  };
  for (const Point& point : {Point{61, 0.61}, {128, 0.81}, {256, 0.96}}) {
    int64_t hits = 0, uses = 0;
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      const RouteTable table = source_of("session", {1, 512, 10}, seed).make(0, 1200);
      std::list<uint16_t> cached;  // latest use first
      for (int64_t token = 0; token < table.num_tokens; ++token) {
        for (const uint16_t expert : table.at(0, token)) {
          const bool is_hit = std::erase(cached, expert) > 0;
          cached.push_front(expert);
          if (std::ssize(cached) > point.slots) cached.pop_back();
          hits += is_hit && token >= 200 ? 1 : 0;
          uses += token >= 200 ? 1 : 0;
        }
      }
    }
    const double rate = static_cast<double>(hits) / static_cast<double>(uses);
    EXPECT_NEAR(rate, point.hit_rate, 0.03) << point.slots << " slots";
  }
}

TEST(RoutingSource, sequences_of_one_session_prefer_the_same_experts) {
  const RoutingSource source = source_of("session", {1, 256, 8});
  const auto counts = [&](uint64_t sequence) {
    std::vector<double> result(256);
    for (const uint16_t expert : source.make(sequence, 400).experts) result[expert] += 1;
    return result;
  };
  const std::vector<double> first = counts(0), second = counts(1);
  EXPECT_NE(first, second);
  double common = 0;
  for (size_t i = 0; i < 256; ++i) common += std::min(first[i], second[i]);
  EXPECT_GT(common / (400 * 8), 0.8);
}

TEST(RoutingSource, uniform_uses_all_experts_alike_and_repeats_by_chance_only) {
  const RouteTable table = source_of("uniform", {4, 64, 8}).make(3, 1000);
  std::vector<double> counts(64);
  for (const uint16_t expert : table.experts) counts[expert] += 1;
  EXPECT_LT(gini(counts), 0.05);
  EXPECT_NEAR(repeat_rate(table), 8.0 / 64, 0.01);
}

TEST(RoutingSource, ids_of_a_token_are_distinct_and_in_range) {
  for (const char* words : {"uniform", "session"}) {
    const RouteTable table = source_of(words, {3, 24, 6}).make(0, 200);
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (int64_t token = 0; token < 200; ++token) {
        const std::set<uint16_t> ids = experts_of(table, layer, token);
        ASSERT_EQ(ids.size(), 6u) << words;
        ASSERT_LT(*ids.rbegin(), 24) << words;
      }
    }
  }
}

TEST(RoutingSource, table_follows_from_seed_and_sequence_alone) {
  for (const char* words : {"uniform", "session"}) {
    const RoutingShape shape{2, 32, 4};
    const RouteTable table = source_of(words, shape, 5).make(7, 50);
    EXPECT_EQ(source_of(words, shape, 5).make(7, 50).experts, table.experts);
    EXPECT_NE(source_of(words, shape, 6).make(7, 50).experts, table.experts);
    EXPECT_NE(source_of(words, shape, 5).make(8, 50).experts, table.experts);
    // A longer table begins with the shorter one.
    const RouteTable longer = source_of(words, shape, 5).make(7, 80);
    EXPECT_TRUE(std::ranges::equal(longer.at(1, 49), table.at(1, 49))) << words;
  }
}

TEST(RoutingSource, unknown_word_is_refused) {
  SimStorage disk;
  const auto refused = RoutingSource::open(disk, "zipf", {1, 8, 2}, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("trace:FILE"));
}

TEST(RoutingSource, routes_through_all_name_every_expert) {
  const RouteTable table = routes_through_all({2, 13, 4});
  for (int64_t layer = 0; layer < 2; ++layer) {
    std::set<uint16_t> seen;
    for (int64_t token = 0; token < table.num_tokens; ++token) {
      ASSERT_EQ(experts_of(table, layer, token).size(), 4u);
      seen.merge(experts_of(table, layer, token));
    }
    EXPECT_EQ(seen.size(), 13u);
  }
}

TEST(RoutePlayer, gives_the_same_ids_in_whatever_chunks) {
  const RouteTable table = source_of("uniform", {2, 16, 3}).make(0, 10);
  RoutePlayer player(table);
  const RouteOverride reroute = player.override_routes();
  std::vector<int32_t> played[2];
  for (const int64_t chunk : {4, 1, 5}) {
    for (const int64_t layer : {0, 1}) {
      Routing routing{chunk, 3, std::vector<int32_t>(static_cast<size_t>(chunk) * 3), {}};
      reroute(layer, routing);
      played[layer].insert(played[layer].end(), routing.experts.begin(), routing.experts.end());
    }
  }
  for (const int64_t layer : {0, 1}) {
    for (int64_t token = 0; token < 10; ++token) {
      const auto part = std::span(played[layer]).subspan(static_cast<size_t>(token) * 3, 3);
      EXPECT_TRUE(std::ranges::equal(part, table.at(layer, token)));
    }
  }
}

RoutingTrace small_trace() {
  RoutingTrace trace(2, 8);
  trace.begin_sequence();
  const std::vector<int32_t> chunk = {0, 1, 2, 3, 4};
  trace.add(0, chunk);  // a prompt: not one token
  trace.add(1, chunk);
  for (int32_t token = 0; token < 4; ++token) {
    if (token == 2) {
      trace.begin_sequence();
    } else {
      trace.begin_step();
    }
    const std::vector<int32_t> ids = {token, token + 1};
    trace.add(0, ids);
    trace.add(1, ids);
  }
  return trace;
}

TEST(RecordedRoutes, decoded_tokens_of_our_traces_are_replayed_and_wrap_around) {
  SimStorage disk;
  ASSERT_TRUE(small_trace().write(disk, "a.trace"));
  const RoutingSource source = *RoutingSource::open(disk, "trace:a.trace", {2, 8, 2}, 1);
  const RouteTable table = source.make(0, 5);
  for (const int64_t token : {0, 1, 2, 3, 4}) {
    EXPECT_EQ(table.at(1, token)[0], token % 4);
  }
  EXPECT_EQ(source.make(1, 1).at(0, 0)[0], 2);  // the second sequence
}

TEST(RecordedRoutes, trace_of_another_model_is_refused_naming_both) {
  SimStorage disk;
  ASSERT_TRUE(small_trace().write(disk, "a.trace"));
  for (const RoutingShape& shape : {RoutingShape{3, 8, 2}, {2, 9, 2}, {2, 8, 3}}) {
    const auto refused = RoutingSource::open(disk, "trace:a.trace", shape, 1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("a.trace"));
  }
}

void write_safetensors(Storage& storage, const std::vector<uint8_t>& ids,
                       const std::vector<int32_t>& lengths) {
  const auto tokens = static_cast<int64_t>(ids.size()) / 2;
  SafetensorsWriter writer = *SafetensorsWriter::create(
      storage, "a.safetensors",
      {{"layer.0", "U8", {tokens, 2}}, {"lengths", "I32", {std::ssize(lengths)}}}, {});
  ASSERT_TRUE(writer.append(std::as_bytes(std::span(ids))));
  ASSERT_TRUE(writer.append(std::as_bytes(std::span(lengths))));
  ASSERT_TRUE(writer.finish());
}

TEST(RecordedRoutes, safetensors_traces_are_replayed) {
  SimStorage disk;
  write_safetensors(disk, {0, 1, 2, 3, 4, 5}, {2, 1});
  const RoutingSource source = *RoutingSource::open(disk, "trace:a.safetensors", {1, 8, 2}, 1);
  EXPECT_THAT(source.make(1, 2).experts, testing::ElementsAre(4, 5, 0, 1));
  EXPECT_FALSE(RoutingSource::open(disk, "trace:a.safetensors", {2, 8, 2}, 1));
  EXPECT_FALSE(RoutingSource::open(disk, "trace:a.safetensors", {1, 8, 4}, 1));
  EXPECT_FALSE(RoutingSource::open(disk, "trace:missing.safetensors", {1, 8, 2}, 1));
}

TEST(RecordedRoutes, ids_that_are_doubled_or_too_large_are_corrupt) {
  for (const std::vector<uint8_t>& ids : {std::vector<uint8_t>{3, 3}, std::vector<uint8_t>{1, 8}}) {
    SimStorage disk;
    write_safetensors(disk, ids, {1});
    const auto refused = RoutingSource::open(disk, "trace:a.safetensors", {1, 8, 2}, 1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace penstock
