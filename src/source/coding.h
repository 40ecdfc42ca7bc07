// How stored bytes become weights, and where the bytes of one matrix lie.
//
// A matrix of a foreign file has one to three planes: its codes, and for MLX and FP8 the scales
// (and biases) in a tensor of their own. In each plane rows follow one another with nothing
// between. No plane need be aligned to anything. Nothing here is in memory: these are places in
// files.
//
// Limits  All of it was compared with the files when the source was opened.
#pragma once

#include <cstdint>
#include <string>

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

// "BF16", "Q4_K", "affine 4 bits in 64", "MXFP4", "FP8 E4M3 in 128x128".
std::string name_of(const Coding& coding);

// Columns that are coded together: rows are whole numbers of it.
int64_t group_columns(const Coding& coding);

// A float type that needs no decoding but widening.
bool is_float(const Coding& coding);

struct Plane {
  uint32_t file = 0;       // index into ModelSource::files()
  uint64_t offset = 0;     // of row 0
  uint64_t row_bytes = 0;  // scales of FP8: of 128 rows
};

struct StoredMatrix {
  Coding coding;
  int64_t rows = 0;
  int64_t columns = 0;
  Plane codes = {};
  Plane scales = {};
  Plane biases = {};
};

// Bytes of one row in each plane, as they follow from coding and columns.
struct RowBytes {
  uint64_t codes = 0;
  uint64_t scales = 0;
  uint64_t biases = 0;
};
RowBytes row_bytes(const Coding& coding, int64_t columns);

// Bytes of a whole matrix, all planes together.
uint64_t stored_bytes(const Coding& coding, int64_t rows, int64_t columns);

}  // namespace penstock
