// Parts of the delta-net op that each row has for itself: convolution, keys, gates, gated norm, with the sums of
// cpu/delta_net_kernels.cc in their order. A group of threads does a value head, a thread each of its columns.
//
// Needs: kKeyDim, kValueDim, kTaps, constants; of the arguments qkv, b, a, weights, before, lost, key_heads,
// strides, eps, query_scale, width_reciprocal (delta_net.comp says what they are).

const uint kChains = 64;  // of a sum of products
const uint kHistory = kTaps - 1;

shared float query[kKeyDim], key[kKeyDim], column[kValueDim];
shared float chains[2][kChains];
shared uint lost_here;

uint channels() {
  return 2 * (key_heads & 0xffffu) * kKeyDim + (key_heads >> 16) * kValueDim;
}

// Input `channel` of a row; rows before the first are the history's.
float input_of(uint channel, int row) {
  if (row >= 0) return Floats(qkv).at[uint(row) * channels() + channel];
  return State(before).at[uint(int(kHistory) + row) * channels() + channel];
}

float careful_silu(float x) {
  return careful_mul(x, exact_sigmoid(x));
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

// What a value head forgets with a row, and how much it takes in.
float decay_of(uint head, uint row) {
  uint heads = key_heads >> 16, constants = channels() * kTaps;
  float from_a = Floats(a).at[row * (strides & 0xffffu) + head];
  float decay = Floats(weights).at[constants + head];
  float bias = Floats(weights).at[constants + heads + head];
  return exact_exp(mul(decay, exact_softplus(add(from_a, bias))));
}
float beta_of(uint head, uint row) {
  return exact_sigmoid(Floats(b).at[row * (strides & 0xffffu) + head]);
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

// Whether any thread has lost a number, for the kernel of whole numbers.
void tell_lost(uint at) {
  if (gl_LocalInvocationID.x == 0) lost_here = 0;
  barrier();
  if (doubt < kLeast) atomicOr(lost_here, 1u);
  barrier();
  if (gl_LocalInvocationID.x == 0) WordsOut(lost).at[at] = lost_here;
}
