// The numbers below are worked examples of the cost model that were published or done by hand
// before this code was written: 397B, experts and dense weights at 4.5 bits.
#include "survey/cost_model.h"

#include <gtest/gtest.h>

#include <tuple>

#include "model/shapes.h"

namespace penstock {
namespace {

CostInput big_model(double flash_gbps) {
  CostInput input;
  input.config = config_of(find_model_shape("397b").value(), 0).value();
  input.sizes =
      model_sizes(input.config, {.experts = 4.5, .resident = 4.5, .kept = 4.5, .plain = 4.5});
  input.rates = {.flash_gbps = flash_gbps, .memory_gbps = 65, .prefill_gflops = 1200};
  input.hits = {HitKind::kGiven, 0};
  input.experts_per_token = 10;
  return input;
}

CostInput with_hits(CostInput input, double rate, int64_t experts_per_token) {
  input.hits = {HitKind::kGiven, rate};
  input.experts_per_token = experts_per_token;
  return input;
}

int64_t slots_of(const CostInput& input, double share) {
  return static_cast<int64_t>(
      share * static_cast<double>(input.config.num_hidden_layers * input.config.num_experts));
}

struct NoCacheCase {
  double flash_gbps;
  double ten_ms, four_ms;         // K = 10, K = 4
  double hits_for[3];             // K = 10 for 5, 10, 20 tok/s when flash never waits
  double hits_for_ten_serial[3];  // K = 10, 10 tok/s, beside 20, 40, 60 ms of other work
};
class NoCache : public ::testing::TestWithParam<NoCacheCase> {};
INSTANTIATE_TEST_SUITE_P(
    Drives, NoCache,
    ::testing::Values(NoCacheCase{5.5, 772, 309, {0.74, 0.87, 0.94}, {0.90, 0.92, 0.95}},
                      NoCacheCase{6.2, 685, 274, {0.71, 0.85, 0.93}, {0.88, 0.91, 0.94}},
                      NoCacheCase{11.3, 376, 150, {0.47, 0.73, 0.87}, {0.79, 0.84, 0.89}},
                      NoCacheCase{17.5, 243, 97, {0.18, 0.59, 0.79}, {0.67, 0.75, 0.84}},
                      NoCacheCase{21, 202, 81, {0.01, 0.51, 0.75}, {0.60, 0.70, 0.80}}));

TEST_P(NoCache, flash_time_is_bytes_over_bandwidth) {
  const NoCacheCase& known = GetParam();
  CostInput input = big_model(known.flash_gbps);
  EXPECT_NEAR(token_cost(input).flash_ms, known.ten_ms, 1);
  EXPECT_NEAR(token_cost(with_hits(input, 0, 4)).flash_ms, known.four_ms, 1);
}

TEST_P(NoCache, a_speed_asks_for_a_hit_rate) {
  const NoCacheCase& known = GetParam();
  CostInput input = big_model(known.flash_gbps);
  const double speeds[] = {5, 10, 20};
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(hit_rate_for(input, speeds[i]), known.hits_for[i], 0.006);
  input.rates.memory_gbps = 1e9;  // other work is the fixed part alone
  const double other_ms[] = {20, 40, 60};
  for (int i = 0; i < 3; ++i) {
    input.rates.layer_us = other_ms[i] * 1e3 / 60;
    EXPECT_NEAR(hit_rate_for_serial(input, 10), known.hits_for_ten_serial[i], 0.006);
  }
}

TEST(TokenCost, first_reads_and_pauses_cost_layers_with_a_miss_and_do_not_move_the_limit) {
  CostInput input = big_model(5.5);
  const TokenCost steady = token_cost(input);
  input.rates.first_read_us = 100;
  input.rates.pause_us = 500;
  const TokenCost cost = token_cost(input);
  EXPECT_NEAR(cost.flash_ms, steady.flash_ms + 60 * 0.1, 1e-9);
  EXPECT_NEAR(cost.fixed_ms, steady.fixed_ms + 60 * 0.5, 1e-9);
  EXPECT_EQ(cost.limit_ms, steady.limit_ms);
  const TokenCost all_hit = token_cost(with_hits(input, 1, 10));
  EXPECT_EQ(all_hit.fixed_ms, steady.fixed_ms);
}

TEST(TokenCost, no_cache_at_5_5_gbps_gives_1_3_tokens_per_second) {
  CostInput input = big_model(5.5);
  input.rates.memory_gbps = 1e9;
  const TokenCost cost = token_cost(input);
  EXPECT_NEAR(cost.flash_bytes, 4'246'732'800.0, 1);
  EXPECT_NEAR(cost.limit_tps(), 1.30, 0.01);
  EXPECT_NEAR(cost.serial_tps(), 1.30, 0.01);
  EXPECT_EQ(cost.binding(), CostTerm::kFlash);
}

// The ceiling of two memory channels: (D + G) / 65 GB/s even with every expert in memory.
TEST(TokenCost, memory_alone_caps_two_channels_at_seven_tokens_per_second) {
  const TokenCost cost = token_cost(with_hits(big_model(6.2), 1, 10));
  EXPECT_EQ(cost.flash_ms, 0);
  EXPECT_NEAR(cost.dense_ms + cost.hits_ms, 142, 1.5);
  EXPECT_NEAR(cost.dense_ms + cost.hits_ms + cost.state_ms, cost.limit_ms, 1e-9);
  EXPECT_LT(cost.limit_tps(), 7.1);
  EXPECT_EQ(cost.binding(), CostTerm::kDense);
}

// A PC with 64 GB and a drive of 6.2 GB/s, 48 GB of them cache: two rows done by hand.
TEST(TokenCost, agrees_with_the_worked_rows_of_a_64_gb_machine) {
  CostInput input = big_model(6.2);
  input.sizes.recurrent_bytes = 0;  // the rows leave states out
  input.rates.layer_us = 150;
  const TokenCost ten = token_cost(with_hits(input, 0.76, 10));
  EXPECT_NEAR(ten.flash_ms, 164, 1);
  EXPECT_NEAR(ten.other_ms(), 151, 1.5);
  EXPECT_NEAR(ten.serial_tps(), 3.2, 0.05);
  EXPECT_NEAR(ten.limit_tps(), 6.1, 0.05);
  const TokenCost four = token_cost(with_hits(input, 0.80, 4));
  EXPECT_NEAR(four.flash_ms, 55, 1);
  EXPECT_NEAR(four.other_ms(), 111, 1.5);
  EXPECT_NEAR(four.serial_tps(), 6.0, 0.05);
}

// Measured: 60 layers, 4 experts, h 0.74 with hits copied at 28.3 GB/s and the rest from a drive
// of 4.9 GB/s took 2.41 ms of reading per layer; the model's arithmetic says 2.25.
TEST(TokenCost, a_copied_hit_is_paid_at_the_copy_rate) {
  CostInput input = with_hits(big_model(4.9), 0.74, 4);
  const TokenCost in_place = token_cost(input);
  input.rates.copy_gbps = 28.3;
  const TokenCost copied = token_cost(input);
  const double copy_ms = copied.hits_ms - in_place.hits_ms;
  EXPECT_NEAR((copied.flash_ms + copy_ms) / 60, 2.25, 0.02);
  EXPECT_EQ(copied.limit_ms, in_place.limit_ms) << "an engine need not copy";
}

// By hand: flash 164 ms becomes 164 * (1 + 0.12 * 0.76) = 179; hits and shared expert hide 0.76 * 65.3 + 6 ms,
// reading ahead 0.4 of the other 96 ms.
TEST(TokenCost, reading_ahead_hides_a_part_of_the_time_in_which_the_disk_was_idle) {
  CostInput input = with_hits(big_model(6.2), 0.76, 10);
  const TokenCost without = token_cost(input);
  input.read_ahead = {.recall = 0.77, .idle_share = 0.4, .waste = 0.12};
  const TokenCost with = token_cost(input);
  EXPECT_NEAR(with.flash_bytes, without.flash_bytes * 1.0912, 1);
  EXPECT_NEAR(with.flash_ms, without.flash_ms * 1.0912, 1e-9);
  const double idle_ms = without.other_ms() - without.overlap_ms;
  EXPECT_NEAR(with.overlap_ms, without.overlap_ms + 0.4 * idle_ms, 1e-9);
  EXPECT_LT(with.overlapped_ms(), without.overlapped_ms());
  EXPECT_EQ(with.limit_ms, without.limit_ms);
  // Never more than there is to hide.
  input.hits = {HitKind::kGiven, 0.995};
  EXPECT_LE(token_cost(input).overlap_ms, token_cost(input).flash_ms);
}

TEST(TokenCost, overlap_hides_no_more_than_the_shared_expert_and_the_hits) {
  for (const double rate : {0.0, 0.3, 0.7, 0.95, 1.0}) {
    const CostInput input = with_hits(big_model(6.2), rate, 10);
    const TokenCost cost = token_cost(input);
    const double shared_ms = static_cast<double>(input.sizes.shared_bytes) / 65e6;
    EXPECT_LE(cost.overlap_ms, cost.flash_ms);
    EXPECT_LE(cost.overlap_ms, shared_ms + cost.hits_ms + 1e-9);
    EXPECT_LE(cost.serial_tps(), cost.overlapped_tps());
    EXPECT_LE(cost.overlapped_tps(), cost.limit_tps() * (1 + 1e-12));
  }
}

TEST(TokenCost, every_term_answers_to_its_own_rate) {
  const CostInput base = with_hits(big_model(6.2), 0.7, 10);
  const TokenCost before = token_cost(base);
  CostInput faster = base;
  faster.rates.flash_gbps *= 2;
  EXPECT_NEAR(token_cost(faster).flash_ms, before.flash_ms / 2, 1e-9);
  EXPECT_EQ(token_cost(faster).other_ms(), before.other_ms());
  CostInput kernels = base;
  kernels.rates.weights_gbps = base.rates.memory_gbps / 2;
  EXPECT_NEAR(token_cost(kernels).dense_ms, 2 * before.dense_ms, 1e-9);
  EXPECT_NEAR(token_cost(kernels).misses_ms, 2 * before.misses_ms, 1e-9);
  EXPECT_EQ(token_cost(kernels).state_ms, before.state_ms);
  EXPECT_EQ(token_cost(kernels).limit_ms, before.limit_ms) << "better kernels are possible";
  CostInput deep = base;
  deep.position = 100'000;
  EXPECT_NEAR(token_cost(deep).state_ms - before.state_ms, 100e3 * 61'440 / 65e6, 1e-6);
  CostInput late = base;
  late.rates.first_read_us = 100;
  // 0.7^10 of the layers have no miss.
  EXPECT_NEAR(token_cost(late).flash_ms - before.flash_ms, 6.0 * (1 - 0.0282475249), 1e-6);
}

TEST(TokenCost, share_of_limit_is_one_at_the_limit) {
  const TokenCost cost = token_cost(with_hits(big_model(6.2), 0.7, 10));
  EXPECT_DOUBLE_EQ(cost.share_of_limit(cost.limit_tps()), 1.0);
  EXPECT_DOUBLE_EQ(cost.share_of_limit(cost.limit_tps() / 4), 0.25);
}

// Hit rates that the worked examples assume for a share of experts in memory, within a point.
TEST(HitRate, session_curve_gives_the_rates_of_the_worked_examples) {
  const CostInput input = big_model(6.2);
  const HitModel session{HitKind::kSession, 0};
  using Known = std::tuple<double, int64_t, double>;
  for (const auto& [share, chosen, rate] :
       {Known{0.156, 10, 0.68}, Known{0.156, 4, 0.74}, Known{0.22, 10, 0.77}, Known{0.22, 4, 0.81},
        Known{0.30, 10, 0.85}, Known{0.257, 10, 0.81}}) {
    EXPECT_NEAR(hit_rate(session, input.config, chosen, slots_of(input, share)), rate, 0.011)
        << share << " of the experts, " << chosen << " chosen";
  }
}

TEST(HitRate, rises_with_slots_from_none_at_one_token_to_all) {
  const CostInput input = big_model(6.2);
  for (const HitKind kind : {HitKind::kUniform, HitKind::kSession, HitKind::kTopics}) {
    const HitModel model{kind, 0};
    double before = -1;
    for (int percent = 0; percent <= 100; ++percent) {
      const double rate = hit_rate(model, input.config, 10, slots_of(input, percent / 100.0));
      EXPECT_GE(rate, before) << name_of(kind) << " at " << percent << " %";
      EXPECT_LE(rate, 1.0);
      before = rate;
    }
    EXPECT_DOUBLE_EQ(before, 1.0);
  }
  EXPECT_EQ(hit_rate({HitKind::kSession, 0}, input.config, 10, 600), 0)
      << "600 slots are one token's experts";
}

TEST(HitRate, sessions_beat_changing_topics_beat_chance) {
  const CostInput input = big_model(6.2);
  const int64_t slots = slots_of(input, 0.33);
  const double uniform = hit_rate({HitKind::kUniform, 0}, input.config, 10, slots);
  const double topics = hit_rate({HitKind::kTopics, 0}, input.config, 10, slots);
  const double session = hit_rate({HitKind::kSession, 0}, input.config, 10, slots);
  EXPECT_NEAR(uniform, 0.33, 0.001);
  EXPECT_NEAR(topics, 0.81, 0.002);
  EXPECT_NEAR(session, 0.88, 0.002);
}

TEST(PromptCost, distinct_experts_follow_the_uniform_bound) {
  const CostInput input = big_model(5.5);
  using Known = std::pair<int64_t, double>;
  for (const auto& [tokens, experts] :
       {Known{1, 10.0}, Known{8, 74.7}, Known{32, 239.6}, Known{128, 471.0}, Known{512, 512.0}}) {
    EXPECT_NEAR(distinct_experts(input.config, 10, tokens), experts, 0.06);
  }
}

// One pass over all experts, and the speed of chunks that compute does not hold up.
TEST(PromptCost, a_chunk_takes_one_pass_over_the_experts) {
  using Known = std::tuple<double, double, double, double>;  // GB/s, s, tok/s of 2,048 and 8,192
  for (const auto& [gbps, pass_s, small_tps, large_tps] :
       {Known{5.5, 39.5, 52, 207}, Known{6.2, 35.07, 58, 234}, Known{11.3, 19.2, 106, 426},
        Known{12, 18.1, 113, 452}, Known{17.5, 12.4, 165, 659}}) {
    CostInput input = big_model(gbps);
    input.rates.prefill_gflops = 1e9;
    input.rates.memory_gbps = 1e9;
    input.chunk_tokens = 2048;
    const PromptCost small = prompt_cost(input, 2048);
    EXPECT_EQ(small.chunks, 1);
    EXPECT_NEAR(small.total_s, pass_s, 0.06);
    EXPECT_NEAR(small.tokens_per_second, small_tps, 0.8);
    EXPECT_NEAR(prompt_cost(input, 8192).total_s, 4 * small.total_s, 0.01);
    input.chunk_tokens = 8192;
    EXPECT_NEAR(prompt_cost(input, 8192).tokens_per_second, large_tps, 1.0);
  }
}

TEST(PromptCost, is_bound_by_compute_beyond_the_balanced_chunk) {
  CostInput input = big_model(5.5);
  input.rates.memory_gbps = 1e9;
  const double balance = balanced_chunk_tokens(input);
  // 39.5 s * 1.2 TFLOP/s / 2 * 15.4 G operations: about one and a half thousand tokens.
  EXPECT_NEAR(balance, 1530, 40);
  input.chunk_tokens = static_cast<int64_t>(balance / 2);
  const PromptCost small = prompt_cost(input, input.chunk_tokens);
  EXPECT_GT(small.flash_s, small.compute_s);
  EXPECT_DOUBLE_EQ(small.total_s, small.flash_s);
  input.chunk_tokens = static_cast<int64_t>(balance * 2);
  const PromptCost large = prompt_cost(input, input.chunk_tokens);
  EXPECT_GT(large.compute_s, large.flash_s);
  EXPECT_DOUBLE_EQ(large.total_s, large.compute_s);
}

TEST(PromptCost, reads_every_expert_once_when_all_fit) {
  CostInput input = big_model(5.5);
  input.chunk_tokens = 512;
  const double all_bytes = 217'432'719'360.0;
  input.num_slots = slots_of(input, 0.5);
  EXPECT_NEAR(prompt_cost(input, 4096).flash_bytes / all_bytes, 8, 0.01);
  input.num_slots = slots_of(input, 1);
  EXPECT_NEAR(prompt_cost(input, 4096).flash_bytes / all_bytes, 1, 0.01);
}

TEST(PromptCost, the_last_chunk_may_be_short) {
  CostInput input = big_model(5.5);
  input.chunk_tokens = 512;
  const PromptCost cost = prompt_cost(input, 513);
  EXPECT_EQ(cost.chunks, 2);
  EXPECT_NEAR(cost.flash_bytes, 217'432'719'360.0 + 4'246'732'800.0, 2e7);
}

// 24 GB beside 64: by hand. 4.247 GB of experts a token, 7,077,888 bytes each, 30,720 in all.
CostInput with_card(CostInput input, int64_t device_slots) {
  input.num_slots = 6000;
  input.device = {.read_gbps = 877,
                  .weights_gbps = 745,
                  .link_gbps = 23,
                  .start_us = 27,
                  .round_trip_us = 40,
                  .host_us = 350};
  input.device_slots = device_slots;
  return input;
}

TEST(Device, terms_are_those_of_a_calculation_by_hand) {
  const TokenCost cost = token_cost(with_card(with_hits(big_model(7), 0.8, 10), 2000));
  EXPECT_DOUBLE_EQ(cost.hit_rate, 0.8);
  EXPECT_DOUBLE_EQ(cost.device_hit_rate, 0.2);  // 2,000 of 8,000 slots
  EXPECT_NEAR(cost.device_ms, 0.2 * 4.2467e9 / 745e9 * 1e3 + 60 * 0.027, 1e-3);
  // A row there and on average two back, of 4,096 floats.
  EXPECT_NEAR(cost.device_calls_ms, 60 * 0.390 + 60 * 3 * 16384 / 23e9 * 1e3, 1e-3);
  EXPECT_NEAR(cost.hits_ms, 0.6 * 4.2467e9 / 65e9 * 1e3, 1e-2);
  EXPECT_EQ(cost.device_trunk_ms, 0);
  EXPECT_EQ(cost.terms().size(), 9u);
}

TEST(Device, matrices_there_are_read_there) {
  CostInput input = with_card(with_hits(big_model(7), 0.8, 10), 2000);
  const TokenCost without = token_cost(input);
  input.device.product_start_us = 13;
  input.trunk = {.bytes = 4e9,
                 .shared_bytes = 5e8,
                 .row_bytes = 1e7,
                 .calls = 121,
                 .ffns = 60,
                 .weights_gbps = 745};
  const TokenCost cost = token_cost(input);
  EXPECT_NEAR(cost.device_trunk_ms, 4e9 / 745e9 * 1e3 + 121 * 0.053 + 60 * 0.027 + 1e7 / 23e9 * 1e3,
              1e-6);
  EXPECT_NEAR(without.dense_ms - cost.dense_ms, 4e9 / 65e9 * 1e3, 1e-6);
  EXPECT_EQ(cost.hits_ms, without.hits_ms);
  EXPECT_LE(cost.limit_ms, without.limit_ms);
}

TEST(Device, none_is_what_was_before) {
  const TokenCost none = token_cost(with_card(with_hits(big_model(7), 0.8, 10), 0));
  EXPECT_EQ(none.device_ms, 0);
  EXPECT_EQ(none.device_calls_ms, 0);
  EXPECT_EQ(none.device_hit_rate, 0);
  EXPECT_EQ(none.terms().size(), 6u);
}

// Whatever the shape, the routing and the memory beside it.
TEST(Device, more_of_its_memory_is_never_slower) {
  for (const char* shape : {"35b", "122b", "397b", "next-80b"}) {
    for (const HitKind kind : {HitKind::kSession, HitKind::kTopics, HitKind::kUniform}) {
      for (const double in_ram : {0.05, 0.3, 0.7, 1.0}) {
        CostInput input = with_card(big_model(7), 0);
        input.config = config_of(find_model_shape(shape).value(), 0).value();
        input.sizes = model_sizes(input.config, {});
        input.hits = {kind, 0};
        input.experts_per_token = input.config.num_experts_per_tok;
        input.num_slots = slots_of(input, in_ram);
        input.read_ahead = kReadAheadMeasured;
        double before = 0;
        for (int eighth = 1; eighth <= 8; ++eighth) {
          input.device_slots = slots_of(input, eighth / 8.0);
          const double tps = token_cost(input).overlapped_tps();
          EXPECT_GE(tps, before * (1 - 1e-12)) << shape << ' ' << in_ram << ' ' << eighth;
          before = tps;
        }
      }
    }
  }
}

// Where nothing is read from flash any more, calls cost more than the processors' experts did.
TEST(Device, does_not_pay_where_all_experts_are_in_fast_memory) {
  CostInput input = with_card(with_hits(big_model(7), 1, 10), 0);
  input.rates.memory_gbps = 300;
  const double without = token_cost(input).overlapped_tps();
  input.device_slots = 2000;
  EXPECT_LT(token_cost(input).overlapped_tps(), without);
  input.hits = {HitKind::kSession, 0};
  input.num_slots = slots_of(input, 0.15);
  input.device_slots = 0;
  const double from_flash = token_cost(input).overlapped_tps();
  input.device_slots = slots_of(input, 0.3);
  EXPECT_GT(token_cost(input).overlapped_tps(), from_flash);
}

}  // namespace
}  // namespace penstock
