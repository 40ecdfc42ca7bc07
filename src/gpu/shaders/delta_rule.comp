#version 460
// The delta rule of many rows, between the steps of delta_net_ends.comp: a group of threads for so many columns
// of a value head, which it keeps from the first row to the last. Nothing is left in doubt: what
// may have gone through a subnormal number is done once more at once.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "fused.glsl"

layout(local_size_x = 16) in;
layout(constant_id = 0) const uint kKeyDim = 128;
layout(constant_id = 1) const uint kValueDim = 128;
layout(constant_id = 2) const uint kSums = 0;
layout(constant_id = 3) const bool kInRegisters = false;  // not with kWhole
#include "delta_numbers.glsl"

layout(push_constant) uniform Arguments {
  uvec2 between;        // f32 [rows, ..]: delta_between.glsl
  uvec2 before, after;  // f32 [value heads, key_dim, value_dim]; may be one
  uint rows;
  uint key_heads;  // 16 bits, then those of value_heads
};
#include "delta_between.glsl"

const uint kColumns = gl_WorkGroupSize.x;
// Of a row, the keys that a thread brings.
const uint kBrought = (kKeyDim + kColumns - 1) / kColumns;

shared float columns[kKeyDim * kColumns];
shared float query[kKeyDim], key[kKeyDim];
shared vec4 queries[(kKeyDim + 3) / 4], keys[(kKeyDim + 3) / 4];  // the same, to be read four at a time
shared uint keys_doubts[2];  // of all threads, of a row and the next one

float old_at(uint i) {
  return columns[i * kColumns + gl_LocalInvocationID.x];
}
void put_at(uint i, float x) {
  columns[i * kColumns + gl_LocalInvocationID.x] = x;
}
#include "delta_rule.glsl"

// In registers a device's own sums take a fifth of the time. Numbers there have constant places, so what is done
// once more goes by way of shared memory.
//
// The look at them is shorter than delta_rule.glsl's: whether any number was zero or subnormal. What was looked at
// when it was written is not looked at again. Where there is such a number, one that is there for good included,
// the longer look says whether it matters.
const uint kBlock = 32;
const uint kBlocks = (kKeyDim + kBlock - 1) / kBlock;
const uint kNumMine = kInRegisters ? kKeyDim : 1;
float mine[kNumMine];
bool is_sure = false;  // of all of these

uint least_of(float x, float y) {
  return min(size_of(x), size_of(y));
}

void put_mine() {
  [[unroll]] for (uint i = 0; i < kNumMine; ++i) put_at(i, mine[i]);
}
void take_mine() {
  uint least = kNothing;
  [[unroll]] for (uint i = 0; i < kNumMine; ++i) {
    mine[i] = old_at(i);
    least = min(least, size_of(mine[i]));
  }
  is_sure = least > kLeast;
}

vec2 asked_of_mine() {
  float of_key = 0.0, of_query = 0.0;
  uint least = kNothing;
  [[unroll]] for (uint i = 0; i < kNumMine; ++i) {
    of_key = quick_fused(mine[i], keys[i / 4][i % 4], of_key);
    of_query = quick_fused(mine[i], queries[i / 4][i % 4], of_query);
    least = min(least, least_of(of_key, of_query));
  }
  if (is_sure && keys_doubt >= kLeast && least > kLeast) return vec2(of_key, of_query);
  put_mine();
  return asked();
}

void change_mine(float decay, float change) {
  uint left = 0;  // blocks in which some number may be wrong: nothing is changed there
  bool looks_long = !is_sure || keys_doubt < kLeast || is_tiny(change);
  [[unroll]] for (uint block = 0; block < kBlocks; ++block) {
    float changed[kBlock];
    uint least = kNothing;
    [[unroll]] for (uint k = 0; k < kBlock; ++k) {
      uint i = block * kBlock + k;
      if (i >= kNumMine) break;
      float kept = quick_mul(decay, mine[i]);
      changed[k] = quick_fused(keys[i / 4][i % 4], change, kept);
      least = min(least, least_of(kept, changed[k]));
    }
    bool is_right = !looks_long && least > kLeast;
    if (!is_right) left |= 1u << block;
    [[unroll]] for (uint k = 0; k < kBlock; ++k) {
      uint i = block * kBlock + k;
      if (i >= kNumMine) break;
      mine[i] = is_right ? changed[k] : mine[i];
    }
  }
  if (left == 0) return;
  put_mine();
  for (uint i = 0; i < kKeyDim; i += kAhead) {
    if ((left >> i / kBlock & 1) != 0) change_block(i, decay, change);
  }
  take_mine();
}

