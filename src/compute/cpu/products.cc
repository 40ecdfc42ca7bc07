#include "compute/cpu/products.h"

#include <array>

#include "base/check.h"

namespace penstock {
namespace {

constexpr int64_t kProjectionsMax = 16;          // of one matmul
constexpr int64_t kPreparedElements = 16 << 10;  // from here on, rows are prepared by the team
constexpr int64_t kCodedPanels = 4;              // of one task, of a matrix in coded rows

// Decoded panels of a matrix that do not begin with its first row need one more.
int64_t decoded_floats(int64_t columns) {
  return (kCodedPanels + 1) * kPanelRows * ceil_div(columns, kGroupColumns) * kGroupColumns;
}

// Of the rows on the way to them.
int64_t row_floats(int64_t columns) {
  return ceil_div(decode_scratch(columns), kPanelRows) * kPanelRows;
}

int64_t panel_bytes_of(const Matrix& matrix) {
  if (!matrix.is_coded()) return matrix.num_blocks() * block_bytes(matrix.dtype);
  return static_cast<int64_t>(row_panel_bytes(matrix.coded.coding, matrix.columns).codes);
}

// With the panel of the gate that belongs to it.
int64_t panel_bytes_of(const ProductJob& job) {
  return panel_bytes_of(job.weight) + (job.has_gate() ? panel_bytes_of(job.gate) : 0);
}

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
  scales = cursor.take<float>(max_sums);
  numbers = cursor.take<int16_t>(max_sums * kGroupColumns);
  needed = cursor.take<int32_t>(max_rows);
  is_needed = cursor.take<uint8_t>(max_rows);
  starts = cursor.take<int64_t>(max_jobs + 1);
  cuts = cursor.take<PanelCut>(max_jobs);
  num_threads = threads;
  tile_floats = ProductTile::floats(ceil_div(max_columns, kGroupColumns));
  tiles = cursor.take<float>(threads * tile_floats);
  coded_columns = limits.coded_columns;
  coded_floats =
      coded_columns == 0 ? 0 : row_floats(coded_columns) + 2 * decoded_floats(coded_columns);
  static_assert(kCodedTileRowsMax <=
                kPanelRows);  // they take the place of rows on the way to panels
  coded = cursor.take<float>(threads * coded_floats);
}

Products::Products(ThreadPool& pool, const KernelChoice& choice, const ProductScratch& scratch,
                   const TaskCut& tasks)
    : pool_(pool),
      elementwise_(elementwise_kernels(choice.target)),
      to_fixed_(to_fixed_kernel(choice.target)),
      choice_(choice),
      tasks_(tasks),
      scratch_(scratch) {
  for (int worker = 0; worker < scratch_.num_threads; ++worker) {
    tiles_.emplace_back(scratch_.tiles + worker * scratch_.tile_floats,
                        ceil_div(scratch_.max_columns, kGroupColumns),
                        scratch_.coded + worker * scratch_.coded_floats, choice_);
  }
}

void Products::begin(Rows x) {
  x_ = x;
  ++op_;
  blocks_ = ceil_div(x.width, kGroupColumns);
  num_needed_ = 0;
  PENSTOCK_CHECK(x.count <= scratch_.max_rows && x.width <= scratch_.max_columns);
  PENSTOCK_CHECK(x.count * blocks_ <= scratch_.max_sums);
  std::fill_n(scratch_.is_needed, x.count, uint8_t{0});
}

void Products::need_rows(const ProductJob& job) {
  PENSTOCK_CHECK(job.x.data == x_.data && job.x.width == x_.width);
  PENSTOCK_CHECK(job.weight.columns == x_.width);
  PENSTOCK_CHECK(job.first_row + job.out.width <= job.weight.rows);
  PENSTOCK_CHECK(!job.has_gate() ||
                 (job.gate.columns == x_.width && job.out.width <= job.gate.rows));
  const bool is_needed = tiling_of(job.weight, job.num_rows).needs_rows ||
                         (job.has_gate() && tiling_of(job.gate, job.num_rows).needs_rows);
  if (!is_needed) return;
  for (int64_t j = 0; j < job.num_rows; ++j) {
    const int64_t row = job.x_rows.empty() ? j : job.x_rows[static_cast<size_t>(j)];
    PENSTOCK_CHECK(row >= 0 && row < x_.count);
    if (scratch_.is_needed[row] != 0) continue;
    scratch_.is_needed[row] = 1;
    scratch_.needed[num_needed_++] = static_cast<int32_t>(row);
  }
}

void Products::prepare_row(int64_t row) {
  const float* x = x_.data + row * x_.stride;
  const int64_t first = row * blocks_;
  if (choice_.arithmetic == Arithmetic::kFixed16) {
    to_fixed_(x, blocks_, scratch_.numbers + first * kGroupColumns, scratch_.scales + first,
              scratch_.sums + first);
  } else {
    sum_blocks(x, blocks_, scratch_.sums + first);
  }
}

void Products::prepare_rows() {
  if (num_needed_ > 1 && num_needed_ * x_.width >= kPreparedElements) {
    pool_.run(num_needed_, [&](int64_t i, int) { prepare_row(scratch_.needed[i]); });
  } else {
    for (int64_t i = 0; i < num_needed_; ++i) prepare_row(scratch_.needed[i]);
  }
}

// Of weights that a job of few rows reads as they are.
int64_t Products::stream_bytes(const ProductJob& job) const {
  if (!is_stream(job) || is_any_to_decode(job)) return 0;
  return ceil_div(job.out.width, kPanelRows) * panel_bytes_of(job);
}

PanelCut Products::panels_of(const ProductJob& job, int64_t begin) const {
  const int64_t panels = ceil_div(job.out.width, kPanelRows);
  if (is_any_to_decode(job)) return PanelCut::even(panels, kCodedPanels);
  if (!is_stream(job)) return PanelCut::even(panels, task_size_.panels);
  // Rather a stream for every thread than several streams for some.
  const int64_t wanted = tiling_of(job.weight, job.num_rows).panels_at_once;
  const int64_t at_once =
      panels >= wanted * tasks_.tasks_of_thread * pool_.num_threads() ? wanted : 1;
  return PanelCut::of(panels, panel_bytes_of(job), at_once, begin, stream_cut_);
}

Matrix Products::decoded(const Matrix& matrix, int64_t first_panel, int64_t panels, int worker,
                         bool is_gate) const {
  PENSTOCK_CHECK(matrix.columns <= scratch_.coded_columns);
  float* rows_place = scratch_.coded + worker * scratch_.coded_floats;
  float* place = rows_place + row_floats(scratch_.coded_columns) +
                 (is_gate ? decoded_floats(scratch_.coded_columns) : 0);
  const int64_t count = std::min(panels, matrix.num_panels() - first_panel);
  const int64_t rows = std::min(count * kPanelRows, matrix.rows - first_panel * kPanelRows);
  Matrix made = {DType::kF32, rows, matrix.columns, reinterpret_cast<const std::byte*>(place)};
  const int64_t bytes = panel_bytes(DType::kF32, rows, matrix.columns);
  PENSTOCK_CHECK(bytes <= decoded_floats(scratch_.coded_columns) * 4);
  decode_panels(matrix, first_panel, count,
                {reinterpret_cast<std::byte*>(place), static_cast<size_t>(bytes)},
                {rows_place, static_cast<size_t>(row_floats(scratch_.coded_columns))});
  return made;
}

void Products::run_task(const ProductJob& job, const PanelCut& panel_cut, int64_t task,
                        int worker) {
  const int64_t row_chunks = ceil_div(job.num_rows, task_size_.rows);
  const int64_t first_panel = panel_cut.first_of(task / row_chunks);
  ProductCut cut;
  cut.first_row = task % row_chunks * task_size_.rows;
  cut.end_row = std::min(cut.first_row + task_size_.rows, job.num_rows);
  cut.first_out = first_panel * kPanelRows;
  cut.width =
      std::min(panel_cut.end_of(task / row_chunks) * kPanelRows, job.out.width) - cut.first_out;
  cut.weight_panel = job.first_row / kPanelRows + first_panel;
  cut.gate_panel = first_panel;
  const int64_t panels = ceil_div(cut.width, kPanelRows);
  ProductJob plain = job;
  if (job.has_gate() && is_to_decode(job.gate)) {
    plain.gate = decoded(job.gate, cut.gate_panel, panels, worker, true);
    cut.gate_panel = 0;
  }
  if (is_to_decode(job.weight)) {
    const int64_t more = job.first_row % kPanelRows == 0 ? 0 : 1;
    plain.weight = decoded(job.weight, cut.weight_panel, panels + more, worker, false);
    cut.weight_panel = 0;
  }
  run_rows(plain, cut, worker);
}

void Products::run_rows(const ProductJob& job, const ProductCut& cut, int worker) {
  const int64_t panels = ceil_div(cut.width, kPanelRows);
  const int64_t shift = job.first_row % kPanelRows;
  ProductTile& tile = tiles_[static_cast<size_t>(worker)];
  int count = 0;
  for (int64_t row = cut.first_row; row < cut.end_row; row += count) {
    const int64_t rows = cut.end_row - row;
    count = std::min({tiling_of(job.weight, rows).rows,
                      job.has_gate() ? tiling_of(job.gate, rows).rows : kTileRowsMax,
                      static_cast<int>(rows)});
    const auto x_row = [&](int r) {
      return job.x_rows.empty() ? row + r : job.x_rows[static_cast<size_t>(row + r)];
    };
    tile.set_rows(
        op_, count, [&](int r) { return job.x.data + x_row(r) * job.x.stride; },
        [&](int r) {
          const int64_t first = x_row(r) * blocks_;
          return FixedRow{scratch_.numbers + first * kGroupColumns, scratch_.scales + first,
                          scratch_.sums + first};
        });
    if (job.has_gate()) tile.multiply_gate(job.gate, cut.gate_panel, panels);
    tile.multiply(job.weight, cut.weight_panel, shift == 0 ? panels : panels + 1);
    for (int r = 0; r < count; ++r) {
      const int64_t out_row =
          job.out_rows.empty() ? row + r : job.out_rows[static_cast<size_t>(row + r)];
      float* out = job.out.data + out_row * job.out.stride + cut.first_out;
      if (job.has_gate()) {
        tile.store_gated(r, cut.width, shift, elementwise_, out);
      } else {
        tile.store(r, cut.width, job.bias == nullptr ? nullptr : job.bias + cut.first_out, out);
      }
    }
  }
}

}  // namespace penstock
