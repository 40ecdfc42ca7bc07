// The panel product on one thread: what every matrix op of the CPU backend is made of.
//
// A call multiplies a tile of up to `tile_rows` rows of x with a list of panels. The rows are
// packed first, once for all panels: blocks of 64 columns beside each other, each column times a
// power of two. That factor is what makes decoding cheap. A code is not shifted down to bit 0 but
// only masked out of its word, which gives code * 2^s, and 2^s is taken from x in advance; the
// products are the same numbers, and so is every sum:
//
//   q4, column 3 of a word:  (word & 0xf000) = code * 2^12,  packed x = x * 2^(24 - 12)
//                            their product   = code * x * 2^24,  and scale * 2^-24 removes the rest
//
// (Exact for every x from 2^-126 to 2^95 and every scale of at least 2^-98.) In fixed point, packed
// x are 16-bit numbers in pairs with a scale and a sum per row and block (fixed_product-inl.h).
//
// Threads  functions of their arguments alone
// Source   order of operations: compute/panel.h
#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/cpu/byte_tiles.h"
#include "compute/cpu/fixed_rows.h"
#include "compute/panel.h"

namespace penstock {

struct ProductKernel {
  int tile_rows;       // rows of x that one call takes at most; kTileRowsMax or fewer
  int panels_at_once;  // of a single row: a list of panels is best a multiple of it
  bool needs_sums;     // product() reads `sums`

  // How many rows a tile of `rows` rows has in packed form: the next number that has a kernel.
  int (*padded_rows)(int rows);

  // packed: [blocks, padded, 64] numbers of at most four bytes, 64-byte aligned. Padding rows and
  // missing columns become zeros. A kernel packs either floats or fixed point; the other is nullptr.
  void (*pack)(const float* const* rows, int num_rows, int64_t columns, std::byte* packed);
  void (*pack_fixed)(const FixedRow* rows, int num_rows, int64_t columns, std::byte* packed);

  // totals[panel, row, 16] = the product; sums: [blocks, padded], the sums of the blocks of x.
  // Panels lie anywhere; each has `blocks` blocks.
  // Moves  num_panels * blocks * block_bytes(dtype) bytes of weights
  // Costs  in f32 one fma per weight and row; per weight and call one mask (a third of a shift,
  //        mask and merge more for q3) and one conversion. In fixed point half of the
  //        multiplications and masks and no conversion.
  void (*product)(const std::byte* const* panels, int num_panels, int64_t blocks,
                  const std::byte* packed, const float* sums, int padded, float* totals);
};

inline constexpr int kTileRowsMax = 32;

// What kernels are chosen by, beside the number format and the number of rows.
struct KernelChoice {
  int64_t target;  // a Highway target of this build
  Arithmetic arithmetic;
  ByteTiles byte_tiles = ByteTiles::kNone;  // not kAuto
  bool has_pair_dots = false;               // IntegerUnit::kPairDots
};

// The kernel for `rows` rows of x or, where that is more than it takes, for the first of them.
const ProductKernel& product_kernel(DType dtype, const KernelChoice& choice, int64_t rows);

// One per format, each in its own file. Plain formats know one arithmetic.
const ProductKernel& product_kernel_f32(const KernelChoice& choice);
const ProductKernel& product_kernel_bf16(const KernelChoice& choice);
const ProductKernel& product_kernel_q8(const KernelChoice& choice);
const ProductKernel& product_kernel_q4(const KernelChoice& choice);
const ProductKernel& product_kernel_q3(const KernelChoice& choice);
const ProductKernel& product_kernel_q2(const KernelChoice& choice);

// Of a quantised format in fixed point, by tiles of bytes (byte_tile_product.cc).
const ProductKernel& byte_tile_kernel(DType dtype, int64_t target, ByteTiles byte_tiles);

}  // namespace penstock
