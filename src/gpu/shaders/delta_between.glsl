// What the steps of a delta-net op of many rows hand on, a record for each row: query and key of each key
// head, what these say to each other, gates of each value head, and its values, in whose place the delta rule
// leaves its own.
//
// Needs: kKeyDim, kValueDim, constants; key_heads, an argument.

uint between_stride() {
  uint of_keys = key_heads & 0xffffu, heads = key_heads >> 16;
  return of_keys * (2 * kKeyDim + 1) + heads * (2 + kValueDim);
}
uint query_at(uint row, uint key_head) {
  return row * between_stride() + key_head * kKeyDim;
}
uint key_at(uint row, uint key_head) {
  return query_at(row, key_head) + (key_heads & 0xffffu) * kKeyDim;
}
uint dot_at(uint row, uint key_head) {
  return row * between_stride() + 2 * (key_heads & 0xffffu) * kKeyDim + key_head;
}
uint decay_at(uint row, uint head) {
  return row * between_stride() + (key_heads & 0xffffu) * (2 * kKeyDim + 1) + head;
}
uint beta_at(uint row, uint head) {
  return decay_at(row, head) + (key_heads >> 16);
}
uint value_at(uint row, uint in_heads) {
  return decay_at(row, 2 * (key_heads >> 16)) + in_heads;
}
