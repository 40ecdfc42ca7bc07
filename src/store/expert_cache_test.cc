#include "store/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace penstock {
namespace {

// One expert comes in, as if its read took no time.
int fetch(ExpertCache& cache, int layer, int expert) {
  cache.begin_run(layer);
  cache.record_use(layer, expert);
  if (const auto slot = cache.find(layer, expert)) return *slot;
  const int slot = *cache.claim(layer, expert);
  cache.finish(slot);
  return slot;
}

ExpertCache cache_of(int num_slots, EvictionPolicy policy = EvictionPolicy::kLru) {
  return ExpertCache({.num_layers = 2, .num_experts = 16, .num_slots = num_slots}, policy);
}

TEST(ExpertCache, evicts_least_recently_used_unpinned_slot) {
  ExpertCache cache = cache_of(3);
  for (const int expert : {1, 2, 3, 1}) fetch(cache, 0, expert);
  fetch(cache, 0, 4);
  EXPECT_FALSE(cache.find(0, 2).has_value());
  cache.pin(*cache.find(0, 3));
  fetch(cache, 0, 5);  // 3 is older than 1, and pinned
  EXPECT_TRUE(cache.find(0, 3).has_value());
  EXPECT_FALSE(cache.find(0, 1).has_value());
  EXPECT_EQ(cache.evictions(), 2u);
}

TEST(ExpertCache, has_no_slot_when_all_are_pinned_or_filling) {
  ExpertCache cache = cache_of(2);
  cache.pin(fetch(cache, 0, 1));
  const int filling = *cache.claim(0, 2);
  EXPECT_FALSE(cache.claim(0, 3).has_value());
  cache.finish(filling);
  EXPECT_EQ(cache.claim(0, 3), filling);
}

TEST(ExpertCache, says_who_would_go_next_and_how_often_an_expert_was_used) {
  ExpertCache cache = cache_of(3, EvictionPolicy::kLfu);
  EXPECT_FALSE(cache.next_victim().has_value());
  for (const int expert : {1, 2, 3, 1, 3}) fetch(cache, 0, expert);
  EXPECT_GT(cache.count_of(0, 1), cache.count_of(0, 2));
  EXPECT_EQ(cache.count_of(0, 4), 0.0f);
  for (int again = 0; again < 2; ++again) EXPECT_EQ(cache.next_victim(), cache.find(0, 2));
  EXPECT_EQ(cache.evictions(), 0u);
  cache.pin(*cache.find(0, 2));
  const auto next = cache.next_victim();
  EXPECT_EQ(next, cache.find(0, 1));
  EXPECT_EQ(cache.claim(0, 4), next);
}

TEST(ExpertCache, what_is_spare_goes_first_as_long_as_it_is) {
  ExpertCache cache = cache_of(4);
  for (const int expert : {1, 2, 3, 4}) fetch(cache, 0, expert);
  cache.set_spare(*cache.find(0, 4), true);
  cache.set_spare(*cache.find(0, 3), true);
  for (int layer = 0; layer < 2; ++layer) cache.begin_run(layer);  // scans anew
  fetch(cache, 0, 5);
  EXPECT_FALSE(cache.find(0, 3).has_value());  // of the two, in the lower slot
  cache.set_spare(*cache.find(0, 4), false);
  fetch(cache, 0, 6);
  EXPECT_TRUE(cache.find(0, 4).has_value());
  EXPECT_FALSE(cache.find(0, 1).has_value());
  // A slot is not spare for whoever has it next.
  cache.set_spare(*cache.find(0, 4), true);
  fetch(cache, 0, 7);
  EXPECT_FALSE(cache.find(0, 4).has_value());
  fetch(cache, 0, 8);
  EXPECT_TRUE(cache.find(0, 7).has_value());
}

TEST(ExpertCache, a_forgotten_slot_is_free_again_and_is_no_eviction) {
  ExpertCache cache = cache_of(1);
  const int slot = *cache.claim(0, 1);
  cache.forget(slot);
  EXPECT_FALSE(cache.find(0, 1).has_value());
  EXPECT_EQ(cache.state(slot), SlotState::kFree);
  EXPECT_EQ(cache.claim(1, 1), slot);
  EXPECT_EQ(cache.evictions(), 0u);
}

// Two slots and three layers: when layer 2 needs one, plain LRU gives away the expert of layer 0,
// which runs next; a clock per layer gives away the one of layer 1, which has just run.
TEST(ExpertCache, a_clock_per_layer_keeps_what_the_next_layer_used_last) {
  for (const EvictionPolicy policy : kEvictionPolicies) {
    ExpertCache cache({.num_layers = 3, .num_experts = 4, .num_slots = 2}, policy);
    for (int layer = 0; layer < 3; ++layer) fetch(cache, layer, 0);
    if (policy == EvictionPolicy::kLru) {
      EXPECT_FALSE(cache.find(0, 0).has_value());
    } else if (policy != EvictionPolicy::kLfu) {  // which sees experts used once each
      EXPECT_TRUE(cache.find(0, 0).has_value()) << name_of(policy);
    }
  }
}

TEST(ExpertCache, frequency_outlives_eviction_and_fades) {
  ExpertCache cache = cache_of(2, EvictionPolicy::kFrequencyRecency);
  for (int i = 0; i < 20; ++i) fetch(cache, 0, 1);
  fetch(cache, 0, 2);
  fetch(cache, 0, 3);  // 2 was used later than 1, but once
  EXPECT_TRUE(cache.find(0, 1).has_value());
  for (int i = 0; i < 500; ++i) fetch(cache, 0, 4 + i % 2);
  EXPECT_FALSE(cache.find(0, 1).has_value());  // twelve half-lives later
}

TEST(ExpertCache, shrinks_by_what_it_would_evict_first_and_moves_the_rest_to_the_front) {
  ExpertCache cache = cache_of(6);
  for (int expert = 0; expert < 6; ++expert) fetch(cache, 0, expert);
  for (const int expert : {0, 4, 5}) fetch(cache, 0, expert);  // 1, 2, 3 are the oldest
  std::vector<SlotMove> moves;
  cache.resize(3, moves);
  EXPECT_EQ(cache.num_slots(), 3);
  EXPECT_EQ(cache.evictions(), 3u);
  EXPECT_EQ(moves.size(), 2u);
  for (const int expert : {0, 4, 5}) {
    ASSERT_TRUE(cache.find(0, expert).has_value()) << expert;
    EXPECT_LT(*cache.find(0, expert), 3);
  }
  fetch(cache, 1, 0);  // takes the slot of an expert, not an absent one
  EXPECT_LT(*cache.find(1, 0), 3);
  EXPECT_FALSE(cache.find(0, 0).has_value());
}

TEST(ExpertCache, shrinks_to_free_slots_without_an_eviction_and_grows_again) {
  ExpertCache cache = cache_of(8);
  fetch(cache, 0, 1);
  std::vector<SlotMove> moves;
  cache.resize(2, moves);
  EXPECT_TRUE(moves.empty());
  EXPECT_EQ(cache.num_free(), 1);
  cache.resize(5, moves);
  EXPECT_EQ(cache.num_free(), 4);
  for (int expert = 2; expert < 6; ++expert) fetch(cache, 0, expert);
  EXPECT_EQ(cache.evictions(), 0u);
  fetch(cache, 0, 6);
  EXPECT_EQ(cache.evictions(), 1u);
}

TEST(ExpertCache, shrinks_no_further_than_to_a_slot_that_somebody_holds) {
  for (const bool is_pinned : {true, false}) {
    ExpertCache cache = cache_of(6);
    for (int expert = 0; expert < 4; ++expert) fetch(cache, 0, expert);
    const int held = *cache.claim(0, 9);
    if (is_pinned) {
      cache.finish(held);
      cache.pin(held);
    }
    ASSERT_EQ(held, 4);
    std::vector<SlotMove> moves;
    cache.resize(2, moves);
    EXPECT_EQ(cache.num_slots(), 5);
    EXPECT_EQ(cache.find(0, 9), held);
    is_pinned ? cache.unpin(held) : cache.finish(held);
    cache.resize(2, moves);
    EXPECT_EQ(cache.num_slots(), 2);
    EXPECT_LT(cache.find(0, 9).value_or(0), 2);
  }
}

TEST(ExpertCache, usage_survives_a_restart_and_decides_who_goes) {
  ExpertCache before = cache_of(4, EvictionPolicy::kFrequencyRecency);
  for (int i = 0; i < 20; ++i) fetch(before, 0, 1);
  fetch(before, 1, 2);
  const std::vector<float> usage = before.usage();
  EXPECT_GT(usage[1], 10.0f);
  EXPECT_EQ(usage[16 + 2], 1.0f);
  EXPECT_EQ(usage[3], 0.0f);

  ExpertCache after = cache_of(2, EvictionPolicy::kFrequencyRecency);
  after.restore_usage(usage);
  EXPECT_EQ(after.usage(), usage);
  fetch(after, 0, 1);
  fetch(after, 0, 2);
  fetch(after, 0, 3);
  EXPECT_TRUE(after.find(0, 1).has_value());
}

TEST(EvictionPolicy, has_a_name_that_leads_back_to_it) {
  for (const EvictionPolicy policy : kEvictionPolicies) {
    EXPECT_EQ(eviction_policy_of(name_of(policy)), policy);
  }
  EXPECT_FALSE(eviction_policy_of("belady").has_value());
}

// The same cache in ten lines: what is where, which are pinned or filling. It does not know
// policies; it says which answers are possible.
struct Model {
  std::map<int, int> slot_of;  // expert (layer * 16 + id) -> slot
  std::map<int, int> pins;     // slot -> pins
  std::set<int> filling;
  size_t num_slots;

