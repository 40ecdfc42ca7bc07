#version 460
// The delta-net op of one sequence's rows (compute/backend.h), a group of threads for each value head, a
// thread for each of its columns: convolution, gates, delta rule and gated norm, row after row, with the
// sums of cpu/delta_net_kernels.cc in their order.
//
// Its numbers may be subnormal and its sums are fused, which devices do as they like. Of whole numbers
// (fused.glsl) all of it is right everywhere, and slow. So with kSums kOwn a device does it in its own way,
// where that was seen to be right for numbers that are not subnormal (gpu/gpu_delta_net_kernel.h). The delta
// rule, whose states may become as small as they like, does once more what may have gone through a subnormal
// number; elsewhere that is noted, and the kernel with kWhole, which comes behind, does the head once more.
// Both in one kernel would be sums of whole numbers between all others: most of the time goes to fetching
// instructions then.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "exact.glsl"
#include "fused.glsl"

layout(constant_id = 0) const uint kKeyDim = 128;
layout(local_size_x_id = 1) in;  // columns of a value head
layout(constant_id = 2) const uint kTaps = 4;
layout(constant_id = 3) const uint kSums = 0;

// kPretended: as a device that loses subnormal numbers, for tests.
const uint kWhole = 0, kOwn = 1, kPretended = 2;

// Numbers of a column that are on their way from memory at a time: a sum takes no time beside that.
const uint kAhead = kSums == kOwn ? 32 : 2;

const uint kValueDim = gl_WorkGroupSize.x;
const uint kChains = 64;  // of a sum of products
const uint kHistory = kTaps - 1;
// What is written here and read again by the same thread.
layout(buffer_reference, std430, buffer_reference_align = 4) buffer State {
  float at[];
};

layout(push_constant) uniform Arguments {
  uvec2 qkv, z, b, a;  // f32 [rows, stride]
  uvec2 result;
  uvec2 weights;  // f32: conv [channels, taps], decay, dt_bias, norm
  // f32: history [taps - 1, channels], at `memory` the memory [value heads, key_dim, value_dim]. ahead: 0
  // where no row is on trial, else the last one is.
  uvec2 before, after, ahead;
  uvec2 journal;  // f32 [rows, channels + 2 * value heads]: what came in, the host's
  // u32 [value heads]: 1 where some number may be wrong. kWhole: does only these; 0: all.
  uvec2 lost;
  uint rows;
  uint key_heads;  // 16 bits, then those of value_heads
  uint memory;     // where it begins in a state
  uint strides;    // of b and a; of z: 16 bits each. qkv has all channels, the result value_dim * heads
  uint eps;        // bits
  uint query_scale, width_reciprocal;
};

uint size_of(float x) {
  return floatBitsToUint(x) & 0x7fffffffu;
}
bool is_tiny(float x) {  // subnormal
  return size_of(x) - 1 < 0x7fffffu;
}
float flushed(float x) {
  return is_tiny(x) ? uintBitsToFloat(floatBitsToUint(x) & 0x80000000u) : x;
}

float whole_fused(float x, float y, float sum) {
  return uintBitsToFloat(fused(floatBitsToUint(x), floatBitsToUint(y), floatBitsToUint(sum)));
}
float whole_mul(float x, float y) {
  uint zero = (floatBitsToUint(x) ^ floatBitsToUint(y)) & 0x80000000u;
  return whole_fused(x, y, uintBitsToFloat(zero));
}
float whole_add(float x, float y) {
  return whole_fused(x, 1.0, y);
}

// As a device does it.
float quick_fused(float x, float y, float sum) {
  if (kSums == kOwn) return fma(x, y, sum);
  return flushed(whole_fused(flushed(x), flushed(y), flushed(sum)));
}
float quick_mul(float x, float y) {
  if (kSums == kOwn) return mul(x, y);
  return flushed(whole_mul(flushed(x), flushed(y)));
}
float quick_add(float x, float y) {
  if (kSums == kOwn) return add(x, y);
  return flushed(whole_add(flushed(x), flushed(y)));
}

// What speaks against a number that is computed as a device does it: below kLeast, it may be wrong. No
// branches: there are many of these.
const uint kLeast = 0x800000u, kNothing = 0xffffffffu;

