// What products are asked for: tiles, each a matrix and some rows that go through it.
struct Tile {
  Planes matrix, up;  // of a matrix that is not gated, up is not read
  uint first, count;  // of the list of rows
  uint up_first_row, unused;
};
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Tiles {
  Tile at[];
};

layout(push_constant) uniform Arguments {
  uvec2 tiles;   // [gl_NumWorkGroups.y]
  uvec2 list;    // pairs of words: a row of x, a row of the result
  uvec2 x;       // packed rows
  uvec2 result;  // f32 [rows, stride]
  uint blocks;   // of a row of x, and of the matrices
  uint rows;     // of the result's that are written
  uint stride;   // of the result, in floats
};
