// Some rows of x in packed form, multiplied by lists of panels: the working set of one thread.
//
// The rows stay packed from one task to the next of the same op, as decoding multiplies one row by
// hundreds of lists.
//
// Threads  each tile belongs to one thread at a time
// Memory   all of it from the scratch handed over
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "compute/cpu/coded_kernel.h"
#include "compute/cpu/elementwise.h"
#include "compute/cpu/product.h"
#include "compute/cpu/product_cut.h"
#include "compute/cpu/scratch.h"

namespace penstock {

// Of packed rows in a block, with their scales and sums: kernels of up to twelve rows hold four
// bytes a number, those of more two.
inline constexpr int64_t kPackedBlockFloats = kTileRowsMax * kGroupColumns / 2 + kTileRowsMax * 2;
static_assert(kPackedBlockFloats >= 12 * kGroupColumns + 12 * 2);

class ProductTile {
 public:
  ProductTile() = default;
  // moved: decode_scratch() floats of the widest coded matrix, where such have columns in another
  // order.
  ProductTile(float* memory, int64_t max_blocks, float* moved, const KernelChoice& choice)
      : packed_(memory),
        packed_sums_(packed_ + max_blocks * kPackedBlockFloats),
        totals_(packed_sums_ + ceil_div(max_blocks * kTileRowsMax, 16) * 16),
        gate_totals_(totals_ + kTotals),
        moved_(moved),
        to_fixed_(to_fixed_kernel(choice.target)),
        choice_(choice) {}

  static int64_t floats(int64_t max_blocks) {
    return max_blocks * kPackedBlockFloats + ceil_div(max_blocks * kTileRowsMax, 16) * 16 +
           2 * kTotals;
  }

  // row_at(r): the r-th row of x, r < num_rows; fixed_at(r): the same in fixed point, or without
  // that only the sums of its blocks. Calls whose x is the same have the same number `op`.
  template <class RowAt, class FixedAt>
  void set_rows(uint64_t op, int num_rows, const RowAt& row_at, const FixedAt& fixed_at) {
    bool is_same = op == op_ && num_rows == num_rows_;
    for (int r = 0; r < num_rows; ++r) {
      const float* row = row_at(r);
      is_same = is_same && rows_[static_cast<size_t>(r)] == row;
      rows_[static_cast<size_t>(r)] = row;
      fixed_[static_cast<size_t>(r)] = fixed_at(r);
    }
    op_ = op;
    num_rows_ = num_rows;
    if (!is_same) packed_for_ = nullptr;
  }

  // Totals of panels [first, first + count), for store(); beyond the last panel of the matrix that
  // one is repeated. The gate's are kept beside them, and may have another type.
  void multiply(const Matrix& matrix, int64_t first, int64_t count) {
    multiply(matrix, first, count, totals_);
    totals_padded_ = padded_;
  }
  void multiply_gate(const Matrix& matrix, int64_t first, int64_t count) {
    multiply(matrix, first, count, gate_totals_);
    gate_padded_ = padded_;
  }

  // out[0, width) of row r, with width at most count * 16
  void store(int r, int64_t width, const float* bias, float* out) const {
    for (int64_t start = 0; start < width; start += kPanelRows) {
      const float* totals = row_of(totals_, totals_padded_, start / kPanelRows, r);
      const int64_t lanes = std::min(kPanelRows, width - start);
      for (int64_t i = 0; i < lanes; ++i) {
        out[start + i] = bias == nullptr ? totals[i] : totals[i] + bias[start + i];
      }
    }
  }

  // The same with out = silu(gate) .* up; the up rows begin `shift` lanes into their first panel.
  void store_gated(int r, int64_t width, int64_t shift, const ElementwiseKernels& elementwise,
                   float* out) const {
    std::array<float, kTaskPanels * kPanelRows> gate;
    std::array<float, (kTaskPanels + 1) * kPanelRows> up;
    for (int64_t start = 0; start < width; start += kPanelRows) {
      std::copy_n(row_of(gate_totals_, gate_padded_, start / kPanelRows, r), kPanelRows,
                  gate.data() + start);
    }
    for (int64_t start = 0; start < width + shift; start += kPanelRows) {
      std::copy_n(row_of(totals_, totals_padded_, start / kPanelRows, r), kPanelRows,
                  up.data() + start);
    }
    elementwise.silu_multiply(gate.data(), up.data() + shift, width, out);
  }

 private:
  static constexpr int64_t kTotals = (kTaskPanels + 1) * kTileRowsMax * kPanelRows;