  bool can_claim() const {
    if (slot_of.size() < num_slots) return true;
    return std::any_of(slot_of.begin(), slot_of.end(),
                       [&](const auto& entry) { return is_evictable(entry.second); });
  }
  bool is_evictable(int slot) const {
    const auto pinned = pins.find(slot);
    return filling.count(slot) == 0 && (pinned == pins.end() || pinned->second == 0);
  }
  void claim(int expert, int slot) {
    for (auto entry = slot_of.begin(); entry != slot_of.end(); ++entry) {
      if (entry->second != slot) continue;
      EXPECT_TRUE(is_evictable(slot));
      slot_of.erase(entry);
      break;
    }
    slot_of[expert] = slot;
    filling.insert(slot);
  }
};

// Any sequence of sizes, uses, pins and reads: nobody is in two places or in an absent slot, who is
// held stays where it is, and as many experts are kept as there is room for.
TEST(ExpertCache, keeps_its_invariants_while_its_size_changes) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const int most = 2 + static_cast<int>(random() % 12);
    ExpertCache cache = cache_of(most, kEvictionPolicies[seed % std::size(kEvictionPolicies)]);
    std::map<int, int> held;  // key -> slot
    for (int i = 0; i < 400; ++i) {
      const int layer = static_cast<int>(random() % 2), expert = static_cast<int>(random() % 16);
      const int key = layer * 16 + expert;
      if (random() % 4 == 0) {
        const int before = cache.num_slots();
        int experts = 0;
        for (int k = 0; k < 32; ++k) experts += cache.find(k / 16, k % 16).has_value();
        const int wanted = 1 + static_cast<int>(random() % static_cast<uint32_t>(most));
        std::vector<SlotMove> moves;
        cache.resize(wanted, moves);
        int highest = 0;
        for (const auto& [k, slot] : held) {
          ASSERT_EQ(cache.find(k / 16, k % 16), slot);
          highest = std::max(highest, slot + 1);
        }
        ASSERT_EQ(cache.num_slots(), wanted >= before ? wanted : std::max(wanted, highest));
        std::set<int> slots;
        for (int k = 0; k < 32; ++k) {
          const auto slot = cache.find(k / 16, k % 16);
          if (!slot) continue;
          ASSERT_LT(*slot, cache.num_slots());
          ASSERT_TRUE(slots.insert(*slot).second);
          ASSERT_EQ(cache.layer_of(*slot) * 16 + cache.expert_of(*slot), k);
        }
        ASSERT_EQ(static_cast<int>(slots.size()), std::min(experts, cache.num_slots()));
        ASSERT_EQ(cache.num_free(), cache.num_slots() - static_cast<int>(slots.size()));
      } else if (held.count(key) != 0) {
        const int slot = held[key];
        cache.state(slot) == SlotState::kFilling ? cache.finish(slot) : cache.unpin(slot);
        held.erase(key);
      } else if (const auto slot = cache.find(layer, expert)) {
        cache.begin_run(layer);
        cache.record_use(layer, expert);
        if (random() % 3 != 0) continue;
        cache.pin(*slot);
        held[key] = *slot;
      } else if (const auto claimed = cache.claim(layer, expert)) {
        held[key] = *claimed;
      }
    }
  }
}

