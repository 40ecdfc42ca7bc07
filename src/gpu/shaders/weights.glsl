// How weights lie: in panels of our own types (compute/panel.h) or of a file's coding
// (quant/row_panels.h), sixteen rows beside one another. From here come the codes of a block of 64
// columns of a row, four signed bytes to a word, and the scales and minima of its groups.
//
// Which weights they are is said when a kernel is made (gpu/gpu_coding.h).
layout(constant_id = 0) const uint kKind = 0;
layout(constant_id = 5) const uint kBits = 4;  // of kPanels and kAffine
layout(constant_id = 6) const uint kGroups = 1;  // of equal scale in a block: 1, 2 or 4
layout(constant_id = 7) const bool kHasMinima = true;  // they add `minimum` times the sum of inputs
layout(constant_id = 8) const uint kNumbers = 0;       // planes of scales: bf16, f16, f32
layout(constant_id = 9) const uint kScaleColumns = 64;  // that share one of these

const uint kPanels = 0, kAffine = 1, kQ4_0 = 2, kQ8_0 = 3, kMxfp4 = 4, kMlxMxfp4 = 5, kQ4_K = 6,
           kQ5_K = 7, kQ6_K = 8;

const uint kRows = 16;  // of a panel

// Addresses of the panels of a matrix; of codings that have no such planes only the first.
struct Planes {
  uvec2 codes, scales, biases;
};

// Blocks and words of a unit.
uint unit_blocks() {
  return kKind >= kQ4_K ? 4 : 1;
}
uint unit_words() {
  switch (kKind) {
    case kPanels: return (2 * kBits + 1) * kRows;
    case kAffine: return 2 * kBits * kRows;
    case kQ4_0: return 9 * kRows;
    case kQ8_0: return 17 * kRows;
    case kMxfp4: return 8 * kRows + kRows / 2;
    case kMlxMxfp4: return 8 * kRows;
    case kQ4_K: return 36 * kRows;
    case kQ5_K: return 44 * kRows;
    default: return 52 * kRows + kRows / 2;  // kQ6_K
  }
}

// A block of a row: where it is.
struct BlockPlace {
  Words panels;
  uint start;  // of the unit that it is in: its first word of the row
  uint lane;
  uint index;  // among the blocks of a panel, of all panels
  uint part;   // of the unit
};

BlockPlace block_place(Planes planes, uint row, uint block, uint blocks) {
  uint unit = row / kRows * (blocks / unit_blocks()) + block / unit_blocks();
  return BlockPlace(Words(planes.codes), unit * unit_words() + row % kRows, row % kRows,
                    row / kRows * blocks + block, block % unit_blocks());
}
uint word_of(BlockPlace at, uint w) {
  return at.panels.at[at.start + w * kRows];
}
// The 16 bits of the row behind the `w` words of a unit.
uint half_behind(BlockPlace at, uint w) {
  uint word = at.panels.at[at.start - at.lane + w * kRows + at.lane / 2];
  return (word >> (16 * (at.lane & 1))) & 0xffffu;
}

const uint kTops = 0x80808080u;

// Bytes below 128, all less by `offset`.
uint less(uint codes, uint offset) {
  return ((codes | kTops) - offset * 0x01010101u) ^ kTops;
}

// Twice the values of four codes E2M1: 0 1 2 3 4 6 8 12 and, from 8 on, less than zero.
uint doubled_e2m1(uint codes) {
  uint ones = codes & 0x01010101u, twos = (codes >> 1) & 0x01010101u;
  uint fours = (codes >> 2) & 0x01010101u, less_than_zero = ((codes >> 3) & 0x01010101u) * 0xffu;
  // 5 is 6, 6 is 8 and 7 is 12.
  uint size = (codes & 0x07070707u) + (ones & fours) + ((twos & fours) << 1) +
              ((ones & twos & fours) << 1);
  return ((kTops + (size & ~less_than_zero)) - (size & less_than_zero)) ^ kTops;
}