  // totals: [count, padded, 16]
  void multiply(const Matrix& matrix, int64_t first, int64_t count, float* totals) {
    if (matrix.is_coded()) return multiply_coded(matrix, first, count, totals);
    const ProductKernel& kernel = product_kernel(matrix.dtype, choice_, num_rows_);
    pack(matrix, kernel);
    const int64_t panel_size = matrix.num_blocks() * block_bytes(matrix.dtype);
    std::array<const std::byte*, kTaskPanels + 1> panels;
    for (int64_t p = 0; p < count; ++p) {
      panels[static_cast<size_t>(p)] =
          matrix.panels + std::min(first + p, matrix.num_panels() - 1) * panel_size;
    }
    kernel.product(panels.data(), static_cast<int>(count), matrix.num_blocks(), packed_place(),
                   packed_sums_, padded_, totals);
  }

  void multiply_coded(const Matrix& matrix, int64_t first, int64_t count, float* totals) {
    const CodedKernel& kernel = *coded_kernel(matrix.coded.coding, choice_);
    pack_coded(matrix, kernel);
    const RowBytes bytes = row_panel_bytes(matrix.coded.coding, matrix.columns);
    std::array<CodedPanel, kTaskPanels + 1> panels;
    for (int64_t p = 0; p < count; ++p) {
      const auto index = static_cast<uint64_t>(std::min(first + p, matrix.num_panels() - 1));
      panels[static_cast<size_t>(p)] = {.codes = matrix.coded.codes + index * bytes.codes,
                                        .scales = matrix.coded.scales + index * bytes.scales,
                                        .biases = matrix.coded.biases + index * bytes.biases};
    }
    kernel.product(panels.data(), static_cast<int>(count), matrix.coded.coding, matrix.num_blocks(),
                   packed_place(), padded_, totals);
  }

  // The rows with their columns as the matrix has them stored, in fixed point.
  void move_columns(const ColumnOrder& order, int64_t columns) {
    const int64_t blocks = columns / kGroupColumns;
    float* place = moved_ + columns;
    for (int r = 0; r < num_rows_; ++r) {
      const float* row = rows_[static_cast<size_t>(r)];
      for (size_t b = 0; b < order.stored.size(); ++b) {
        std::copy_n(row + static_cast<int64_t>(b) * order.width, order.width,
                    moved_ + order.stored[b] * order.width);
      }
      auto* numbers = reinterpret_cast<int16_t*>(place);
      float* scales = place + columns / 2;
      to_fixed_(moved_, blocks, numbers, scales, scales + blocks);
      moved_rows_[static_cast<size_t>(r)] = {numbers, scales, scales + blocks};
      place = scales + 2 * blocks;
    }
  }

  void pack_coded(const Matrix& matrix, const CodedKernel& kernel) {
    const ColumnOrder* order = matrix.coded.order;
    if (packed_for_ == &kernel && packed_order_ == order) return;
    packed_for_ = &kernel;
    packed_order_ = order;
    padded_ = kernel.padded_rows(num_rows_);
    if (kernel.pack_fixed == nullptr) {
      PENSTOCK_CHECK(order == nullptr);
      kernel.pack(rows_.data(), num_rows_, matrix.columns, packed_place());
      return;
    }
    if (order != nullptr) move_columns(*order, matrix.columns);
    const auto& rows = order != nullptr ? moved_rows_ : fixed_;
    kernel.pack_fixed(rows.data(), num_rows_, matrix.columns, packed_place());
  }

  void pack(const Matrix& matrix, const ProductKernel& kernel) {
    if (packed_for_ == &kernel) return;
    packed_for_ = &kernel;
    padded_ = kernel.padded_rows(num_rows_);
    if (kernel.pack_fixed != nullptr) {
      kernel.pack_fixed(fixed_.data(), num_rows_, matrix.columns, packed_place());
      return;
    }
    kernel.pack(rows_.data(), num_rows_, matrix.columns, packed_place());
    if (!kernel.needs_sums) return;
    for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
      float* place = packed_sums_ + block * padded_;
      for (int r = 0; r < num_rows_; ++r) place[r] = fixed_[static_cast<size_t>(r)].sums[block];
      std::fill(place + num_rows_, place + padded_, 0.0f);
    }
  }

  std::byte* packed_place() { return reinterpret_cast<std::byte*>(packed_); }

  static const float* row_of(const float* totals, int padded, int64_t panel, int r) {
    return totals + (panel * padded + r) * kPanelRows;
  }

  float* packed_ = nullptr;       // [blocks, padded, 64]
  float* packed_sums_ = nullptr;  // [blocks, padded]
  float* totals_ = nullptr;       // [panels, padded, 16]
  float* gate_totals_ = nullptr;
  float* moved_ = nullptr;
  ToFixedKernel to_fixed_ = nullptr;
  KernelChoice choice_ = {};
  std::array<const float*, kTileRowsMax> rows_ = {};
  std::array<FixedRow, kTileRowsMax> fixed_ = {}, moved_rows_ = {};
  uint64_t op_ = 0;
  int num_rows_ = 0;
  int padded_ = 0;  // of what is packed
  int totals_padded_ = 0, gate_padded_ = 0;
  const void* packed_for_ = nullptr;  // the kernel
  const ColumnOrder* packed_order_ = nullptr;
};

}  // namespace penstock
