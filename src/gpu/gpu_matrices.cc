#include "gpu/gpu_matrices.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "gpu/gpu_buffer.h"
#include "quant/row_panels.h"

namespace penstock {
namespace {

// Of so many panels, each plane from an aligned place on.
struct PlacedPanels {
  RowBytes at, bytes;
  uint64_t end = 0;

  PlacedPanels(const Matrix& matrix, int64_t panels) {
    const RowBytes each = gpu_panel_bytes(matrix);
    const auto count = static_cast<uint64_t>(panels);
    bytes = {count * each.codes, count * each.scales, count * each.biases};
    at.scales = gpu_aligned(bytes.codes);
    at.biases = at.scales + gpu_aligned(bytes.scales);
    end = bytes.biases > 0   ? at.biases + bytes.biases
          : bytes.scales > 0 ? at.scales + bytes.scales
                             : bytes.codes;
  }
};

// As many panels as fit, of those left. Between planes there may be gaps.
int64_t panels_in(const Matrix& matrix, int64_t left, uint64_t bytes) {
  const RowBytes each = gpu_panel_bytes(matrix);
  const uint64_t gaps = each.scales > 0 ? 2 * gpu_aligned(1) : 0;
  const uint64_t fit = bytes > gaps ? (bytes - gaps) / (each.codes + each.scales + each.biases) : 0;
  PENSTOCK_CHECK(fit > 0);
  return std::min(left, static_cast<int64_t>(fit));
}

const std::byte* key_of(const Matrix& matrix) {
  return matrix.is_coded() ? matrix.coded.codes : matrix.panels;
}

}  // namespace

GpuMatrices::Layout::Layout(std::span<const Matrix> matrices, uint64_t block_bytes) {
  for (size_t i = 0; i < matrices.size(); ++i) {
    const Matrix& matrix = matrices[i];
    PENSTOCK_CHECK(has_gpu_product(matrix));
    for (int64_t first = 0; first < matrix.num_panels(); first += spots.back().panels) {
      const int64_t panels = panels_in(matrix, matrix.num_panels() - first, block_bytes);
      const PlacedPanels placed(matrix, panels);
      if (blocks.empty() || gpu_aligned(blocks.back()) + placed.end > block_bytes) {
        blocks.push_back(0);
      }
      const uint64_t offset = gpu_aligned(blocks.back());
      const RowBytes at = {offset, offset + placed.at.scales, offset + placed.at.biases};
      spots.push_back({i, blocks.size() - 1, at, first, panels});
      blocks.back() = offset + placed.end;
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
    const uint64_t start = made.blocks_[spot.block].address();
    made.pieces_.push_back(
        {.planes = {start + spot.at.codes, start + spot.at.scales, start + spot.at.biases},
         .first_row = first_row,
         .rows = std::min(spot.panels * kPanelRows, entry.matrix.rows - first_row)});
  }
  return made;
}

Result<void> GpuMatrices::copy(std::span<const std::byte> bytes, const GpuBuffer& to,
                               uint64_t offset, const GpuBuffer& staging) {
  while (!bytes.empty()) {
    const size_t part = std::min<size_t>(bytes.size(), staging.size());
    std::memcpy(staging.host_bytes().data(), bytes.data(), part);
    GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
    commands.copy(staging, 0, to, offset, part);
    PENSTOCK_TRY(device_->compute().finish(commands));
    bytes = bytes.subspan(part);
    offset += part;
  }
  return {};
}

Result<void> GpuMatrices::copy(const Spot& spot, const GpuBuffer& staging) {
  const Matrix& matrix = matrices_[spot.matrix].matrix;
  const PlacedPanels before(matrix, spot.first_panel), here(matrix, spot.panels);
  for (const CodedPlane plane : kCodedPlanes) {
    const uint64_t bytes = bytes_of(here.bytes, plane);
    if (bytes == 0) continue;
    const std::byte* from = plane == CodedPlane::kCodes    ? key_of(matrix)
                            : plane == CodedPlane::kScales ? matrix.coded.scales
                                                           : matrix.coded.biases;
    PENSTOCK_TRY(copy({from + bytes_of(before.bytes, plane), bytes}, blocks_[spot.block],
                      bytes_of(spot.at, plane), staging));
  }
  return {};
}

Result<void> GpuMatrices::fill(const GpuBuffer& staging) {
  std::vector<bool> is_kept;
  for (const Entry& entry : matrices_) is_kept.push_back(!has_tiny_scales(entry.matrix));
  for (const Spot& spot : spots_) {
    if (is_kept[spot.matrix]) PENSTOCK_TRY(copy(spot, staging));
  }
  for (size_t i = 0; i < matrices_.size(); ++i) {
    if (is_kept[i]) by_panels_[key_of(matrices_[i].matrix)] = i;
  }
  return {};
}

std::span<const GpuPiece> GpuMatrices::find(const Matrix& matrix) const {
  const auto found = by_panels_.find(key_of(matrix));
  if (found == by_panels_.end()) return {};
  const Entry& entry = matrices_[found->second];
  PENSTOCK_CHECK(gpu_coding_of(entry.matrix) == gpu_coding_of(matrix) &&
                 entry.matrix.rows == matrix.rows && entry.matrix.columns == matrix.columns);
  return std::span(pieces_).subspan(entry.first_piece, entry.num_pieces);
}

}  // namespace penstock
