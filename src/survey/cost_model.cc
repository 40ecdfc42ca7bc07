#include "survey/cost_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "base/check.h"

namespace penstock {
namespace {

constexpr double kGiga = 1e9;

// Hit rates of LRU over the share of experts that fit.
struct HitPoint {
  double share;
  double rate;
};

// 10 of 512 experts, one topic.
constexpr HitPoint kSessionWide[] = {{0.08, 0.52}, {0.12, 0.61}, {0.17, 0.70}, {0.25, 0.81},
                                     {0.33, 0.88}, {0.40, 0.92}, {0.50, 0.96}, {1.0, 1.0}};
// 10 of 512, another topic every 80 tokens.
constexpr HitPoint kTopicsWide[] = {{0.08, 0.52}, {0.12, 0.60}, {0.17, 0.68}, {0.25, 0.77},
                                    {0.33, 0.81}, {0.40, 0.84}, {0.50, 0.87}, {1.0, 1.0}};
// 4 of 512, one topic.
constexpr HitPoint kSessionNarrow[] = {
    {0.08, 0.57}, {0.17, 0.77}, {0.33, 0.92}, {0.50, 0.98}, {1.0, 1.0}};
constexpr double kWideChosen = 10.0 / 512, kNarrowChosen = 4.0 / 512;

double between(double x, double x0, double y0, double x1, double y1) {
  return x1 > x0 ? y0 + (y1 - y0) * (x - x0) / (x1 - x0) : y1;
}

// Straight lines between the points. At one token's experts (`chosen` of all) and below, each
// token evicts what the next one needs.
double on_curve(std::span<const HitPoint> curve, double chosen, double share) {
  if (share >= 1) return 1;
  HitPoint before{chosen, 0};
  for (const HitPoint& point : curve) {
    if (point.share <= before.share) continue;
    if (share <= point.share) {
      return std::max(0.0, between(share, before.share, before.rate, point.share, point.rate));
    }
    before = point;
  }
  return 1;
}

// Between the two measured widths of choice linear, outside of them the nearer one.
double session_rate(double chosen, double share) {
  const double wide = on_curve(kSessionWide, chosen, share);
  const double narrow = on_curve(kSessionNarrow, chosen, share);
  const double place = std::clamp(chosen, kNarrowChosen, kWideChosen);
  return between(place, kNarrowChosen, narrow, kWideChosen, wide);
}

double ms_at(double bytes, double gbps) {
  return bytes / (gbps * kGiga) * 1e3;
}

double weights_gbps(const MachineRates& rates) {
  return rates.weights_gbps > 0 ? rates.weights_gbps : rates.memory_gbps;
}

double routed_bytes(const CostInput& input, uint64_t expert_bytes) {
  return static_cast<double>(input.experts_per_token * input.config.num_expert_layers()) *
         static_cast<double>(expert_bytes);
}

double state_bytes(const CostInput& input, int64_t position) {
  return 2 * static_cast<double>(input.sizes.recurrent_bytes) +
         static_cast<double>(position) * static_cast<double>(input.sizes.kv_bytes_per_position);
}

// Layers that wait for the disk at least once.
double layers_with_miss(const CostInput& input, double hits) {
  const double all_hit = std::pow(hits, static_cast<double>(input.experts_per_token));
  return static_cast<double>(input.config.num_expert_layers()) * (1 - all_hit);
}

void check(const CostInput& input) {
  PENSTOCK_CHECK(input.rates.flash_gbps > 0 && input.rates.memory_gbps > 0);
  PENSTOCK_CHECK(input.rates.prefill_gflops > 0);
  PENSTOCK_CHECK(input.experts_per_token > 0 && input.chunk_tokens > 0);
  const DeviceRates& device = input.device;
  PENSTOCK_CHECK(input.device_slots == 0 || (device.read_gbps > 0 && device.weights_gbps > 0 &&
                                             device.link_gbps > 0 && device.round_trip_us > 0));
}

// Of `hits`, the part that a device computes: it keeps those that are used most.
double device_hits(const CostInput& input, double hits) {
  if (input.device_slots == 0) return 0;
  if (input.hits.kind == HitKind::kGiven) {
    return hits * static_cast<double>(input.device_slots) /
           static_cast<double>(input.device_slots + input.num_slots);
  }
  return std::min(hits,
                  hit_rate(input.hits, input.config, input.experts_per_token, input.device_slots));
}

// Of a layer's ops, those that the processors still have: a device takes the two of experts, two of
// projections, and the shared expert's.
double host_share(const CostInput& input, double device_hit_rate) {
  const auto layers = static_cast<double>(input.config.num_hidden_layers);
  const double projections = std::min(2.0, input.trunk.calls / layers);
  const double away = 2 * device_hit_rate + projections + input.trunk.ffns / layers;
  return 1 - away / kCostOpsPerLayer;
}

void add_device(const CostInput& input, double used, TokenCost& cost) {
  if (input.device_slots == 0) return;
  const DeviceRates& device = input.device;
  const auto layers = static_cast<double>(input.config.num_expert_layers());
  const double row_bytes = static_cast<double>(input.config.hidden_size) * sizeof(float);
  const double rows = 1 + cost.device_hit_rate * static_cast<double>(input.experts_per_token);
  cost.device_ms =
      ms_at(cost.device_hit_rate * used, device.weights_gbps) + layers * device.start_us / 1e3;
  cost.device_calls_ms = layers * (device.round_trip_us + device.host_us) / 1e3 +
                         ms_at(layers * rows * row_bytes, device.link_gbps);
  const DeviceTrunk& trunk = input.trunk;
  if (trunk.bytes == 0) return;
  cost.device_trunk_ms = ms_at(trunk.bytes, trunk.weights_gbps) +
                         trunk.calls * (device.round_trip_us + device.product_start_us) / 1e3 +
                         trunk.ffns * device.start_us / 1e3 +
                         ms_at(trunk.row_bytes, device.link_gbps);
}

}  // namespace

std::string_view name_of(HitKind kind) {
  switch (kind) {
    case HitKind::kUniform: return "uniform";
    case HitKind::kSession: return "session";
    case HitKind::kTopics: return "topics";
    case HitKind::kGiven: return "given";
  }
  return "?";
}

std::string_view name_of(CostTerm term) {
  switch (term) {
    case CostTerm::kFlash: return "flash";
    case CostTerm::kDense: return "dense weights";
    case CostTerm::kHits: return "experts in memory";
    case CostTerm::kMisses: return "experts from flash";
    case CostTerm::kState: return "states and context";
    case CostTerm::kFixed: return "fixed per layer";
    case CostTerm::kDevice: return "experts on the GPU";
    case CostTerm::kDeviceCalls: return "calls of the GPU";
    case CostTerm::kDeviceTrunk: return "matrices on the GPU";
  }
  return "?";
}

double hit_rate(const HitModel& hits, const ModelConfig& config, int64_t experts_per_token,
                int64_t num_slots) {
  const auto experts = static_cast<double>(config.num_experts);
  const double share = std::clamp(
      static_cast<double>(num_slots) / (experts * static_cast<double>(config.num_expert_layers())),
      0.0, 1.0);
  const double chosen = static_cast<double>(experts_per_token) / experts;
  switch (hits.kind) {
    case HitKind::kUniform: return share;
    case HitKind::kSession: return session_rate(chosen, share);
    case HitKind::kTopics: return on_curve(kTopicsWide, chosen, share);
    case HitKind::kGiven: return std::clamp(hits.given, 0.0, 1.0);
  }
  return 0;
}

double TokenCost::term_ms(CostTerm term) const {
  switch (term) {
    case CostTerm::kFlash: return flash_ms;
    case CostTerm::kDense: return dense_ms;
    case CostTerm::kHits: return hits_ms;
    case CostTerm::kMisses: return misses_ms;
    case CostTerm::kState: return state_ms;
    case CostTerm::kFixed: return fixed_ms;
    case CostTerm::kDevice: return device_ms;
    case CostTerm::kDeviceCalls: return device_calls_ms;
    case CostTerm::kDeviceTrunk: return device_trunk_ms;
  }
  return 0;
}

std::span<const CostTerm> TokenCost::terms() const {
  return device_calls_ms > 0 ? std::span<const CostTerm>(kCostTerms) : kHostTerms;
}

CostTerm TokenCost::binding() const {
  const auto waited = [this](CostTerm term) {
    return term == CostTerm::kFlash ? flash_ms - overlap_ms : term_ms(term);
  };
  return *std::max_element(std::begin(kCostTerms), std::end(kCostTerms),
                           [&](CostTerm a, CostTerm b) { return waited(a) < waited(b); });
}

TokenCost token_cost(const CostInput& input) {
  check(input);
  const MachineRates& rates = input.rates;
  const auto layers = static_cast<double>(input.config.num_hidden_layers);
  const double read = routed_bytes(input, input.sizes.record_bytes);  // with padding
  const double used = routed_bytes(input, input.sizes.expert_bytes);
  const double weights = weights_gbps(rates);
  TokenCost cost;
  cost.hit_rate = hit_rate(input.hits, input.config, input.experts_per_token,
                           input.num_slots + input.device_slots);
  cost.device_hit_rate = device_hits(input, cost.hit_rate);
  const double in_memory = cost.hit_rate - cost.device_hit_rate;
  const double missed = 1 - cost.hit_rate;
  const ReadAhead& ahead = input.read_ahead;
  cost.missed_bytes = missed * read;
  cost.flash_bytes = cost.missed_bytes * (1 + ahead.waste * cost.hit_rate);
  const double streaming_ms = ms_at(cost.missed_bytes, rates.flash_gbps);
  const double waiting_layers = layers_with_miss(input, cost.hit_rate);
  cost.flash_ms =
      ms_at(cost.flash_bytes, rates.flash_gbps) + waiting_layers * rates.first_read_us / 1e3;
  const double dense = static_cast<double>(input.sizes.dense_bytes) - input.trunk.bytes;
  cost.dense_ms = ms_at(dense, weights);
  const double hits_in_place_ms = ms_at(in_memory * used, weights);
  cost.hits_ms =
      hits_in_place_ms + (rates.copy_gbps > 0 ? ms_at(in_memory * read, rates.copy_gbps) : 0);
  cost.misses_ms = ms_at(missed * used, weights);
  cost.state_ms = ms_at(state_bytes(input, input.position), rates.memory_gbps);
  cost.fixed_ms = (layers * rates.layer_us * host_share(input, cost.device_hit_rate) +
                   waiting_layers * rates.pause_us) /
                  1e3;
  add_device(input, used, cost);
  const double shared_ms =
      ms_at(static_cast<double>(input.sizes.shared_bytes) - input.trunk.shared_bytes, weights);
  const double hidden_ms = shared_ms + cost.hits_ms + cost.device_ms;
  const double beside_ms = std::min(cost.flash_ms, hidden_ms);
  const double idle_ms = cost.other_ms() - hidden_ms;
  cost.overlap_ms = beside_ms + std::min({ahead.recall * cost.flash_ms, cost.flash_ms - beside_ms,
                                          ahead.idle_share * std::max(0.0, idle_ms)});
  const double elsewhere =
      input.device.is_unified ? 0 : cost.device_hit_rate * used + input.trunk.bytes;
  const double all_weights_ms =
      ms_at(static_cast<double>(input.sizes.dense_bytes) + used - elsewhere, rates.memory_gbps);
  cost.limit_ms = std::max(streaming_ms, all_weights_ms + cost.state_ms);
  if (elsewhere > 0)
    cost.limit_ms = std::max(cost.limit_ms, ms_at(elsewhere, input.device.read_gbps));
  return cost;
}

double distinct_experts(const ModelConfig& config, int64_t experts_per_token, int64_t tokens) {
  const auto experts = static_cast<double>(config.num_experts);
  const double missed = 1 - static_cast<double>(experts_per_token) / experts;
  return experts * (1 - std::pow(missed, static_cast<double>(tokens)));
}

PromptCost prompt_cost(const CostInput& input, int64_t tokens) {
  check(input);
  PENSTOCK_CHECK(tokens > 0);
  const PromptWork work = prompt_work(input.config, input.experts_per_token);
  const auto layers = static_cast<double>(input.config.num_expert_layers());
  const double record = static_cast<double>(input.sizes.record_bytes);
  // Experts that all fit are read once; else a chunk has pushed out what the next one starts with.
  const bool keeps_all = static_cast<double>(input.num_slots) >=
                         layers * distinct_experts(input.config, input.experts_per_token, tokens);
  PromptCost cost;
  double known = 0;  // distinct experts per layer of the chunks before, where they are kept
  for (int64_t first = 0; first < tokens; first += input.chunk_tokens) {
    const int64_t end = std::min(tokens, first + input.chunk_tokens);
    const double in_chunk = distinct_experts(input.config, input.experts_per_token, end - first);
    const double all = distinct_experts(input.config, input.experts_per_token, end);
    const double bytes = layers * (keeps_all ? all - known : in_chunk) * record;
    known = all;
    const double flash_s = bytes / (input.rates.flash_gbps * kGiga);
    // Every chunk also takes all its weights from memory once.
    const double weight_bytes = static_cast<double>(input.sizes.dense_bytes) +
                                layers * in_chunk * static_cast<double>(input.sizes.expert_bytes);
    const double compute_s = std::max(work.flops(first, end) / (input.rates.prefill_gflops * kGiga),
                                      weight_bytes / (weights_gbps(input.rates) * kGiga));
    ++cost.chunks;
    cost.flash_bytes += bytes;
    cost.flash_s += flash_s;
    cost.compute_s += compute_s;
    cost.total_s += std::max(flash_s, compute_s) +
                    (1 - input.read_ahead.in_prompts) * std::min(flash_s, compute_s);
  }
  cost.tokens_per_second = static_cast<double>(tokens) / cost.total_s;
  return cost;
}

double balanced_chunk_tokens(const CostInput& input) {
  check(input);
  const double bytes =
      static_cast<double>(input.config.num_expert_layers() * input.config.num_experts) *
      static_cast<double>(input.sizes.record_bytes);
  const double flash_s = bytes / (input.rates.flash_gbps * kGiga);
  const double token_s = prompt_work(input.config, input.experts_per_token).flops(0, 1) /
                         (input.rates.prefill_gflops * kGiga);
  return flash_s / token_s;
}

double hit_rate_for(const CostInput& input, double tokens_per_second) {
  return 1 - 1e3 / tokens_per_second /
                 ms_at(routed_bytes(input, input.sizes.record_bytes), input.rates.flash_gbps);
}

double hit_rate_for_serial(const CostInput& input, double tokens_per_second) {
  const double left_ms = 1e3 / tokens_per_second - token_cost(input).other_ms();
  return 1 - left_ms / ms_at(routed_bytes(input, input.sizes.record_bytes), input.rates.flash_gbps);
}

}  // namespace penstock
