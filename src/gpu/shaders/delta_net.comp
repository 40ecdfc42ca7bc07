#version 460
// The delta-net op of one sequence's few rows (compute/backend.h), a group of threads for each value head, a
// thread for each of its columns: convolution, gates, delta rule and gated norm, row after row. Of many rows it
// is done in steps (delta_net_ends.comp, delta_rule.comp).
//
// What may be wrong of a subnormal number in the delta rule is done once more in place; elsewhere that is noted,
// and the kernel with kWhole, which comes behind, does the head once more. Both in one kernel would be sums of
// whole numbers between all others: most of the time goes to fetching instructions then.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "exact.glsl"
#include "fused.glsl"

layout(constant_id = 0) const uint kKeyDim = 128;
layout(local_size_x_id = 1) in;  // columns of a value head
layout(constant_id = 2) const uint kTaps = 4;
layout(constant_id = 3) const uint kSums = 0;
const uint kValueDim = gl_WorkGroupSize.x;
#include "delta_numbers.glsl"

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

#include "delta_net.glsl"

shared float gates[2];

// Each of a thread of its own.
void prepare_gates(uint head, uint row) {
  uint heads = key_heads >> 16, stride = strides & 0xffffu;
  uint at = row * (channels() + 2 * heads) + channels() + head;
  if (gl_LocalInvocationID.x == 0) {
    gates[0] = decay_of(head, row);
    FloatsOut(journal).at[at + heads] = Floats(a).at[row * stride + head];
  } else if (gl_LocalInvocationID.x == kValueDim - 1) {
    gates[1] = beta_of(head, row);
    FloatsOut(journal).at[at] = Floats(b).at[row * stride + head];
  }
}

// What the memory is before a row, and after it.
uvec2 memory_from, memory_to;
uint memory_first;  // of this thread's column
float old_at(uint i) {
  return State(memory_from).at[memory_first + i * kValueDim];
}
void put_at(uint i, float x) {
  State(memory_to).at[memory_first + i * kValueDim] = x;
}
#include "delta_rule.glsl"

float ruled(float value, float key_dot) {
  vec2 answer = asked();
  float surprise = careful_sub(value, careful_mul(gates[0], answer.x));
  float change = careful_mul(gates[1], surprise);
  for (uint i = 0; i < kKeyDim; i += kAhead) change_block(i, gates[0], change);
  return careful_add(careful_mul(key_dot, change), careful_mul(gates[0], answer.y));
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

void do_row(uint head, uint row, uvec2 from, uvec2 to) {
  uint heads = key_heads >> 16, of_keys = key_heads & 0xffffu;
  uint key_head = head / (heads / of_keys), in_head = head * kValueDim + gl_LocalInvocationID.x;
  float value = convolved(2 * of_keys * kKeyDim + in_head, row);
  float gate = Floats(z).at[row * (strides >> 16) + in_head];
  prepare_gates(head, row);
  prepare_keys(key_head, row);
  memory_from = from;
  memory_to = to;
  memory_first = memory + head * kKeyDim * kValueDim + gl_LocalInvocationID.x;
  value = ruled(value, chains[0][0]);
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
