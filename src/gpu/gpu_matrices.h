// Matrices with a copy in a device's memory, for as long as the model lives: which of the host's, and
// where. They are known by the address of their panels.
//
//   auto matrices = PENSTOCK_TRY(GpuMatrices::create(device, chosen));  // memory is taken
//   PENSTOCK_TRY(matrices.fill(staging));                               // when the host's are loaded
//   for (const GpuPiece& piece : matrices.find(weight)) ...             // none: it has no copy
//
// Panels lie there as they do here (compute/panel.h, quant/row_panels.h). A matrix is in one piece
// unless it is larger than a block of memory may be. One whose scales a device could lose
// (has_tiny_scales) gets no copy.
//
// Threads  as GpuDevice
// Memory   bytes_for(): all of it taken in create(), in blocks of at most kGpuBlockMax
// Errors   create(): kOutOfMemory, kIo. fill(): kIo when the device is lost
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "compute/panel.h"
#include "gpu/gpu_coding.h"
#include "gpu/gpu_device.h"

namespace penstock {

// Rows of a matrix: whole panels, the last one as the matrix ends.
struct GpuPiece {
  GpuPlanes planes;
  int64_t first_row = 0, rows = 0;
};

class GpuMatrices {
 public:
  // Of the device's memory. matrices: has_gpu_product().
  static uint64_t bytes_for(std::span<const Matrix> matrices);
  // block_bytes: the largest block; at most kGpuBlockMax.
  static Result<GpuMatrices> create(GpuDevice& device, std::span<const Matrix> matrices,
                                    uint64_t block_bytes = kBlockBytes);

  // Copies the host's panels, by way of `staging`, which both can reach.
  Result<void> fill(const GpuBuffer& staging);

  // Empty before fill() has succeeded.
  std::span<const GpuPiece> find(const Matrix& matrix) const;

  // That lie there: after fill() all but those with scales that a device could lose.
  int64_t num_filled() const { return std::ssize(by_panels_); }

 private:
  static constexpr uint64_t kBlockBytes = kGpuBlockMax - kGpuRounding;

  // Where each piece lies, in the order of the matrices.
  struct Spot {
    size_t matrix = 0, block = 0;
    RowBytes at;  // of its planes in the block
    int64_t first_panel = 0, panels = 0;
  };
  struct Layout {
    std::vector<uint64_t> blocks;  // bytes
    std::vector<Spot> spots;
    Layout(std::span<const Matrix> matrices, uint64_t block_bytes);
  };
  struct Entry {
    Matrix matrix;
    size_t first_piece = 0, num_pieces = 0;
  };

  explicit GpuMatrices(GpuDevice& device) : device_(&device) {}
  Result<void> copy(const Spot& spot, const GpuBuffer& staging);
  Result<void> copy(std::span<const std::byte> bytes, const GpuBuffer& to, uint64_t offset,
                    const GpuBuffer& staging);

  GpuDevice* device_;
  std::vector<GpuBuffer> blocks_;
  std::vector<Spot> spots_;
  std::vector<GpuPiece> pieces_;
  std::vector<Entry> matrices_;
  std::unordered_map<const std::byte*, size_t> by_panels_;  // or codes
};

}  // namespace penstock
