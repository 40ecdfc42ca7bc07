#include "compute/cpu/products.h"

#include <array>

#include "base/check.h"

namespace penstock {
namespace {

constexpr int64_t kProjectionsMax = 16;  // of one matmul
constexpr int64_t kTaskPanels = 16;      // at most
constexpr int64_t kTaskRows = 96;        // at most
constexpr int kTileRows = 12;            // at most
constexpr int64_t kParallelSums = 64 << 10;

// The sums of eight blocks run side by side, as each is a chain of dependent additions. Sums of a
// block that is not whole are needed by no format.
void sum_blocks(const float* x, int64_t blocks, float* sums) {
  int64_t block = 0;
  for (; block + 8 <= blocks; block += 8) {
    std::array<float, 8> chains = {};
    const float* start = x + block * kGroupColumns;
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      for (size_t i = 0; i < 8; ++i) {
        chains[i] = chains[i] + start[static_cast<int64_t>(i) * kGroupColumns + c];
      }
    }
    std::copy(chains.begin(), chains.end(), sums + block);
  }
  for (; block < blocks; ++block) {
    sums[block] = 0;
    for (int64_t c = 0; c < kGroupColumns; ++c) {
      sums[block] = sums[block] + x[block * kGroupColumns + c];
    }
  }
}

int64_t row_at(std::span<const int32_t> rows, int64_t j) {
  return rows.empty() ? j : rows[static_cast<size_t>(j)];
}

// At most kTileRows rows of x, multiplied by lists of panels. Points into the scratch of a thread.
class ProductTile {
 public:
  ProductTile(float* memory, int64_t max_blocks)
      : packed_(memory),
        packed_sums_(packed_ + max_blocks * kTileRows * kGroupColumns),
        totals_(packed_sums_ + ceil_div(max_blocks * kTileRows, 16) * 16),
        gate_totals_(totals_ + kTotals) {}

  static int64_t floats(int64_t max_blocks) {
    return max_blocks * kTileRows * kGroupColumns + ceil_div(max_blocks * kTileRows, 16) * 16 +
           2 * kTotals;
  }

  void set_rows(const ProductJob& job, int64_t first, int num_rows, const float* sums,
                int64_t blocks) {
    num_rows_ = num_rows;
    for (int r = 0; r < num_rows; ++r) {
      const int64_t row = row_at(job.x_rows, first + r);
      rows_[static_cast<size_t>(r)] = job.x.data + row * job.x.stride;
      sums_[static_cast<size_t>(r)] = sums + row * blocks;
    }
    packed_for_ = nullptr;
  }

  // totals [count, padded, 16] of panels [first, first + count); beyond the last panel of the
  // matrix that one is repeated.
  void multiply(const Matrix& matrix, const ProductKernel& kernel, int64_t first, int64_t count,
                float* totals) {
    pack(matrix, kernel);
    const int64_t panel_size = matrix.num_blocks() * block_bytes(matrix.dtype);
    std::array<const std::byte*, kTaskPanels + 1> panels;
    for (int64_t p = 0; p < count; ++p) {
      panels[static_cast<size_t>(p)] =
          matrix.panels + std::min(first + p, matrix.num_panels() - 1) * panel_size;
    }
    kernel.product(panels.data(), static_cast<int>(count), matrix.num_blocks(), packed_,
                   packed_sums_, padded_, totals);
  }

  // out[0, width) of row r, with width at most count * 16
  void store(int r, int64_t width, const float* bias, float* out) const {
    for (int64_t start = 0; start < width; start += kPanelRows) {
      const float* totals = row_of(totals_, start / kPanelRows, r);
      const int64_t lanes = std::min(kPanelRows, width - start);
      for (int64_t i = 0; i < lanes; ++i) {
        out[start + i] = bias == nullptr ? totals[i] : totals[i] + bias[start + i];
      }
    }
  }

  // The same with out = silu(gate) .* up; the up rows begin `shift` lanes into their first panel.
  void store_gated(int r, int64_t width, int64_t shift, const ElementwiseKernels& elementwise,
                   float* out) const {
    std::array<float, kTaskPanels * kPanelRows> gate;
    std::array<float, (kTaskPanels + 1) * kPanelRows> up;
    for (int64_t start = 0; start < width; start += kPanelRows) {
      std::copy_n(row_of(gate_totals_, start / kPanelRows, r), kPanelRows, gate.data() + start);
    }
    for (int64_t start = 0; start < width + shift; start += kPanelRows) {
      std::copy_n(row_of(totals_, start / kPanelRows, r), kPanelRows, up.data() + start);
    }
    elementwise.silu_multiply(gate.data(), up.data() + shift, width, out);
  }

  float* totals() { return totals_; }
  float* gate_totals() { return gate_totals_; }

 private:
  static constexpr int64_t kTotals = (kTaskPanels + 1) * kTileRows * kPanelRows;

  void pack(const Matrix& matrix, const ProductKernel& kernel) {
    if (packed_for_ == &kernel) return;
    packed_for_ = &kernel;
    padded_ = kernel.padded_rows(num_rows_);
    kernel.pack(rows_.data(), num_rows_, matrix.columns, packed_);
    if (!is_quantised(matrix.dtype)) return;
    for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
      float* place = packed_sums_ + block * padded_;
      for (int r = 0; r < num_rows_; ++r) place[r] = sums_[static_cast<size_t>(r)][block];
      std::fill(place + num_rows_, place + padded_, 0.0f);
    }
  }

  const float* row_of(const float* totals, int64_t panel, int r) const {
    return totals + (panel * padded_ + r) * kPanelRows;
  }

