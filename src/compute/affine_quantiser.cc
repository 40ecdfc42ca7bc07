#include "compute/affine_quantiser.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace penstock {
namespace {

// Of group `index` of a row of the plane.
void put_group(const AffineCoding& affine, CodedPlane plane, const AffineGroup& group,
               int64_t index, std::span<std::byte> row) {
  if (plane == CodedPlane::kCodes) {
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      put_affine_code(row, affine.bits, index * kGroupColumns + c, group.codes[c]);
    }
    return;
  }
  const uint16_t number = plane == CodedPlane::kScales ? group.scale : group.bias;
  std::memcpy(row.data() + static_cast<size_t>(index) * sizeof(number), &number, sizeof(number));
}

}  // namespace

void quantise_affine_panels(const Coding& coding, CodedPlane plane, Quantiser quantiser,
                            std::span<const float> values, int64_t rows, int64_t columns,
                            std::span<std::byte> out) {
  PENSTOCK_CHECK(coding == affine_coding(coding.affine.bits) && columns % kGroupColumns == 0);
  PENSTOCK_CHECK(rows >= 0 && std::ssize(values) == rows * columns);
  const uint64_t panel = bytes_of(row_panel_bytes(coding, columns), plane);
  PENSTOCK_CHECK(out.size() == static_cast<uint64_t>((rows + kPanelRows - 1) / kPanelRows) * panel);
  const size_t stride = bytes_of(row_bytes(coding, columns), plane);
  std::vector<std::byte> coded(static_cast<size_t>(kPanelRows) * stride);
  for (int64_t first = 0; first < rows; first += kPanelRows, out = out.subspan(panel)) {
    const int64_t count = std::min(kPanelRows, rows - first);
    std::ranges::fill(coded, std::byte{0});
    for (int64_t r = 0; r < count; ++r) {
      const auto row = std::span(coded).subspan(static_cast<size_t>(r) * stride, stride);
      for (int64_t g = 0; g < columns / kGroupColumns; ++g) {
        const auto at = static_cast<size_t>((first + r) * columns + g * kGroupColumns);
        const auto group = values.subspan(at).first<kGroupColumns>();
        put_group(coding.affine, plane,
                  quantiser == Quantiser::kSearch ? search_group(group, coding.affine.bits)
                                                  : quantise_group(group, coding.affine.bits),
                  g, row);
      }
    }
    make_row_panel(coding, plane, columns, {.rows = coded.data(), .stride = stride, .count = count},
                   out.first(panel));
  }
}

}  // namespace penstock