TEST(ExpertCache, agrees_with_a_simple_model_on_random_sequences) {
  for (const EvictionPolicy policy : kEvictionPolicies) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      std::mt19937 random(seed);
      const int num_slots = 1 + static_cast<int>(random() % 8);
      ExpertCache cache = cache_of(num_slots, policy);
      Model model{
          .slot_of = {}, .pins = {}, .filling = {}, .num_slots = static_cast<size_t>(num_slots)};
      for (int i = 0; i < 600; ++i) {
        const int layer = static_cast<int>(random() % 2);
        const int expert = static_cast<int>(random() % 16);
        const int key = layer * 16 + expert;
        const auto known = model.slot_of.find(key);
        const bool is_here = known != model.slot_of.end();
        ASSERT_EQ(cache.find(layer, expert).has_value(), is_here);
        const int slot = is_here ? known->second : -1;
        ASSERT_EQ(cache.find(layer, expert).value_or(-1), slot);
        switch (random() % 6) {
          case 0:
            cache.begin_run(layer);
            cache.record_use(layer, expert);
            break;
          case 1:
            if (is_here) break;
            {
              const auto claimed = cache.claim(layer, expert);
              ASSERT_EQ(claimed.has_value(), model.can_claim());
              if (claimed) model.claim(key, *claimed);
            }
            break;
          case 2:
            if (!is_here || model.filling.count(slot) == 0) break;
            cache.finish(slot);
            model.filling.erase(slot);
            break;
          case 3:
            if (!is_here || model.pins[slot] > 2) break;
            cache.pin(slot);
            ++model.pins[slot];
            break;
          case 4:
            if (!is_here || model.pins[slot] == 0) break;
            cache.unpin(slot);
            --model.pins[slot];
            break;
          default:
            if (!is_here || model.pins[slot] > 0) break;
            cache.forget(slot);
            model.slot_of.erase(key);
            model.filling.erase(slot);
            break;
        }
      }
    }
  }
}

}  // namespace
}  // namespace penstock
