// Rows of activations in 16-bit fixed point (compute/fixed16.h), as pack_rows.comp writes them and
// products read them.
//
// A block of 64 columns is 36 words: 16 of high bytes, 16 of low bytes, both signed, with
// code = 256 high + low; then the scale, the sum of the codes times the scale, both f32, the sum of
// the codes, and a word that is not used. Which column is in which byte follows from the type of the
// weights (kGroups), so that their codes come out of a word by one shift and one mask:
//   byte k of word w * kGroups + g is column 4 * kGroups * w + g + kGroups * k.
const uint kBlockColumns = 64;
const uint kFixedWords = 36;
const uint kFixedVectors = kFixedWords / 4;

// Codes of one weight type that lie in one byte of its words: 1 (q8), 2 (q4), 4 (q3, q2).
layout(constant_id = 0) const uint kBits = 4;
uint groups_of_bits() {
  return kBits == 8 ? 1 : kBits == 4 ? 2 : 4;
}