// Codes whose low 2, 4 or 8 bits lie word by word, kFours in each, and bits above them further on.
void take_planar_codes(BlockPlace at, inout uint codes[16]) {
  const uint low = kBits == 8 ? 8 : kBits >= 4 ? 4 : 2;
  const uint fours = 8 / low;
  const uint mask = low == 8 ? 0xffffffffu : low == 4 ? 0x0f0f0f0fu : 0x03030303u;
  for (uint w = 0; w < 2 * low; ++w) {
    uint word = word_of(at, w);
    for (uint g = 0; g < fours; ++g) codes[fours * w + g] = (word >> (low * g)) & mask;
  }
  if (kBits == 8) {
    for (uint n = 0; n < 16; ++n) codes[n] ^= kTops;  // less 128, to be signed bytes
  }
  if (kBits == low) return;
  // 1 or 2. Constants are computed when a kernel is made, those of code that is never run as well.
  const uint high = kBits > low ? kBits - low : 1;
  const uint high_mask = high == 1 ? 0x01010101u : 0x03030303u;
  const uint fours_of_high = 8 / high;
  for (uint w = 0; w < 2 * high; ++w) {
    uint word = word_of(at, 2 * low + w);
    for (uint n = 0; n < fours_of_high; ++n) {
      // Of q3 the bits of two words lie two by two (compute/panel.h).
      uint shift = kKind == kPanels ? 4 * ((n & 3) >> 1) + 2 * (n >> 2) + (n & 1) : high * n;
      codes[fours_of_high * w + n] |= ((word >> shift) & high_mask) << low;
    }
  }
}

// Two blocks of 32 columns, each with the low nibbles of its words first; MLX's in order.
void take_nibbles(BlockPlace at, inout uint codes[16]) {
  for (uint w = 0; w < 8; ++w) {
    uint word = word_of(at, w);
    uint n = kKind == kMlxMxfp4 ? 2 * w : 8 * (w / 4) + w % 4;
    uint step = kKind == kMlxMxfp4 ? 1 : 4;
    uint low = word & 0x0f0f0f0fu, high = (word >> 4) & 0x0f0f0f0fu;
    codes[n] = kKind == kQ4_0 ? less(low, 8) : doubled_e2m1(low);
    codes[n + step] = kKind == kQ4_0 ? less(high, 8) : doubled_e2m1(high);
  }
}

// Block `part` of a Q4_K or Q5_K.
void take_long_nibbles(BlockPlace at, inout uint codes[16]) {
  for (uint w = 0; w < 8; ++w) {
    uint word = word_of(at, 8 * at.part + w);
    codes[w] = word & 0x0f0f0f0fu;
    codes[8 + w] = (word >> 4) & 0x0f0f0f0fu;
    if (kKind == kQ4_K) continue;
    uint fifth = word_of(at, 32 + w) >> (2 * at.part);
    codes[w] |= (fifth & 0x01010101u) << 4;
    codes[8 + w] |= ((fifth >> 1) & 0x01010101u) << 4;
  }
}
void take_q6_codes(BlockPlace at, inout uint codes[16]) {
  uint side = at.part / 2, shift = 4 * (at.part & 1);
  for (uint w = 0; w < 8; ++w) {
    uint high = word_of(at, 32 + 8 * side + w) >> shift;
    for (uint n = w; n < 16; n += 8, high >>= 2) {
      uint low = (word_of(at, 16 * side + n) >> shift) & 0x0f0f0f0fu;
      codes[n] = less(low | ((high & 0x03030303u) << 4), 32);
    }
  }
}

void take_codes(BlockPlace at, inout uint codes[16]) {
  if (kKind <= kAffine) {
    take_planar_codes(at, codes);
  } else if (kKind == kQ8_0) {
    for (uint n = 0; n < 16; ++n) codes[n] = word_of(at, n) ^ kTops;  // stored 128 more
  } else if (kKind < kQ4_K) {
    take_nibbles(at, codes);
  } else if (kKind == kQ6_K) {
    take_q6_codes(at, codes);
  } else {
    take_long_nibbles(at, codes);
  }
}

