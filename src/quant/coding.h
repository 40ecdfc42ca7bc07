// How rows of a foreign file code weights: any of its ways as one plain value, and a coded matrix in
// memory.
//
// A coded row has one to three planes: its codes, and for MLX and FP8 its scales (and biases), which
// lie elsewhere. In each plane rows follow one another with nothing between, at any address. Rows
// are decoded exactly, each value rounded at most once.
//
// Threads  Plain functions over the caller's bytes; nothing is allocated.
// Source   block_decode.h, affine_groups.h, fp8.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "quant/affine_groups.h"
#include "quant/block_type.h"

namespace penstock {

struct Coding {
  enum class Kind : uint8_t {
    kBlocks,    // one plane of blocks: plain numbers, GGUF types
    kAffine,    // MLX: codes, scales, biases
    kMlxMxfp4,  // MLX: codes, scales
    kFp8,       // codes, scales of squares of 128 by 128
  };
  Kind kind = Kind::kBlocks;
  BlockType block = BlockType::kF32;
  AffineCoding affine = {};
  DType scale = DType::kBF16;  // of FP8

  bool operator==(const Coding&) const = default;
};

// MLX's usual: groups of 64, scales and biases in bf16.
constexpr Coding affine_coding(int bits) {
  return {.kind = Coding::Kind::kAffine, .affine = {.bits = bits}};
}

// "BF16", "Q4_K", "affine 4 bits in 64", "MXFP4", "FP8 E4M3 in 128x128".
std::string name_of(const Coding& coding);

// Columns that are coded together: rows are whole numbers of it.
int64_t group_columns(const Coding& coding);

// A float type that needs no decoding but widening.
bool is_float(const Coding& coding);

// Bytes of one row in each plane, as they follow from coding and columns.
struct RowBytes {
  uint64_t codes = 0;
  uint64_t scales = 0;
  uint64_t biases = 0;
};
RowBytes row_bytes(const Coding& coding, int64_t columns);

// Rows that share one row of scales in a file: 128 of FP8, else 1.
int64_t rows_of_scales(const Coding& coding);

// Bytes of a whole matrix in each plane, and of all planes together.
RowBytes plane_bytes(const Coding& coding, int64_t rows, int64_t columns);
uint64_t stored_bytes(const Coding& coding, int64_t rows, int64_t columns);

// One row of each plane, of exactly row_bytes(); an absent plane is empty.
void decode_row(const Coding& coding, std::span<const std::byte> codes,
                std::span<const std::byte> scales, std::span<const std::byte> biases,
                std::span<float> values);

// Neighbours of `width` columns: those numbered b in normal order are stored at position stored[b].
// Empty: nothing is moved.
struct ColumnOrder {
  int64_t width = 0;
  std::vector<int64_t> stored = {};

  bool is_natural() const { return stored.empty(); }
};

// A row from the stored order to the normal one. As wide as each other, and not the same.
void put_in_order(const ColumnOrder& order, std::span<const float> stored, std::span<float> row);

// A coded matrix in memory; a view.
struct CodedRows {
  Coding coding = {};
  const std::byte* codes = nullptr;
  const std::byte* scales = nullptr;
  const std::byte* biases = nullptr;
  int64_t scale_rows = 1;              // rows that share a row of scales; 0: panels (row_panels.h)
  const ColumnOrder* order = nullptr;  // nullptr: normal; outlives the view

  bool is_there() const { return codes != nullptr; }
};

// One row, in normal order. stored: as many floats, used where the order is another one.
void decode_row(const CodedRows& rows, int64_t row, std::span<float> values,
                std::span<float> stored);

}  // namespace penstock