// Subnormal, which a device takes for zero. (So is the smallest that is not, which does no harm.)
uint doubt_of(float x) {
  return size_of(x) - 1;
}
// Zero, or what a device may have made of a subnormal number, of a product or of a sum with one.
uint doubt_of_product(float x, float y, float result) {
  return min(size_of(x), size_of(y)) == 0 ? kNothing : size_of(result);
}
uint doubt_of_sum(float x, float y, float result) {
  return size_of(x) == size_of(y) ? kNothing : size_of(result);
}

// Of all that this thread has made.
uint doubt = kNothing;

// With one rounding, whatever their size.
float careful_mul(float x, float y) {
  if (kSums == kWhole) return whole_mul(x, y);
  float result = quick_mul(x, y);
  doubt = min(doubt, min(min(doubt_of(x), doubt_of(y)), doubt_of_product(x, y, result)));
  return result;
}
float careful_add(float x, float y) {
  if (kSums == kWhole) return whole_add(x, y);
  float result = quick_add(x, y);
  doubt = min(doubt, min(min(doubt_of(x), doubt_of(y)), doubt_of_sum(x, y, result)));
  return result;
}
float careful_sub(float x, float y) {
  return careful_add(x, uintBitsToFloat(floatBitsToUint(y) ^ 0x80000000u));
}
float careful_silu(float x) {
  return careful_mul(x, exact_sigmoid(x));
}

shared float query[kKeyDim], key[kKeyDim], column[gl_WorkGroupSize.x];
shared float chains[2][kChains];
shared float gates[2];
shared uint lost_here;

uint channels() {
  return 2 * (key_heads & 0xffffu) * kKeyDim + (key_heads >> 16) * kValueDim;
}

// Input `channel` of a row; rows before the first are the history's.
float input_of(uint channel, int row) {
  if (row >= 0) return Floats(qkv).at[uint(row) * channels() + channel];
  return State(before).at[uint(int(kHistory) + row) * channels() + channel];
}

float convolved(uint channel, uint row) {
  float sum = 0.0;
  for (uint j = 0; j < kTaps; ++j) {
    float tap = Floats(weights).at[channel * kTaps + j];
    sum = careful_add(careful_mul(tap, input_of(channel, int(row + j) - int(kHistory))), sum);
  }
  return careful_silu(sum);
}

// What the history of a state after `count` rows is of a channel.
void keep_history(uvec2 state, uint channel, uint count) {
  for (uint j = 0; j < kHistory; ++j) {
    State(state).at[j * channels() + channel] = input_of(channel, int(count + j) - int(kHistory));
  }
}

void keep_inputs(uint channel) {
  uint width = channels() + 2 * (key_heads >> 16);
  for (uint t = 0; t < rows; ++t) {
    FloatsOut(journal).at[t * width + channel] = input_of(channel, int(t));
  }
  bool is_on_trial = (ahead.x | ahead.y) != 0;
  if (is_on_trial) keep_history(ahead, channel, rows);
  keep_history(after, channel, is_on_trial ? rows - 1 : rows);
}

// Sums of products in chains (Dot of cpu/vector-inl.h), of so many of both lists. Each is left in its [0].
void add_chains(uint lists) {
  barrier();
  for (uint i = gl_LocalInvocationID.x; i < lists * 16; i += kValueDim) {
    uint list = i / 16, chain = i % 16;
    chains[list][chain] =
        careful_add(careful_add(chains[list][chain], chains[list][chain + 16]),
                    careful_add(chains[list][chain + 32], chains[list][chain + 48]));
  }
  barrier();
  for (uint part = 8; part >= 1; part /= 2) {
    for (uint i = gl_LocalInvocationID.x; i < lists * part; i += kValueDim) {
      uint list = i / part, chain = i % part;
      chains[list][chain] = careful_add(chains[list][chain], chains[list][chain + part]);
    }
    barrier();
  }
}

void sum_of_keys() {
  for (uint i = gl_LocalInvocationID.x; i < 2 * kChains; i += kValueDim) {
    uint list = i / kChains, chain = i % kChains;
    float sum = 0.0;
    for (uint at = chain; at < kKeyDim; at += kChains) {
      float x = list == 0 ? query[at] : key[at];
      sum = careful_add(careful_mul(x, x), sum);
    }
    chains[list][chain] = sum;
  }
  add_chains(2);
}