// What is to be added to codes so that they are what the scales are of.
const int kCodeOffset = kKind <= kAffine && kBits == 8 ? 128 : 0;

float bfloat_of(uint bits) {
  return uintBitsToFloat(bits << 16);
}

// Number `index` of a plane, of this row.
float number_of(uvec2 plane, uint index, uint lane) {
  uint at = index * kRows + lane;
  if (kNumbers == 2) return Floats(plane).at[at];
  uint bits = (Words(plane).at[at / 2] >> (16 * (at & 1))) & 0xffffu;
  return kNumbers == 1 ? half_of(bits) : bfloat_of(bits);
}

float byte_of(uint word, uint byte) {
  return float(int(bitfieldExtract(word, int(8 * byte), 8)));
}

// d and m, with six bits for each group's share of them.
void take_k_scales(BlockPlace at, inout float scales[4], inout float minima[4]) {
  const uint words = kKind == kQ4_K ? 32 : 40;
  uint both = word_of(at, words + 3);
  float d = half_of(both & 0xffffu), m = half_of((both >> 16) ^ 0x8000u);
  uint s = word_of(at, words), n = word_of(at, words + 1);
  if (at.part < 2) {
    s &= 0x3f3f3f3fu;
    n &= 0x3f3f3f3fu;
  } else {
    uint low = word_of(at, words + 2);
    s = (low & 0x0f0f0f0fu) | ((s >> 2) & 0x30303030u);
    n = ((low >> 4) & 0x0f0f0f0fu) | ((n >> 2) & 0x30303030u);
  }
  for (uint g = 0; g < 2; ++g) {
    scales[g] = mul(d, byte_of(s, 2 * (at.part & 1) + g));
    minima[g] = mul(m, byte_of(n, 2 * (at.part & 1) + g));
  }
}

void take_scales(Planes planes, BlockPlace at, inout float scales[4], inout float minima[4]) {
  if (kKind == kPanels) {
    scales[0] = bfloat_of(half_behind(at, 2 * kBits));
    uint word = at.panels.at[at.start - at.lane + 2 * kBits * kRows + kRows / 2 + at.lane / 2];
    minima[0] = bfloat_of((word >> (16 * (at.lane & 1))) & 0xffffu);
  } else if (kKind == kAffine) {
    for (uint g = 0; g < kGroups; ++g) {
      uint index = (at.index * kBlockColumns + 32 * g) / kScaleColumns;
      scales[g] = number_of(planes.scales, index, at.lane);
      minima[g] = number_of(planes.biases, index, at.lane);
    }
  } else if (kKind == kQ4_0 || kKind == kQ8_0) {
    uint both = word_of(at, kKind == kQ4_0 ? 8 : 16);
    scales[0] = half_of(both & 0xffffu);
    scales[1] = half_of(both >> 16);
  } else if (kKind == kMxfp4) {
    uint both = half_behind(at, 8);
    scales[0] = half_of_e8m0(both & 0xffu);
    scales[1] = half_of_e8m0(both >> 8);
  } else if (kKind == kMlxMxfp4) {
    for (uint g = 0; g < 2; ++g) {
      uint byte = (2 * at.index + g) * kRows + at.lane;
      uint word = Words(planes.scales).at[byte / 4];
      scales[g] = half_of_e8m0(bitfieldExtract(word, int(8 * (byte & 3)), 8));
    }
  } else if (kKind == kQ6_K) {
    float d = half_of(half_behind(at, 52));
    uint word = word_of(at, 48 + at.part);
    for (uint g = 0; g < 4; ++g) {
      scales[g] = mul(d, float(bitfieldExtract(int(word), int(8 * g), 8)));
    }
  } else {
    take_k_scales(at, scales, minima);
  }
}
