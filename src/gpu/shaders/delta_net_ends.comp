#version 460
// Of the delta-net op of many rows what each row has for itself, before the delta rule (keys, gates, values) and
// after it (gated norm): a group of threads for each value head of a row. delta_rule.comp is between. As in
// delta_net.comp, groups in which a number may be wrong are noted, and done once more with kWhole.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "exact.glsl"
#include "fused.glsl"

layout(constant_id = 0) const uint kKeyDim = 128;
layout(local_size_x_id = 1) in;  // columns of a value head
layout(constant_id = 2) const uint kTaps = 4;
layout(constant_id = 3) const uint kSums = 0;
layout(constant_id = 4) const bool kIsLast = false;  // after the delta rule
const uint kValueDim = gl_WorkGroupSize.x;
#include "delta_numbers.glsl"

layout(push_constant) uniform Arguments {
  uvec2 qkv, z, b, a;  // f32 [rows, stride]
  uvec2 result;        // of the last step
  uvec2 weights;       // f32: conv [channels, taps], decay, dt_bias, norm
  uvec2 before, after;  // f32 [taps - 1, channels]: history of the first row, and after the last one
  uvec2 between;       // f32 [rows, ..]: delta_between.glsl
  uvec2 lost;  // u32 [rows, value heads]: 1 where some number may be wrong. kWhole: does only these; 0: all
  uint rows;
  uint key_heads;  // 16 bits, then those of value_heads
  uint strides;    // of b and a; of z: 16 bits each. qkv has all channels, the result value_dim * heads
  uint eps;        // bits
  uint query_scale, width_reciprocal;
};
#include "delta_net.glsl"
#include "delta_between.glsl"

void keep_history_of(uint head, uint key_head, bool is_first_of_key) {
  uint of_keys = key_heads & 0xffffu;
  keep_history(after, 2 * of_keys * kKeyDim + head * kValueDim + gl_LocalInvocationID.x, rows);
  if (!is_first_of_key) return;
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    keep_history(after, key_head * kKeyDim + i, rows);
    keep_history(after, (of_keys + key_head) * kKeyDim + i, rows);
  }
}

void prepare(uint head, uint row) {
  uint of_keys = key_heads & 0xffffu, each = (key_heads >> 16) / of_keys, key_head = head / each;
  bool is_first_of_key = head % each == 0;
  if (row + 1 == rows) keep_history_of(head, key_head, is_first_of_key);
  uint in_head = head * kValueDim + gl_LocalInvocationID.x;
  State(between).at[value_at(row, in_head)] =
      convolved(2 * of_keys * kKeyDim + in_head, row);
  if (gl_LocalInvocationID.x == 0) {
    State(between).at[decay_at(row, head)] = decay_of(head, row);
  } else if (gl_LocalInvocationID.x == kValueDim - 1) {
    State(between).at[beta_at(row, head)] = beta_of(head, row);
  }
  if (!is_first_of_key) return;
  prepare_keys(key_head, row);
  for (uint i = gl_LocalInvocationID.x; i < kKeyDim; i += kValueDim) {
    State(between).at[query_at(row, key_head) + i] = query[i];
    State(between).at[key_at(row, key_head) + i] = key[i];
  }
  if (gl_LocalInvocationID.x == 0) State(between).at[dot_at(row, key_head)] = chains[0][0];
}

void main() {
  uint head = gl_WorkGroupID.x, row = gl_WorkGroupID.y, heads = key_heads >> 16;
  uint at = row * heads + head;
  if (kSums == kWhole && (lost.x | lost.y) != 0 && Words(lost).at[at] == 0) return;
  if (kIsLast) {
    uint in_head = head * kValueDim + gl_LocalInvocationID.x;
    float value = State(between).at[value_at(row, in_head)];
    float gate = Floats(z).at[row * (strides >> 16) + in_head];
    FloatsOut(result).at[row * heads * kValueDim + in_head] = normed(value, gate);
  } else {
    prepare(head, row);
  }
  if (kSums != kWhole) tell_lost(at);
}