void dot_of_key_and_query() {
  for (uint chain = gl_LocalInvocationID.x; chain < kChains; chain += kValueDim) {
    float sum = 0.0;
    for (uint i = chain; i < kKeyDim; i += kChains) {
      sum = careful_add(careful_mul(query[i], key[i]), sum);
    }
    chains[0][chain] = sum;
  }
  add_chains(1);
}

void sum_of_column() {
  for (uint chain = gl_LocalInvocationID.x; chain < kChains; chain += kValueDim) {
    float sum = 0.0;
    for (uint i = chain; i < kValueDim; i += kChains) {
      sum = careful_add(careful_mul(column[i], column[i]), sum);
    }
    chains[0][chain] = sum;
  }
  add_chains(1);
}

// The key head's query and key of a row, normalised; what they say to each other is left in chains[0][0].
void prepare_keys(uint key_head, uint row) {
  uint heads = key_heads & 0xffffu;
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    query[i] = convolved(key_head * kKeyDim + i, row);
    key[i] = convolved((heads + key_head) * kKeyDim + i, row);
  }
  barrier();
  sum_of_keys();
  const float kEps = uintBitsToFloat(0x358637bdu);  // 1e-6
  float of_query = mul(uintBitsToFloat(query_scale), exact_rsqrt(add(chains[0][0], kEps)));
  float of_key = exact_rsqrt(add(chains[1][0], kEps));
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    query[i] = careful_mul(query[i], of_query);
    key[i] = careful_mul(key[i], of_key);
  }
  barrier();
  dot_of_key_and_query();
}

// Each of a thread of its own.
void prepare_gates(uint head, uint row) {
  uint heads = key_heads >> 16, stride = strides & 0xffffu;
  uint at = row * (channels() + 2 * heads) + channels() + head;
  if (gl_LocalInvocationID.x == 0) {
    uint constants = channels() * kTaps;
    float from_a = Floats(a).at[row * stride + head];
    float decay = Floats(weights).at[constants + head];
    float bias = Floats(weights).at[constants + heads + head];
    gates[0] = exact_exp(mul(decay, exact_softplus(add(from_a, bias))));
    FloatsOut(journal).at[at + heads] = from_a;
  } else if (gl_LocalInvocationID.x == kValueDim - 1) {
    float from_b = Floats(b).at[row * stride + head];
    gates[1] = exact_sigmoid(from_b);
    FloatsOut(journal).at[at] = from_b;
  }
}

// The next numbers of this thread's column.
void take_column(uvec2 from, uint first, uint begin, inout float old[kAhead]) {
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    old[k] = begin + k < kKeyDim ? State(from).at[first + (begin + k) * kValueDim] : 0.0;
  }
}

// What the memory says to key and query. A key, query or sum that is subnormal was doubted when it was made, and
// no gate is (exact_exp: zero, or 1e-38 and more); what comes from memory was not.
vec2 asked_quickly(uvec2 from, uint first, inout uint against) {
  float of_key = 0.0, of_query = 0.0, old[kAhead];
  for (uint i = 0; i < kKeyDim; i += kAhead) {
    take_column(from, first, i, old);
    [[unroll]] for (uint k = 0; k < kAhead; ++k) {
      if (i + k >= kKeyDim) break;
      of_key = quick_fused(old[k], key[i + k], of_key);
      of_query = quick_fused(old[k], query[i + k], of_query);
      against = min(against, min(doubt_of(old[k]),
                                 min(doubt_of_product(old[k], key[i + k], of_key),
                                     doubt_of_product(old[k], query[i + k], of_query))));
    }
  }
  return vec2(of_key, of_query);
}
vec2 asked(uvec2 from, uint first) {
  if (kSums != kWhole) {
    uint against = kNothing;
    vec2 answer = asked_quickly(from, first, against);
    if (against >= kLeast) return answer;
  }
  float of_key = 0.0, of_query = 0.0;
  for (uint i = 0; i < kKeyDim; ++i) {
    float old = State(from).at[first + i * kValueDim];
    of_key = whole_fused(old, key[i], of_key);
    of_query = whole_fused(old, query[i], of_query);
  }
  return vec2(of_key, of_query);
}

