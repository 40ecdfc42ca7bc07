// One plane of an expert's matrix, from rows as in a file to coded panels (quant/row_panels.h), in the
// slot that it was read into.
//
// Panels are as large as the rows that they are made of, so each is made where its rows were, by way
// of a copy of sixteen rows. Only scales of FP8 grow, a few kilobytes of them, and are copied whole.
//
// Threads  const
#pragma once

#include "quant/row_panels.h"
#include "store/expert_table.h"

namespace penstock {

// Whether a matrix can be laid out so where it is: its coding has a layout, and it is whole panels.
bool fit_row_panels(const Coding& coding, int64_t rows, int64_t columns);

class RowPanelForm final : public PartForm {
 public:
  // Of a matrix that fits.
  RowPanelForm(const Coding& coding, CodedPlane plane, int64_t rows, int64_t columns);

  uint64_t bytes() const override { return panel_bytes_ * static_cast<uint64_t>(num_panels_); }
  void lay_out(std::span<const std::byte> payload, std::span<std::byte> out) const override;
  uint64_t copy_bytes() const;  // that it takes of the heap meanwhile

 private:
  const Coding coding_;
  const CodedPlane plane_;
  const int64_t columns_;
  const int64_t num_panels_;
  const int64_t rows_each_;     // rows that share a row of the plane in the file
  const uint64_t row_bytes_;    // of a row of the plane in the file
  const uint64_t panel_bytes_;  // of the plane
};

}  // namespace penstock