  float* packed_;       // [blocks, padded, 64]
  float* packed_sums_;  // [blocks, padded]
  float* totals_;       // [panels, padded, 16]
  float* gate_totals_;
  std::array<const float*, kTileRows> rows_, sums_;
  int num_rows_ = 0;
  int padded_ = 0;
  const ProductKernel* packed_for_ = nullptr;
};

}  // namespace

ProductScratch::ProductScratch(int threads, const BackendLimits& limits, ScratchCursor& cursor) {
  const int64_t choices = limits.tokens * std::max<int64_t>(1, limits.top_k);
  max_rows = choices;
  max_columns = std::max({limits.width, limits.hidden_size, limits.expert_width});
  max_jobs = std::max(kProjectionsMax, choices);
  // Rows of full width come once per token; the rows of choices are as wide as an expert.
  max_sums = std::max(limits.tokens * ceil_div(max_columns, kGroupColumns),
                      choices * ceil_div(limits.expert_width, kGroupColumns));
  sums = cursor.take<float>(max_sums);
  needed = cursor.take<int32_t>(max_rows);
  is_needed = cursor.take<uint8_t>(max_rows);
  starts = cursor.take<int64_t>(max_jobs + 1);
  tile_floats = ProductTile::floats(ceil_div(max_columns, kGroupColumns));
  tiles = cursor.take<float>(threads * tile_floats);
}

Products::Products(ThreadPool& pool, int64_t target, const ProductScratch& scratch)
    : pool_(pool), elementwise_(elementwise_kernels(target)), target_(target), scratch_(scratch) {}

void Products::forget_sums(Rows x) {
  x_ = x;
  blocks_ = ceil_div(x.width, kGroupColumns);
  num_needed_ = 0;
  PENSTOCK_CHECK(x.count <= scratch_.max_rows && x.width <= scratch_.max_columns);
  PENSTOCK_CHECK(x.count * blocks_ <= scratch_.max_sums);
  std::fill_n(scratch_.is_needed, x.count, uint8_t{0});
}

void Products::need_sums(const ProductJob& job) {
  PENSTOCK_CHECK(job.x.data == x_.data && job.x.width == x_.width);
  PENSTOCK_CHECK(job.weight.columns == x_.width);
  PENSTOCK_CHECK(job.first_row + job.out.width <= job.weight.rows);
  PENSTOCK_CHECK(!job.has_gate() || job.gate.columns == x_.width);
  if (!job.needs_sums()) return;
  for (int64_t j = 0; j < job.num_rows; ++j) {
    const int64_t row = row_at(job.x_rows, j);
    PENSTOCK_CHECK(row >= 0 && row < x_.count);
    if (scratch_.is_needed[row] != 0) continue;
    scratch_.is_needed[row] = 1;
    scratch_.needed[num_needed_++] = static_cast<int32_t>(row);
  }
}

void Products::make_sums() {
  const auto sum_row = [&](int64_t i, int) {
    const int64_t row = scratch_.needed[i];
    sum_blocks(x_.data + row * x_.stride, blocks_, scratch_.sums + row * blocks_);
  };
  if (num_needed_ * x_.width >= kParallelSums) {
    pool_.run(num_needed_, sum_row);
  } else {
    for (int64_t i = 0; i < num_needed_; ++i) sum_row(i, 0);
  }
}

int64_t Products::task_panels(const ProductJob& job) const {
  if (job.num_rows > kTileRows) return kTaskPanels;
  const int64_t panel_size = job.weight.num_blocks() * block_bytes(job.weight.dtype);
  const int64_t at_once = product_kernel(job.weight.dtype, target_).panels_at_once;
  const int64_t groups = task_bytes_ / (panel_size * at_once * (job.has_gate() ? 2 : 1));
  return std::clamp<int64_t>(groups, 1, kTaskPanels / at_once) * at_once;
}

int64_t Products::num_tasks(const ProductJob& job) const {
  return ceil_div(ceil_div(job.out.width, kPanelRows), task_panels(job)) *
         ceil_div(job.num_rows, kTaskRows);
}

void Products::run_task(const ProductJob& job, int64_t task, int worker) const {
  const int64_t row_chunks = ceil_div(job.num_rows, kTaskRows);
  const int64_t first_row = task % row_chunks * kTaskRows;
  const int64_t end_row = std::min(first_row + kTaskRows, job.num_rows);
  const int64_t first_panel = task / row_chunks * task_panels(job);
  const int64_t first_out = first_panel * kPanelRows;
  const int64_t width = std::min(task_panels(job) * kPanelRows, job.out.width - first_out);
  const int64_t panels = ceil_div(width, kPanelRows);
  const int64_t shift = job.first_row % kPanelRows;
  const ProductKernel& kernel = product_kernel(job.weight.dtype, target_);

  ProductTile tile(scratch_.tiles + worker * scratch_.tile_floats,
                   ceil_div(scratch_.max_columns, kGroupColumns));
  for (int64_t row = first_row; row < end_row; row += kernel.tile_rows) {
    const int count = static_cast<int>(std::min<int64_t>(kernel.tile_rows, end_row - row));
    tile.set_rows(job, row, count, scratch_.sums, blocks_);
    if (job.has_gate()) {
      tile.multiply(job.gate, product_kernel(job.gate.dtype, target_), first_panel, panels,
                    tile.gate_totals());
    }
    tile.multiply(job.weight, kernel, job.first_row / kPanelRows + first_panel,
                  shift == 0 ? panels : panels + 1, tile.totals());
    for (int r = 0; r < count; ++r) {
      float* out = job.out.data + row_at(job.out_rows, row + r) * job.out.stride + first_out;
      if (job.has_gate()) {
        tile.store_gated(r, width, shift, elementwise_, out);
      } else {
        tile.store(r, width, job.bias == nullptr ? nullptr : job.bias + first_out, out);
      }
    }
  }
}

}  // namespace penstock
