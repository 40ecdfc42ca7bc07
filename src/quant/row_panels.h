// Coded rows side by side: sixteen rows of a file as the kernels read them.
//
// A row in a file is codes and scales one after the other; a vector lane is to be a row
// (compute/panel.h). So sixteen rows are cut into units of 64 or 256 columns, and of each unit the
// 32-bit words of the sixteen rows lie beside one another. Only places change, never a bit of what
// a word means, and nothing is added: the panels of whole units and whole panels are exactly as
// large as the rows were, and the rows can be had back.
//
//   plane of a panel = unit[columns / unit columns]
//   unit  = uint32 word[W][16], then where it has one  uint16 half[16]
//
// Codes of GGUF blocks, u the unit's columns, numbered words of a row:
//   Q4_0 IQ4_NL  64  0-3, 4-7: q of the first, second block of 32;  8: d, d
//   Q4_1         64  0-7: q;  8: d, d;  9: m, m
//   Q5_0         64  0-7: low;  8, 9: high;  10: d, d
//   Q5_1         64  0-7: low;  8, 9: high;  10: d, d;  11: m, m
//   Q8_0         64  0-15: q, top bits turned: unsigned, 128 more;  16: d, d
//   MXFP4        64  0-7: q;  half: e, e
//   Q2_K        256  0-15: q;  16-19: scales;  20: d, m
//   Q3_K        256  0-15: low;  16-23: high;  24-26: scales;  half: d
//   Q4_K        256  0-31: q;  32-34: scales;  35: d, m
//   Q5_K        256  0-31: low;  32-39: high;  40-42: scales;  43: d, m
//   Q6_K        256  0-31: low;  32-47: high;  48-51: scales;  half: d
//   IQ4_XS      256  0-31: q;  32: scales_low;  33: d, scales_high
//   TQ2_0       256  0-15: q;  half: d
//   IQ2_XXS     256  0-15: q;  half: d
//   IQ2_XS      256  0-15: q;  16, 17: scales;  half: d
//   IQ2_S       256  0-7: q;  8-15: signs;  16, 17: high;  18, 19: scales;  half: d
//   IQ3_XXS     256  0-15: q;  16-23: tail;  half: d
//   IQ3_S       256  0-15: q;  16, 17: high;  18-25: signs;  26: scales;  half: d
// (the names of quant/*_blocks.h; of two in a word the first is in the low bits). Codes of the other
// codings have units of 64 columns: the words of MLX's rows, those of FP8's. Planes of scales and
// biases have for each group of columns the sixteen rows' numbers; of FP8 every row has its own
// there, also where the file has one for 128.
//
// Threads  Plain functions; nothing is allocated.
// Source   legacy_blocks.h, k_blocks.h, codebook_blocks.h, grid_blocks.h, affine_groups.h, fp8.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "quant/coding.h"

namespace penstock {

// Whether rows of so many columns can be laid out so: the coding has a layout, and they are whole
// units.
bool has_row_panels(const Coding& coding, int64_t columns);

// Columns of a unit of the codes; of a coding that has a layout.
int64_t unit_columns(const Coding& coding);

enum class CodedPlane : uint8_t { kCodes, kScales, kBiases };
inline constexpr CodedPlane kCodedPlanes[] = {CodedPlane::kCodes, CodedPlane::kScales,
                                              CodedPlane::kBiases};
constexpr uint64_t bytes_of(const RowBytes& bytes, CodedPlane plane) {
  if (plane == CodedPlane::kCodes) return bytes.codes;
  return plane == CodedPlane::kScales ? bytes.scales : bytes.biases;
}

// Bytes of one panel in each plane.
RowBytes row_panel_bytes(const Coding& coding, int64_t columns);

// One plane of up to sixteen rows: row r begins at rows + r / rows_each * stride. Lanes without a
// row become zeros. panel: as many bytes as row_panel_bytes() says for the plane.
struct PlaneRows {
  const std::byte* rows = nullptr;
  uint64_t stride = 0;
  int64_t count = 0;
  int64_t first = 0, rows_each = 1;  // row r is that of (first + r) / rows_each

  const std::byte* of(int64_t row) const {
    return rows + static_cast<uint64_t>((first + row) / rows_each) * stride;
  }
};
void make_row_panel(const Coding& coding, CodedPlane plane, int64_t columns, const PlaneRows& rows,
                    std::span<std::byte> panel);

// One row of a plane as the file has it, from the panel that it is lane `lane` of.
void row_of_panel(const Coding& coding, CodedPlane plane, int64_t columns, const std::byte* panel,
                  int lane, std::span<std::byte> row);

inline bool is_in_panels(const CodedRows& rows) {
  return rows.scale_rows == 0;
}

// A row of a matrix in panels, decoded, in the stored order of its columns.
void decode_panel_row(const CodedRows& rows, int64_t row, std::span<float> values);

}  // namespace penstock
