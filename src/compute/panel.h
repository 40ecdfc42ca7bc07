// How a weight matrix lies in memory and on disk: panels of 16 rows, made for the vector unit.
//
// A matrix [rows, columns] (out, in) is cut into panels of 16 rows, a panel into blocks of 64
// columns. In a block, the codes of one row sit in one 32-bit lane, so a vector lane *is* a row: a
// kernel runs down the columns, adds code * x[column] into the lane of its row and never sums
// across lanes. Hence the order of every sum follows from the shape alone: the same bits on any
// vector width and without vectors, for any number of threads, and for one token or five
// hundred. A panel is read once, front to back: one stream for the prefetcher.
//
//   matrix = panel[ceil(rows / 16)], panel = block[ceil(columns / 64)]
//   block  = uint32 word[W][16] (little-endian; word[w][r] belongs to row r of the panel), then for
//            quantised types  bf16 scale[16], bf16 bias[16]
//
//   type  W   bits of word[w][r]                                             bytes of a block
//   f32   64  column w                                                        4096
//   bf16  32  column 2w in bits 0-15, 2w+1 in bits 16-31                      2048
//   q8    16  column 4w+j  in bits 8j..8j+7,  j < 4                           1088
//   q4     8  column 8w+j  in bits 4j..4j+3,  j < 8                            576
//   q3     6  w < 4: the two low bits of column 16w+j in bits 2j, 2j+1, j < 16;
//             w >= 4: the high bits of columns 32(w-4)..32(w-4)+31, that of column
//             16v+2i+e in bit 4i + 2(v%2) + e of word[4 + v/2]; v < 4, i < 8, e < 2
//             (one shift and one mask put eight of them beside their low bits)  448
//   q2     4  column 16w+j in bits 2j, 2j+1,  j < 16                           320
//
// Missing rows of the last panel and missing columns of the last block are zeros; quantised
// matrices must have columns % 64 == 0. f16 is not a panel type: it is widened to f32, exactly.
//
// The product of a quantised matrix, for each row and each vector x [columns], with
// Arithmetic::kFixed16 (second edition): x in 16-bit fixed point, one scale per block, the sums of
// a block exact, everything else in f32 with one rounding for each operation as written.
//   m      = max(|x(c)|, 2^-60) of the block
//   q(c)   = x(c) * (32639 * exact_reciprocal(m)), to the nearest even integer; |q(c)| <= 32639
//   s      = m * 0x1.010306p-15                  1 / 32639; NaN where an |x(c)| is not below 2^96
//   total  = 0
//   for each block:  total = total + scale * (float(sum of code(c) * q(c)) * s)
//                    total = total + bias * (float(sum of q(c)) * s)
// Only additions, multiplications, conversions and integers: no fused multiply-add, no division, so
// any device can give the same bits (compute/exact_math.h, compute/fixed16.h). The sums fit into 32
// bits, and a q splits into two bytes for int8 units. With scales and biases that are 0 or at least
// 2^-28 in size, as the quantiser's are, no result is subnormal: a code's sum times s is 0 or at
// least 2^-75, its product with a scale or bias at least 2^-103, and sums of such are multiples
// of 2^-126. An x is off by at most 0.513 m / 32639 (half a step, and what rounding adds): 249
// times less than bf16 rounds the largest x of a block by (docs/decisions.md has its effect on the
// logits).
//
// What an expert computes besides is exact_silu(gate) with up as exact_product(), and the weighted
// sum of the experts of exact_product()s in the router's order (cpu/elementwise.h).
//
// Plain matrices are always in f32, and so are quantised ones with kFloat32; fma has one rounding:
//   total = 0
//   for each block:  a = 0;  for c in 0..63: a = fma(w(c), x(c), a)          w(c): value or code
//                    plain:      total = total + a
//                    quantised:  total = fma(scale, a, total)
//                                total = fma(bias, sum(block), total)
//   sum(block) = x(0) + x(1) + ... + x(63), left to right.
// Where a processor has no fused multiply-add, exact_fma() computes it in f64, slowly.
//
// A matrix may also lie in a file's own coding (quant/coding.h): as coded panels, multiplied as
// compute/coded_panels.h says, or as rows, multiplied as the f32 matrix that they decode to, exactly.
//
// Memory  Nothing here allocates; all functions write into spans of exactly panel_bytes().
// Source  Quantiser: docs/model.md, "Groups" (the affine form of MLX).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/dtype.h"
#include "base/place.h"
#include "quant/coding.h"

namespace penstock {

inline constexpr size_t kGroupLength = kGroupColumns;  // as a span counts

// How quantised matrices are multiplied. Each is the same in every bit on every processor.
enum class Arithmetic { kFixed16, kFloat32 };

constexpr std::string_view name_of(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kFixed16 ? "fixed16" : "float32";
}

// A weight matrix; a view. In panels, 64-byte aligned; or in coded rows, at any address.
struct Matrix {
  DType dtype = DType::kF32;  // of coded rows kF32: what they decode to
  int64_t rows = 0;           // out
  int64_t columns = 0;        // in
  const std::byte* panels = nullptr;
  Place place = {};
  CodedRows coded = {};  // in place of panels

  bool is_coded() const { return coded.is_there(); }
  int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t num_blocks() const { return (columns + kGroupColumns - 1) / kGroupColumns; }
};

constexpr int64_t panel_bytes(DType dtype, int64_t rows, int64_t columns) {
  return (rows + kPanelRows - 1) / kPanelRows * ((columns + kGroupColumns - 1) / kGroupColumns) *
         block_bytes(dtype);
}

// Row-major f32 [rows, columns] -> panels of `dtype` (kF32, kBF16: rounded to nearest even; the
// quantised types: quantised, columns % 64 == 0). out.size() == panel_bytes(dtype, rows, columns).
void make_panels(DType dtype, std::span<const float> values, int64_t rows, int64_t columns,
                 std::span<std::byte> out);

// One row of a matrix in panels in f32: scale * code + bias (one fma), or the plain value.
// out: [columns].
void panel_row(const Matrix& matrix, int64_t row, std::span<float> out);

// The panels [first, first + count) of a matrix in coded rows as panels of f32, what make_panels()
// makes of the decoded rows. out: panel_bytes() of these. scratch: decode_scratch() floats.
void decode_panels(const Matrix& matrix, int64_t first, int64_t count, std::span<std::byte> out,
                   std::span<float> scratch);
constexpr int64_t decode_scratch(int64_t columns) {
  return (kPanelRows + 1) * columns;
}

// The quantiser for one group: codes of 64 values, with the scale and bias as stored.
struct AffineGroup {
  uint16_t scale;  // bf16
  uint16_t bias;   // bf16
  uint8_t codes[kGroupColumns];
};
AffineGroup quantise_group(std::span<const float, kGroupColumns> values, int bits);

// What is stored of one row of one block of a quantised matrix.
AffineGroup panel_group(const Matrix& matrix, int64_t row, int64_t block);

}  // namespace penstock
