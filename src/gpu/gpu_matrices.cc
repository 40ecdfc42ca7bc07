#include "gpu/gpu_matrices.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "gpu/gpu_buffer.h"
#include "gpu/gpu_products.h"

namespace penstock {
namespace {

uint64_t bytes_of_panels(const Matrix& matrix, int64_t panels) {
  return static_cast<uint64_t>(panel_bytes(matrix.dtype, panels * kPanelRows, matrix.columns));
}

}  // namespace

GpuMatrices::Layout::Layout(std::span<const Matrix> matrices, uint64_t block_bytes) {
  for (size_t i = 0; i < matrices.size(); ++i) {
    const Matrix& matrix = matrices[i];
    PENSTOCK_CHECK(has_gpu_product(matrix.dtype) && !matrix.is_coded());
    const auto panels_max = static_cast<int64_t>(block_bytes / bytes_of_panels(matrix, 1));
    PENSTOCK_CHECK(panels_max > 0);
    for (int64_t first = 0; first < matrix.num_panels(); first += panels_max) {
      const int64_t panels = std::min(panels_max, matrix.num_panels() - first);
      const uint64_t bytes = bytes_of_panels(matrix, panels);
      if (blocks.empty() || gpu_aligned(blocks.back()) + bytes > block_bytes) blocks.push_back(0);
      const uint64_t offset = gpu_aligned(blocks.back());
      spots.push_back({i, blocks.size() - 1, offset, first, panels});
      blocks.back() = offset + bytes;
    }
  }
}

uint64_t GpuMatrices::bytes_for(std::span<const Matrix> matrices) {
  const Layout layout(matrices, kBlockBytes);
  return std::accumulate(layout.blocks.begin(), layout.blocks.end(),
                         layout.blocks.size() * kGpuRounding);
}

Result<GpuMatrices> GpuMatrices::create(GpuDevice& device, std::span<const Matrix> matrices,
                                        uint64_t block_bytes) {
  GpuMatrices made(device);
  Layout layout(matrices, block_bytes);
  for (const uint64_t bytes : layout.blocks) {
    made.blocks_.push_back(
        PENSTOCK_TRY(device.allocate(bytes, GpuMemoryKind::kDevice, "resident matrices")));
  }
  made.spots_ = std::move(layout.spots);
  for (const Matrix& matrix : matrices) made.matrices_.push_back({.matrix = matrix});
  for (const Spot& spot : made.spots_) {
    Entry& entry = made.matrices_[spot.matrix];
    if (entry.num_pieces++ == 0) entry.first_piece = made.pieces_.size();
    const int64_t first_row = spot.first_panel * kPanelRows;
    made.pieces_.push_back(
        {.address = made.blocks_[spot.block].address() + spot.offset,
         .first_row = first_row,
         .rows = std::min(spot.panels * kPanelRows, entry.matrix.rows - first_row)});
  }
  return made;
}

Result<void> GpuMatrices::copy(const Spot& spot, const GpuBuffer& staging) {
  const Matrix& matrix = matrices_[spot.matrix].matrix;
  const std::byte* from = matrix.panels + bytes_of_panels(matrix, spot.first_panel);
  const uint64_t bytes = bytes_of_panels(matrix, spot.panels);
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t part = std::min(bytes - done, staging.size());
    std::memcpy(staging.host_bytes().data(), from + done, part);
    GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
    commands.copy(staging, 0, blocks_[spot.block], spot.offset + done, part);
    PENSTOCK_TRY(device_->compute().finish(commands));
    done += part;
  }
  return {};
}

Result<void> GpuMatrices::fill(const GpuBuffer& staging) {
  for (const Spot& spot : spots_) PENSTOCK_TRY(copy(spot, staging));
  for (size_t i = 0; i < matrices_.size(); ++i) by_panels_[matrices_[i].matrix.panels] = i;
  return {};
}

std::span<const GpuPiece> GpuMatrices::find(const Matrix& matrix) const {
  const auto found = by_panels_.find(matrix.panels);
  if (found == by_panels_.end() || matrix.is_coded()) return {};
  const Entry& entry = matrices_[found->second];
  PENSTOCK_CHECK(entry.matrix.dtype == matrix.dtype && entry.matrix.rows == matrix.rows &&
                 entry.matrix.columns == matrix.columns);
  return std::span(pieces_).subspan(entry.first_piece, entry.num_pieces);
}

}  // namespace penstock
