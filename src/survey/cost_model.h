// What a token costs, term by term: the arithmetic that says how fast a machine can be, which term
// binds, and what would help. Pure functions of shapes, rates and slots; nothing is measured here.
//
// One decoded token of an engine that streams K experts of each of L layers (G = K L b bytes):
//
//   flash   (1 - h) G / B_flash + L' * first read     bytes that no cache held; L' layers miss
//   dense   D / B_weights                             weights that every token reads
//   hits    h G / B_weights  (+ h G / B_copy)         experts that were in memory
//   misses  (1 - h) G / B_weights                     experts that came, read once more by the CPU
//   state   (2 S + KV) / B_memory                     delta-net states, attention over the context
//   fixed   L * tau + L' * pause                      handing out ops, waking after a wait; ops that
//                                                     a device does are not handed out
//   device  g G / B_device + L * start                experts in a GPU's memory, g of the hits
//   calls   L * (round trip + host) + rows / B_link   what a layer costs that asks the GPU for experts
//   trunk   T / B_device + C * (round trip + start)   matrices of D in a GPU's memory, T bytes in C
//           + F * start + rows / B_link               calls that are waited for and F that are not
//
// A GPU's memory is slots beside those of RAM, with the most used experts; what it computes is counted
// after what the processors do meanwhile, since nobody has measured yet how much of it is hidden.
//
//   serial      flash + all others
//   overlapped  while the disk works, the shared expert and the hits of the layer are computed.
//               Reading ahead uses a part of the rest of the time too, and reads some experts in
//               vain: flash (1 - h) G (1 + waste h) / B_flash, of which also
//               min(recall * flash, share * (others - shared expert - hits)) is hidden. What a device
//               computes counts as hits do
//   limit       max((1 - h) G / B_flash, all weights and states at B_memory): no exact
//               schedule is faster at this hit rate, however good its kernels
//
//   worked example: 397B, 10 experts of 7,077,888 bytes in 60 layers, no cache, 5.5 GB/s:
//   4.247 GB / 5.5 GB/s = 772 ms, so 1.30 tok/s at best
//
// A prompt goes in chunks; each reads the distinct experts of all its tokens once, E (1 - (1 -
// K/E)^n) of a layer when routing is uniform, and takes the longer of flash and compute and as much
// of the shorter as is not hidden behind it.
//
// Units   GB/s and GFLOP/s are powers of ten, milliseconds per token, seconds per prompt
// Source  Hit rates: replay of a 512-expert router fitted to published statistics of
//         Qwen3.5-397B (repeats, distinct experts, popularity), LRU. docs/performance/eviction.md
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/config.h"
#include "survey/model_sizes.h"

