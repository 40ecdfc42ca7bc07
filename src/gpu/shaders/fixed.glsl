// Rows of activations in 16-bit fixed point (compute/fixed16.h), as pack_rows.comp writes them and
// products read them.
//
// A block of 64 columns is 36 words: 16 of high bytes, 16 of low bytes, both signed, with
// code = 256 high + low; then the scale (f32), the sums of the codes of the first and the second 32
// columns, and the sum of all times the scale (f32). Which column is in which byte follows from how
// the weights lie, whose words have kFours fours of codes each (shaders/weights.glsl), so that these
// come out of a word by one shift and one mask:
//   byte k of word w * kFours + g is column 4 * kFours * w + g + kFours * k.
const uint kBlockColumns = 64;
const uint kFixedWords = 36;
const uint kFixedVectors = kFixedWords / 4;
