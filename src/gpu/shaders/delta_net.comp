#version 460
// The delta-net op of one sequence's rows (compute/backend.h), a group of threads for each value head, a
// thread for each of its columns: convolution, gates, delta rule and gated norm, row after row, with the
// sums of cpu/delta_net_kernels.cc in their order.
//
// Its numbers may be subnormal and its sums are fused, which devices do as they like. Of whole numbers
// (fused.glsl) all of it is right everywhere, and slow. So with kSums kOwn a device does it in its own way,
// where that was seen to be right for numbers that are not subnormal (gpu/gpu_delta_net_kernel.h), and what
// may have gone through a subnormal one is done once more.
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
const uint kAhead = kSums == kOwn ? 16 : 2;

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
bool is_none(float x) {
  return size_of(x) == 0;
}
// Zero, or what a device may have made of a subnormal number.
bool may_be_lost(float x) {
  return size_of(x) < 0x800000u;
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

// As a device does it, and whether that may be wrong.
float quick_fused(float x, float y, float sum) {
  if (kSums == kOwn) return fma(x, y, sum);
  return flushed(whole_fused(flushed(x), flushed(y), flushed(sum)));
}
float quick_mul(float x, float y) {
  if (kSums == kOwn) return mul(x, y);
  return flushed(whole_mul(flushed(x), flushed(y)));
}
bool is_lost_fused(float x, float y, float sum, float result) {
  return is_tiny(x) || is_tiny(y) || is_tiny(sum) ||
         (may_be_lost(result) && !is_none(x) && !is_none(y));
}
bool is_lost_mul(float x, float y, float result) {
  return is_tiny(x) || is_tiny(y) || (may_be_lost(result) && !is_none(x) && !is_none(y));
}

// With one rounding, whatever their size.
float careful_mul(float x, float y) {
  if (kSums != kWhole) {
    float result = quick_mul(x, y);
    if (!is_lost_mul(x, y, result)) return result;
  }
  return whole_mul(x, y);
}
float careful_add(float x, float y) {
  if (kSums != kWhole) {
    float result = kSums == kOwn ? add(x, y) : flushed(whole_add(flushed(x), flushed(y)));
    bool is_zero = (floatBitsToUint(x) ^ floatBitsToUint(y)) == 0x80000000u ||
                   (is_none(x) && is_none(y));
    if (!is_tiny(x) && !is_tiny(y) && (is_zero || !may_be_lost(result))) return result;
  }
  return whole_add(x, y);
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

// Sums of products in chains, two at a time (Dot of cpu/vector-inl.h).
void add_chains(uint which) {
  for (uint part = 8; part >= 1; part /= 2) {
    for (uint i = 0; i < part; ++i) {
      chains[which][i] = careful_add(chains[which][i], chains[which][i + part]);
    }
  }
}

// Sixteen threads fold what all have summed up, then one.
void finish_chains() {
  uint thread = gl_LocalInvocationID.x;
  barrier();
  for (uint which = 0; which < 2; ++which) {
    float folded = 0.0;
    if (thread < 16) {
      folded = careful_add(careful_add(chains[which][thread], chains[which][thread + 16]),
                           careful_add(chains[which][thread + 32], chains[which][thread + 48]));
    }
    barrier();
    if (thread < 16) chains[which][thread] = folded;
  }
  barrier();
  if (thread < 2) add_chains(thread);
  barrier();
}

void sum_of_keys() {
  for (uint chain = gl_LocalInvocationID.x; chain < kChains; chain += kValueDim) {
    float of_query = 0.0, of_key = 0.0;
    for (uint i = chain; i < kKeyDim; i += kChains) {
      of_query = careful_add(careful_mul(query[i], query[i]), of_query);
      of_key = careful_add(careful_mul(key[i], key[i]), of_key);
    }
    chains[0][chain] = of_query;
    chains[1][chain] = of_key;
  }
  finish_chains();
}

void dot_of_key_and_query() {
  for (uint chain = gl_LocalInvocationID.x; chain < kChains; chain += kValueDim) {
    float sum = 0.0;
    for (uint i = chain; i < kKeyDim; i += kChains) {
      sum = careful_add(careful_mul(query[i], key[i]), sum);
    }
    chains[0][chain] = sum;
    chains[1][chain] = 0.0;
  }
  finish_chains();
}

void sum_of_column() {
  for (uint chain = gl_LocalInvocationID.x; chain < kChains; chain += kValueDim) {
    float sum = 0.0;
    for (uint i = chain; i < kValueDim; i += kChains) {
      sum = careful_add(careful_mul(column[i], column[i]), sum);
    }
    chains[0][chain] = sum;
    chains[1][chain] = 0.0;
  }
  finish_chains();
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

void prepare_gates(uint head, uint row) {
  if (gl_LocalInvocationID.x != 0) return;
  uint heads = key_heads >> 16, stride = strides & 0xffffu;
  uint constants = channels() * kTaps;
  float from_a = Floats(a).at[row * stride + head], from_b = Floats(b).at[row * stride + head];
  float decay = Floats(weights).at[constants + head];
  float bias = Floats(weights).at[constants + heads + head];
  gates[0] = exact_exp(mul(decay, exact_softplus(add(from_a, bias))));
  gates[1] = exact_sigmoid(from_b);
  uint at = row * (channels() + 2 * heads) + channels() + head;
  FloatsOut(journal).at[at] = from_b;
  FloatsOut(journal).at[at + heads] = from_a;
}

// The next numbers of this thread's column.
void take_column(uvec2 from, uint first, uint begin, inout float old[kAhead]) {
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    old[k] = begin + k < kKeyDim ? State(from).at[first + (begin + k) * kValueDim] : 0.0;
  }
}

// What the memory says to key and query.
vec2 asked_quickly(uvec2 from, uint first, inout bool is_lost) {
  float of_key = 0.0, of_query = 0.0, old[kAhead];
  for (uint i = 0; i < kKeyDim; i += kAhead) {
    take_column(from, first, i, old);
    [[unroll]] for (uint k = 0; k < kAhead; ++k) {
      if (i + k >= kKeyDim) break;
      float next_key = quick_fused(old[k], key[i + k], of_key);
      float next_query = quick_fused(old[k], query[i + k], of_query);
      is_lost = is_lost || is_lost_fused(old[k], key[i + k], of_key, next_key) ||
                is_lost_fused(old[k], query[i + k], of_query, next_query);
      of_key = next_key;
      of_query = next_query;
    }
  }
  return vec2(of_key, of_query);
}
vec2 asked(uvec2 from, uint first) {
  bool is_lost = false;
  if (kSums != kWhole) {
    vec2 answer = asked_quickly(from, first, is_lost);
    if (!is_lost) return answer;
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
  bool is_lost = false;
  take_column(from, first, begin, old);
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    if (begin + k >= kKeyDim) break;
    float kept = quick_mul(gates[0], old[k]);
    is_lost = is_lost || is_lost_mul(gates[0], old[k], kept);
    old[k] = quick_fused(key[begin + k], change, kept);
    is_lost = is_lost || is_lost_fused(key[begin + k], change, kept, old[k]);
  }
  if (is_lost) return false;
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

// A row's column normed and gated.
float normed(uint head, uint row, float value) {
  uint heads = key_heads >> 16;
  column[gl_LocalInvocationID.x] = value;
  barrier();
  sum_of_column();
  float mean = mul(chains[0][0], uintBitsToFloat(width_reciprocal));
  float scale = exact_rsqrt(add(mean, uintBitsToFloat(eps)));
  uint at = channels() * kTaps + 2 * heads + gl_LocalInvocationID.x;
  float weighted = careful_mul(careful_mul(value, scale), Floats(weights).at[at]);
  float gate = Floats(z).at[row * (strides >> 16) + head * kValueDim + gl_LocalInvocationID.x];
  return careful_mul(weighted, careful_silu(gate));
}

void main() {
  uint head = gl_WorkGroupID.x, heads = key_heads >> 16, of_keys = key_heads & 0xffffu;
  uint each = heads / of_keys, key_head = head / each;
  uint value_channel = 2 * of_keys * kKeyDim + head * kValueDim + gl_LocalInvocationID.x;
  uint first = memory + head * kKeyDim * kValueDim + gl_LocalInvocationID.x;
  bool is_on_trial = (ahead.x | ahead.y) != 0;
  uvec2 from = before;
  for (uint t = 0; t < rows; ++t) {
    prepare_keys(key_head, t);
    prepare_gates(head, t);
    barrier();
    float key_dot = chains[0][0];
    uvec2 to = is_on_trial && t + 1 == rows ? ahead : after;
    float value = ruled(from, to, first, convolved(value_channel, t), key_dot);
    from = to;
    barrier();
    value = normed(head, t, value);
    FloatsOut(result).at[(t * heads + head) * kValueDim + gl_LocalInvocationID.x] = value;
    barrier();
  }
  keep_inputs(value_channel);
  if (head % each != 0) return;
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    keep_inputs(key_head * kKeyDim + i);
    keep_inputs((of_keys + key_head) * kKeyDim + i);
  }
}