// beta * (value - decay * of_key)
float change_for(float value, float of_key, float decay, float beta) {
  if (kSums != kWhole) {
    doubt = kNothing;
    float change = careful_mul(beta, careful_sub(value, careful_mul(decay, of_key)));
    if (doubt >= kLeast) return change;
  }
  float kept = whole_mul(decay, of_key);
  float surprise = whole_add(value, uintBitsToFloat(floatBitsToUint(kept) ^ 0x80000000u));
  return whole_mul(beta, surprise);
}

// key_dot * change + decay * of_query
float result_of(float key_dot, float change, float decay, float of_query) {
  if (kSums != kWhole) {
    doubt = kNothing;
    float result = careful_add(careful_mul(key_dot, change), careful_mul(decay, of_query));
    if (doubt >= kLeast) return result;
  }
  return whole_add(whole_mul(key_dot, change), whole_mul(decay, of_query));
}

// A row's query and key, on their way while the row before is computed.
float next_query[kBrought], next_key[kBrought];
void fetch_keys(uint row, uint key_head) {
  [[unroll]] for (uint k = 0; k < kBrought; ++k) {
    uint i = k * kColumns + gl_LocalInvocationID.x;
    if (i >= kKeyDim) break;
    next_query[k] = State(between).at[query_at(row, key_head) + i];
    next_key[k] = State(between).at[key_at(row, key_head) + i];
  }
}
void put_keys(uint row) {
  uint against = kNothing;
  [[unroll]] for (uint k = 0; k < kBrought; ++k) {
    uint i = k * kColumns + gl_LocalInvocationID.x;
    if (i >= kKeyDim) break;
    query[i] = queries[i / 4][i % 4] = next_query[k];
    key[i] = keys[i / 4][i % 4] = next_key[k];
    against = min(against, min(doubt_of(query[i]), doubt_of(key[i])));
  }
  if (against < kLeast) atomicMin(keys_doubts[row % 2], against);
}

void main() {
  uint of_keys = key_heads & 0xffffu, heads = key_heads >> 16;
  uint head = gl_WorkGroupID.x, key_head = head / (heads / of_keys);
  uint in_head = gl_WorkGroupID.y * kColumns + gl_LocalInvocationID.x;
  bool is_there = in_head < kValueDim;  // others do the last column, and leave it
  in_head = min(in_head, kValueDim - 1);
  uint first = head * kKeyDim * kValueDim + in_head;
  for (uint i = 0; i < kKeyDim; ++i) put_at(i, State(before).at[first + i * kValueDim]);
  if (kInRegisters) take_mine();
  if (gl_LocalInvocationID.x < 2) keys_doubts[gl_LocalInvocationID.x] = kNothing;
  fetch_keys(0, key_head);
  for (uint row = 0; row < rows; ++row) {
    barrier();  // nobody reads the last row's keys
    put_keys(row);
    barrier();
    keys_doubt = keys_doubts[row % 2];
    if (gl_LocalInvocationID.x == 0) keys_doubts[(row + 1) % 2] = kNothing;
    if (row + 1 < rows) fetch_keys(row + 1, key_head);
    uint at = value_at(row, head * kValueDim + in_head);
    float value = is_there ? State(between).at[at] : 0.0;
    float decay = State(between).at[decay_at(row, head)];
    float beta = State(between).at[beta_at(row, head)];
    float key_dot = State(between).at[dot_at(row, key_head)];
    vec2 answer = kInRegisters ? asked_of_mine() : asked();
    float change = change_for(value, answer.x, decay, beta);
    if (kInRegisters) {
      change_mine(decay, change);
    } else {
      for (uint i = 0; i < kKeyDim; i += kAhead) change_block(i, decay, change);
    }
    float result = result_of(key_dot, change, decay, answer.y);
    if (is_there) State(between).at[at] = result;
  }
  if (kInRegisters) put_mine();
  for (uint i = 0; is_there && i < kKeyDim; ++i) {
    State(after).at[first + i * kValueDim] = old_at(i);
  }
}
