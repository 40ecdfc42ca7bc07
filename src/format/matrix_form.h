// How a matrix lies in a packed model: plain values, panels of a type of our own (compute/panel.h), or
// the codes of the file that it was packed from, as sixteen rows side by side (quant/row_panels.h) or
// as rows.
//
// Codes have one to three planes: codes, and for some codings scales and biases. In a packed model
// they follow one another, each at the first multiple of kPlaneAlignment. Every row has scales of its
// own, also where the file has one for many rows.
//
// Threads  Plain functions and data.
// Limits   place_matrix() refuses what cannot be stored so, and sizes that wrap.
// See also docs/formats.md
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "quant/coding.h"

namespace penstock {

inline constexpr int64_t kStoredWidthMax = int64_t{1} << 31;  // rows and columns of a stored matrix
inline constexpr uint64_t kPlaneAlignment = 64;

enum class MatrixLayout : uint8_t { kPlain, kPanels, kCodedPanels, kCodedRows };

// "plain", "panels", "coded panels", "coded rows".
std::string_view name_of(MatrixLayout layout);
std::optional<MatrixLayout> parse_layout(std::string_view name);

struct MatrixForm {
  MatrixLayout layout = MatrixLayout::kPanels;
  DType dtype = DType::kF32;  // of plain values, which are f32, and of panels
  Coding coding = {};         // of codes

  bool is_plain() const { return layout == MatrixLayout::kPlain; }
  bool is_coded() const {
    return layout == MatrixLayout::kCodedPanels || layout == MatrixLayout::kCodedRows;
  }
  bool operator==(const MatrixForm&) const = default;
};

inline MatrixForm plain_form() {
  return {.layout = MatrixLayout::kPlain};
}
inline MatrixForm panel_form(DType dtype) {
  return {.dtype = dtype};
}
inline MatrixForm coded_form(const Coding& coding, bool in_panels) {
  return {.layout = in_panels ? MatrixLayout::kCodedPanels : MatrixLayout::kCodedRows,
          .coding = coding};
}

std::string name_of(const MatrixForm& form);  // "q4", "Q4_K": as people read it

// Codes of 8, 6, 5, 4, 3 or 2 bits in groups of 64, by their width in digits, as flags give it: panels
// of a type of our own where there is one, else affine codes in panels. Nothing for other widths.
std::optional<MatrixForm> quantised_form(std::string_view bits);

// Where the planes of a stored matrix begin, and what they take; what is not coded has one.
struct PlacedPlanes {
  RowBytes at;     // offsets in the matrix
  RowBytes sizes;  // 0: there is no such plane
  uint64_t bytes = 0;
};
std::optional<PlacedPlanes> place_matrix(const MatrixForm& form, int64_t rows, int64_t columns);

// Bytes of a matrix in panels, or nothing when the numbers make no sense or wrap.
std::optional<uint64_t> stored_panel_bytes(DType dtype, int64_t rows, int64_t columns);

}  // namespace penstock
