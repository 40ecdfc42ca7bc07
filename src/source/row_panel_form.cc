#include "source/row_panel_form.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace penstock {

bool fit_row_panels(const Coding& coding, int64_t rows, int64_t columns) {
  return rows % kPanelRows == 0 && has_row_panels(coding, columns);
}

RowPanelForm::RowPanelForm(const Coding& coding, CodedPlane plane, int64_t rows, int64_t columns)
    : coding_(coding),
      plane_(plane),
      columns_(columns),
      num_panels_(rows / kPanelRows),
      rows_each_(plane == CodedPlane::kCodes ? 1 : rows_of_scales(coding)),
      row_bytes_(bytes_of(row_bytes(coding, columns), plane)),
      panel_bytes_(bytes_of(row_panel_bytes(coding, columns), plane)) {
  PENSTOCK_CHECK(fit_row_panels(coding, rows, columns));
}

uint64_t RowPanelForm::copy_bytes() const {
  const auto rows = static_cast<uint64_t>(num_panels_ * kPanelRows);
  if (rows_each_ == 1) return kPanelRows * row_bytes_;
  const auto each = static_cast<uint64_t>(rows_each_);
  return (rows + each - 1) / each * row_bytes_;
}

void RowPanelForm::lay_out(std::span<const std::byte> payload, std::span<std::byte> out) const {
  PENSTOCK_CHECK(out.size() == bytes() && payload.data() >= out.data());
  const auto panel_of = [&](int64_t panel) {
    return out.subspan(static_cast<uint64_t>(panel) * panel_bytes_, panel_bytes_);
  };
  std::vector<std::byte> copy;
  if (rows_each_ > 1) {
    copy.assign(payload.begin(), payload.end());
    for (int64_t panel = 0; panel < num_panels_; ++panel) {
      make_row_panel(coding_, plane_, columns_,
                     {.rows = copy.data(),
                      .stride = row_bytes_,
                      .count = kPanelRows,
                      .first = panel * kPanelRows,
                      .rows_each = rows_each_},
                     panel_of(panel));
    }
    return;
  }
  const uint64_t rows_bytes = kPanelRows * row_bytes_;
  PENSTOCK_CHECK(rows_bytes == panel_bytes_ && payload.size() == out.size());
  for (int64_t panel = 0; panel < num_panels_; ++panel) {
    const auto rows = payload.subspan(static_cast<uint64_t>(panel) * rows_bytes, rows_bytes);
    copy.assign(rows.begin(), rows.end());
    make_row_panel(coding_, plane_, columns_,
                   {.rows = copy.data(), .stride = row_bytes_, .count = kPanelRows},
                   panel_of(panel));
  }
}

}  // namespace penstock
