#include "format/matrix_form.h"

#include <array>

#include "base/byte_cursor.h"
#include "quant/block_decode.h"
#include "quant/row_panels.h"

namespace penstock {
namespace {

constexpr std::array<std::string_view, 4> kLayoutNames = {"plain", "panels", "coded panels",
                                                          "coded rows"};

bool are_sizes(int64_t rows, int64_t columns) {
  return rows >= 1 && columns >= 1 && rows <= kStoredWidthMax && columns <= kStoredWidthMax;
}

bool can_be_coded(const MatrixForm& form, int64_t columns) {
  const Coding& coding = form.coding;
  if (coding.kind == Coding::Kind::kBlocks && !is_decodable(coding.block)) return false;
  if (columns % group_columns(coding) != 0) return false;
  return form.layout == MatrixLayout::kCodedRows || has_row_panels(coding, columns);
}

// The next plane behind `placed`, of `count` pieces.
bool add_plane(uint64_t count, uint64_t piece_bytes, uint64_t& at, uint64_t& size,
               PlacedPlanes& placed) {
  const std::optional<uint64_t> bytes = checked_multiply(count, piece_bytes);
  if (!bytes) return false;
  const std::optional<uint64_t> end = checked_add(placed.bytes, *bytes);
  if (!end || *end > static_cast<uint64_t>(INT64_MAX)) return false;
  at = placed.bytes;
  size = *bytes;
  placed.bytes = (*end + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
  return true;
}

std::optional<PlacedPlanes> place_coded(const MatrixForm& form, int64_t rows, int64_t columns) {
  if (!can_be_coded(form, columns)) return std::nullopt;
  const bool in_panels = form.layout == MatrixLayout::kCodedPanels;
  const auto count = static_cast<uint64_t>(in_panels ? (rows + kPanelRows - 1) / kPanelRows : rows);
  const RowBytes piece =
      in_panels ? row_panel_bytes(form.coding, columns) : row_bytes(form.coding, columns);
  PlacedPlanes placed;
  const bool fits = add_plane(count, piece.codes, placed.at.codes, placed.sizes.codes, placed) &&
                    add_plane(count, piece.scales, placed.at.scales, placed.sizes.scales, placed) &&
                    add_plane(count, piece.biases, placed.at.biases, placed.sizes.biases, placed);
  return fits ? std::optional(placed) : std::nullopt;
}

}  // namespace

std::string_view name_of(MatrixLayout layout) {
  return kLayoutNames[static_cast<size_t>(layout)];
}

std::optional<MatrixLayout> parse_layout(std::string_view name) {
  for (size_t i = 0; i < kLayoutNames.size(); ++i) {
    if (kLayoutNames[i] == name) return static_cast<MatrixLayout>(i);
  }
  return std::nullopt;
}

std::string name_of(const MatrixForm& form) {
  return form.is_coded() ? name_of(form.coding) : std::string(name_of(form.dtype));
}

std::optional<MatrixForm> quantised_form(std::string_view bits) {
  if (const std::optional<DType> dtype = quantised_dtype(bits)) return panel_form(*dtype);
  for (const int wide : {5, 6}) {
    if (bits == std::to_string(wide)) return coded_form(affine_coding(wide), true);
  }
  return std::nullopt;
}

std::optional<uint64_t> stored_panel_bytes(DType dtype, int64_t rows, int64_t columns) {
  if (!are_sizes(rows, columns)) return std::nullopt;
  if (!traits_of(dtype).has_panels) return std::nullopt;
  if (is_quantised(dtype) && columns % kGroupColumns != 0) return std::nullopt;
  const auto panels = static_cast<uint64_t>((rows + kPanelRows - 1) / kPanelRows);
  const auto blocks = static_cast<uint64_t>((columns + kGroupColumns - 1) / kGroupColumns);
  return checked_multiply(panels * blocks, static_cast<uint64_t>(block_bytes(dtype)));
}

std::optional<PlacedPlanes> place_matrix(const MatrixForm& form, int64_t rows, int64_t columns) {
  if (!are_sizes(rows, columns)) return std::nullopt;
  if (form.is_coded()) return place_coded(form, rows, columns);
  std::optional<uint64_t> bytes;
  if (!form.is_plain()) {
    bytes = stored_panel_bytes(form.dtype, rows, columns);
  } else if (form.dtype == DType::kF32) {
    bytes = checked_multiply(static_cast<uint64_t>(rows) * sizeof(float),
                             static_cast<uint64_t>(columns));
  }
  if (!bytes) return std::nullopt;
  return PlacedPlanes{.at = {}, .sizes = {.codes = *bytes}, .bytes = *bytes};
}

}  // namespace penstock