// The next numbers of the column, changed. False: nothing is written, some may be wrong.
bool changed_quickly(uvec2 from, uvec2 to, uint first, uint begin, float change) {
  float old[kAhead];
  uint against = kNothing;
  take_column(from, first, begin, old);
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    if (begin + k >= kKeyDim) break;
    float kept = quick_mul(gates[0], old[k]);
    uint of_kept = min(doubt_of(old[k]), doubt_of_product(gates[0], old[k], kept));
    old[k] = quick_fused(key[begin + k], change, kept);
    against = min(against, min(of_kept, doubt_of_product(key[begin + k], change, old[k])));
  }
  if (against < kLeast) return false;
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    if (begin + k < kKeyDim) State(to).at[first + (begin + k) * kValueDim] = old[k];
  }
  return true;
}

// The delta rule of this thread's column.
float ruled(uvec2 from, uvec2 to, uint first, float value, float key_dot) {
  vec2 answer = asked(from, first);
  float surprise = careful_sub(value, careful_mul(gates[0], answer.x));
  float change = careful_mul(gates[1], surprise);
  for (uint begin = 0; begin < kKeyDim; begin += kAhead) {
    if (kSums != kWhole && changed_quickly(from, to, first, begin, change)) continue;
    for (uint i = begin; i < min(begin + kAhead, kKeyDim); ++i) {
      uint at = first + i * kValueDim;
      float kept = whole_mul(gates[0], State(from).at[at]);
      State(to).at[at] = whole_fused(key[i], change, kept);
    }
  }
  return careful_add(careful_mul(key_dot, change), careful_mul(gates[0], answer.y));
}

// A row's column normed, and gated by z's.
float normed(float value, float gate) {
  column[gl_LocalInvocationID.x] = value;
  barrier();
  sum_of_column();
  float mean = mul(chains[0][0], uintBitsToFloat(width_reciprocal));
  float scale = exact_rsqrt(add(mean, uintBitsToFloat(eps)));
  uint at = channels() * kTaps + 2 * (key_heads >> 16) + gl_LocalInvocationID.x;
  float weighted = careful_mul(careful_mul(value, scale), Floats(weights).at[at]);
  return careful_mul(weighted, careful_silu(gate));
}

void do_row(uint head, uint row, uvec2 from, uvec2 to) {
  uint heads = key_heads >> 16, of_keys = key_heads & 0xffffu;
  uint key_head = head / (heads / of_keys), in_head = head * kValueDim + gl_LocalInvocationID.x;
  float value = convolved(2 * of_keys * kKeyDim + in_head, row);
  float gate = Floats(z).at[row * (strides >> 16) + in_head];
  prepare_gates(head, row);
  prepare_keys(key_head, row);
  uint first = memory + head * kKeyDim * kValueDim + gl_LocalInvocationID.x;
  value = ruled(from, to, first, value, chains[0][0]);
  FloatsOut(result).at[row * heads * kValueDim + in_head] = normed(value, gate);
  barrier();
}

void keep_inputs_of(uint head) {
  uint heads = key_heads >> 16, of_keys = key_heads & 0xffffu, each = heads / of_keys;
  keep_inputs(2 * of_keys * kKeyDim + head * kValueDim + gl_LocalInvocationID.x);
  if (head % each != 0) return;
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    keep_inputs(head / each * kKeyDim + i);
    keep_inputs((of_keys + head / each) * kKeyDim + i);
  }
}

// Whether any thread has lost a number, for the kernel of whole numbers.
void tell_lost(uint head) {
  if (gl_LocalInvocationID.x == 0) lost_here = 0;
  barrier();
  if (doubt < kLeast) atomicOr(lost_here, 1u);
  barrier();
  if (gl_LocalInvocationID.x == 0) WordsOut(lost).at[head] = lost_here;
}

void main() {
  uint head = gl_WorkGroupID.x;
  if (kSums == kWhole && (lost.x | lost.y) != 0 && Words(lost).at[head] == 0) return;
  bool is_on_trial = (ahead.x | ahead.y) != 0;
  keep_inputs_of(head);  // first: they have a long way, and nobody waits for them here
  uvec2 from = before;
  for (uint row = 0; row < rows; ++row) {
    uvec2 to = is_on_trial && row + 1 == rows ? ahead : after;
    do_row(head, row, from, to);
    from = to;
  }
  if (kSums != kWhole) tell_lost(head);
}
