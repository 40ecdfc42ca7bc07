// The delta rule of a column of a value head's memory. What may have gone through a subnormal number, as
// small as states like to become, is done once more in place.
//
// Needs: kKeyDim; query[] and key[] of a row; old_at(i) and put_at(i, x), number i of this thread's column before
// the row and after it.

// Numbers of a column that are on their way from memory at a time: a sum takes no time beside that.
const uint kAhead = kSums == kOwn ? 32 : 2;

// The next numbers of this thread's column.
void take_column(uint begin, inout float old[kAhead]) {
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    old[k] = begin + k < kKeyDim ? old_at(begin + k) : 0.0;
  }
}

// What speaks against keys and queries of the row, where their maker has not told.
uint keys_doubt = kNothing;

// What the memory says to key and query. A key, query or sum that is subnormal was doubted when it was made, and
// no gate is (exact_exp: zero, or 1e-38 and more); what comes from memory was not.
vec2 asked_quickly(inout uint against) {
  float of_key = 0.0, of_query = 0.0, old[kAhead];
  for (uint i = 0; i < kKeyDim; i += kAhead) {
    take_column(i, old);
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
vec2 asked() {
  if (kSums != kWhole) {
    uint against = keys_doubt;
    vec2 answer = asked_quickly(against);
    if (against >= kLeast) return answer;
  }
  float of_key = 0.0, of_query = 0.0;
  for (uint i = 0; i < kKeyDim; ++i) {
    float old = old_at(i);
    of_key = whole_fused(old, key[i], of_key);
    of_query = whole_fused(old, query[i], of_query);
  }
  return vec2(of_key, of_query);
}

// The next numbers of the column, changed. False: nothing is written, some may be wrong.
bool changed_quickly(uint begin, float decay, float change) {
  float old[kAhead];
  uint against = min(keys_doubt, doubt_of(change));
  take_column(begin, old);
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    if (begin + k >= kKeyDim) break;
    float kept = quick_mul(decay, old[k]);
    uint of_kept = min(doubt_of(old[k]), doubt_of_product(decay, old[k], kept));
    old[k] = quick_fused(key[begin + k], change, kept);
    against = min(against, min(of_kept, doubt_of_product(key[begin + k], change, old[k])));
  }
  if (against < kLeast) return false;
  [[unroll]] for (uint k = 0; k < kAhead; ++k) {
    if (begin + k < kKeyDim) put_at(begin + k, old[k]);
  }
  return true;
}

void change_block(uint begin, float decay, float change) {
  if (kSums != kWhole && changed_quickly(begin, decay, change)) return;
  for (uint i = begin; i < min(begin + kAhead, kKeyDim); ++i) {
    put_at(i, whole_fused(key[i], change, whole_mul(decay, old_at(i))));
  }
}