namespace penstock {

// Ops of one layer of the forward pass: two norms, two projections, mixer, two additions, router,
// choice, shared expert, gate and up, down, combination.
inline constexpr double kCostOpsPerLayer = 13;

struct MachineRates {
  double flash_gbps = 0;      // of reads of the engine's size, one after the other without a gap
  double memory_gbps = 0;     // what all threads together read from memory
  double weights_gbps = 0;    // weights through the product of one token; 0: memory_gbps
  double prefill_gflops = 0;  // of the product with many tokens
  double copy_gbps = 0;       // of a hit that has to be copied first; 0: used where it lies
  double layer_us = 0;        // fixed cost per layer
  double first_read_us = 0;   // of a layer with a miss, besides its bytes over flash_gbps
  double pause_us = 0;        // of a layer with a miss: computing starts slowly after a wait
};

// Of a GPU that computes the experts in its memory (survey/gpu_card.h).
struct DeviceRates {
  double read_gbps = 0;         // of a kernel that only reads
  double weights_gbps = 0;      // of experts' weights, besides start_us
  double link_gbps = 0;         // copies of rows to it and back
  double start_us = 0;          // of a layer's experts or a shared one: their kernels begin and end
  double round_trip_us = 0;     // from handing work over to seeing its end
  double host_us = 0;           // what the engine spends on a call besides
  double product_start_us = 0;  // of a call's products
  bool is_unified = false;      // its memory is the machine's
};

enum class HitKind : uint8_t {
  kUniform,  // every expert equally likely: slots / experts, the pessimistic bound
  kSession,  // one conversation on one topic
  kTopics,   // the topic changes every 80 tokens
  kGiven,
};
std::string_view name_of(HitKind kind);

struct HitModel {
  HitKind kind = HitKind::kSession;
  double given = 0;  // of kGiven, 0 to 1
};

// Expected hit rate with `num_slots` of all experts in memory.
double hit_rate(const HitModel& hits, const ModelConfig& config, int64_t experts_per_token,
                int64_t num_slots);

// Reading the next layer's likely experts while the disk would be idle. As it stands: not done for
// a token, perfectly for prompts.
struct ReadAhead {
  double recall = 0;      // of the missed experts, foreseen
  double idle_share = 0;  // of the time in which the disk would be idle, put to use
  // Bytes read in vain over bytes that were needed, times the hit rate: where more is in memory the
  // disk has more time for guesses.
  double waste = 0;
  double in_prompts = 1;  // of the shorter of reading and computing, hidden behind the other
};

// As measured on the 35B and 397B shapes with the models' own routers (docs/performance/experiments.md).
inline constexpr ReadAhead kReadAheadMeasured = {
    .recall = 0.77, .idle_share = 0.5, .waste = 0.25, .in_prompts = 0.9};

// Matrices that every token needs, in a GPU's memory.
struct DeviceTrunk {
  double bytes = 0;         // of the dense ones
  double shared_bytes = 0;  // of these, of shared experts
  double row_bytes = 0;     // over the link for a token
  double calls = 0;         // of products, for a token
  double ffns = 0;          // shared experts
  double weights_gbps = 0;  // of their type
};

struct CostInput {
  ModelConfig config;
  ModelSizes sizes;
  MachineRates rates;
  HitModel hits;
  int64_t experts_per_token = 0;
  int64_t num_slots = 0;
  int64_t position = 0;      // of the decoded token: how much context it looks back on
  int64_t chunk_tokens = 1;  // of a prompt
  ReadAhead read_ahead = {};
  DeviceRates device = {};
  int64_t device_slots = 0;  // 0: no device; beside num_slots
  DeviceTrunk trunk = {};    // only beside slots
};

enum class CostTerm : uint8_t {
  kFlash,
  kDense,
  kHits,
  kMisses,
  kState,
  kFixed,
  kDevice,
  kDeviceCalls,
  kDeviceTrunk
};
inline constexpr CostTerm kCostTerms[] = {
    CostTerm::kFlash,  CostTerm::kDense,       CostTerm::kHits,
    CostTerm::kMisses, CostTerm::kState,       CostTerm::kFixed,
    CostTerm::kDevice, CostTerm::kDeviceCalls, CostTerm::kDeviceTrunk};
// Without those of a device.
inline constexpr std::span kHostTerms = std::span(kCostTerms).first<6>();
std::string_view name_of(CostTerm term);

struct TokenCost {
  double hit_rate = 0;
  double device_hit_rate = 0;  // the part of it that a device computes
  double missed_bytes = 0;     // of the experts that were not in memory
  double flash_bytes = 0;      // the same, with what is read in vain
  double flash_ms = 0, dense_ms = 0, hits_ms = 0, misses_ms = 0, state_ms = 0, fixed_ms = 0;
  double device_ms = 0, device_calls_ms = 0, device_trunk_ms = 0;
  double overlap_ms = 0;  // of the flash time, behind computing
  double limit_ms = 0;

  double term_ms(CostTerm term) const;
  // Those of a device only where there is one.
  std::span<const CostTerm> terms() const;
  double other_ms() const {
    return dense_ms + hits_ms + misses_ms + state_ms + fixed_ms + device_ms + device_calls_ms +
           device_trunk_ms;
  }
  double serial_ms() const { return flash_ms + other_ms(); }
  double overlapped_ms() const { return serial_ms() - overlap_ms; }
  double serial_tps() const { return 1000 / serial_ms(); }
  double overlapped_tps() const { return 1000 / overlapped_ms(); }
  double limit_tps() const { return 1000 / limit_ms; }
  CostTerm binding() const;  // the largest term, less what is hidden behind others
  // Measured speed as a share of the limit: comparable across machines, and says when to stop.
  double share_of_limit(double measured_tps) const { return measured_tps / limit_tps(); }
};
TokenCost token_cost(const CostInput& input);

struct PromptCost {
  int64_t chunks = 0;
  double flash_bytes = 0;
  double flash_s = 0;    // if nothing else took time
  double compute_s = 0;  // likewise
  double total_s = 0;    // chunk by chunk, as far as one hides the other: the time to first token
  double tokens_per_second = 0;
};
// Of a prompt of `tokens` from an empty session and an empty cache.
PromptCost prompt_cost(const CostInput& input, int64_t tokens);

// Expected distinct experts per layer of `tokens` tokens, routed uniformly.
double distinct_experts(const ModelConfig& config, int64_t experts_per_token, int64_t tokens);

// The chunk at which flash and compute of a prompt balance, when every expert is read.
double balanced_chunk_tokens(const CostInput& input);

// Hit rates that a speed asks for; above 1 it is out of reach, at or below 0 no cache is needed.
double hit_rate_for(const CostInput& input, double tokens_per_second);  // flash never waits
double hit_rate_for_serial(const CostInput& input,
                           double tokens_per_second);  // flash, then all else

}  // namespace penstock
