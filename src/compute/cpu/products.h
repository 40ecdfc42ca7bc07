// Cuts matrix products into tasks for the team of threads.
//
// A job is one matrix (or a gate and up pair) times some rows of x. All jobs of an op run in one
// parallel region; a task is a handful of panels times some rows (product_cut.h). Where the cuts are changes nothing in the results: every row of every
// panel is a sum of its own (compute/panel.h). Matrices in coded panels have kernels of their own; of
// those that have none (coded_kernel()), and of coded rows, each task decodes its panels first.
//
// Threads  run() from one thread; its tasks use the whole team
// Memory   all of it from the scratch handed over
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "compute/backend.h"
#include "compute/cpu/elementwise.h"
#include "compute/cpu/product.h"
#include "compute/cpu/product_cut.h"
#include "compute/cpu/product_tile.h"
#include "compute/cpu/scratch.h"

namespace penstock {

// out = weight[first_row ...] * x + bias, or with a gate
// out = silu(gate * x) .* (weight[first_row ...] * x).
struct ProductJob {
  Matrix weight;
  Matrix gate = {};       // without rows: none
  int64_t first_row = 0;  // of weight; above 0 only with a gate
  const float* bias = nullptr;
  Rows x, out;
  int64_t num_rows = 0;
  std::span<const int32_t> x_rows = {}, out_rows = {};  // of row j of the job; empty: row j

  bool has_gate() const { return gate.rows > 0; }
};

// What a task computes of a job: rows [first_row, end_row) of it, `width` outputs from first_out on.
// The panels of weight and gate that these begin in.
struct ProductCut {
  int64_t first_row = 0, end_row = 0;
  int64_t first_out = 0, width = 0;
  int64_t weight_panel = 0, gate_panel = 0;
};

struct ProductScratch {
  ProductScratch(int threads, const BackendLimits& limits, ScratchCursor& cursor);

  int64_t max_rows, max_columns, max_jobs;  // rows of x, their width
  int64_t max_sums;
  float* sums;         // [rows, blocks]: of 64 inputs each
  float* scales;       // [rows, blocks] and
  int16_t* numbers;    // [rows, blocks, 64]: in fixed point
  int32_t* needed;     // [max_rows]: rows of which a job reads sums or numbers
  uint8_t* is_needed;  // [max_rows]
  int64_t* starts;     // [max_jobs + 1]: the first task of each job
  PanelCut* cuts;      // [max_jobs]
  int num_threads;
  int64_t tile_floats;
  float* tiles;           // [threads, tile_floats]: what ProductTile points into
  int64_t coded_columns;  // of the widest matrix in coded rows
  int64_t coded_floats;
  float* coded;  // [threads, coded_floats]: decoded panels of a task, and rows on the way to them
};

class Products {
 public:
  Products(ThreadPool& pool, const KernelChoice& choice, const ProductScratch& scratch,
           const TaskCut& tasks = {});

  // Runs job_at(0), ..., job_at(num_jobs - 1), which all have the same x.
  template <class JobAt>
  void run(int64_t num_jobs, const JobAt& job_at) {
    if (num_jobs == 0) return;
    PENSTOCK_CHECK(num_jobs <= scratch_.max_jobs);
    begin(job_at(0).x);
    for (int64_t i = 0; i < num_jobs; ++i) need_rows(job_at(i));
    prepare_rows();
    cut(num_jobs, job_at);
    const int64_t* starts = scratch_.starts;
    pool_.run(starts[num_jobs], [&](int64_t task, int worker) {
      const int64_t job = std::upper_bound(starts, starts + num_jobs, task) - starts - 1;
      run_task(job_at(job), scratch_.cuts[job], task - starts[job], worker);
    });
  }

 private:
  // Fills starts and cuts.
  template <class JobAt>
  void cut(int64_t num_jobs, const JobAt& job_at) {
    int64_t bytes = 0;
    bool has_many_rows = false;
    for (int64_t i = 0; i < num_jobs; ++i) {
      bytes += stream_bytes(job_at(i));
      has_many_rows = has_many_rows || !is_stream(job_at(i));
    }
    stream_cut_ = StreamCut::of(bytes, pool_.num_threads(), tasks_);
    for (const TaskSize& size : kTaskSizes) {
      task_size_ = size;
      int64_t begin = 0;
      scratch_.starts[0] = 0;
      for (int64_t i = 0; i < num_jobs; ++i) {
        const ProductJob& job = job_at(i);
        scratch_.cuts[i] = panels_of(job, begin);
        scratch_.starts[i + 1] =
            scratch_.starts[i] + scratch_.cuts[i].num_tasks() * ceil_div(job.num_rows, size.rows);
        begin += stream_bytes(job);
      }
      const bool are_enough =
          scratch_.starts[num_jobs] >= tasks_.tasks_of_thread * pool_.num_threads();
      if (are_enough || !has_many_rows) break;
    }
  }

  // Of a job of many rows. Its rows are packed anew by every task, so panels are the last to go.
  struct TaskSize {
    int64_t rows, panels;
  };
  static constexpr int64_t kFewRows = 12;
  static constexpr TaskSize kTaskSizes[] = {
      {96, kTaskPanels}, {kTileRowsMax, kTaskPanels}, {kTileRowsMax, kTaskPanels / 4}};

  // Before the tasks: what they need of each row of x, fixed point or sums, is made once.
  void begin(Rows x);
  void need_rows(const ProductJob& job);
  void prepare_rows();
  void prepare_row(int64_t row);
  // Weights are read from memory, not from caches.
  static bool is_stream(const ProductJob& job) { return job.num_rows <= kFewRows; }
  int64_t stream_bytes(const ProductJob& job) const;
  PanelCut panels_of(const ProductJob& job, int64_t begin) const;
  void run_task(const ProductJob& job, const PanelCut& panels, int64_t task, int worker);
  void run_rows(const ProductJob& job, const ProductCut& cut, int worker);
  bool is_to_decode(const Matrix& matrix) const {
    return matrix.is_coded() &&
           (!is_in_coded_panels(matrix) || coded_kernel(matrix.coded.coding, choice_) == nullptr);
  }
  bool is_any_to_decode(const ProductJob& job) const {
    return is_to_decode(job.weight) || (job.has_gate() && is_to_decode(job.gate));
  }
  // What a task needs of a coded matrix, as an f32 matrix of its own.
  Matrix decoded(const Matrix& matrix, int64_t first_panel, int64_t panels, int worker,
                 bool is_gate) const;
  // How a matrix is multiplied: rows of x at once, panels of a single row, and whether rows have to
  // be prepared for it.
  struct Tiling {
    int rows, panels_at_once;
    bool needs_rows;
  };
  Tiling tiling_of(const Matrix& matrix, int64_t rows) const {
    if (matrix.is_coded() && !is_to_decode(matrix)) {
      const CodedKernel& kernel = *coded_kernel(matrix.coded.coding, choice_);
      return {kernel.tile_rows, 1, kernel.pack_fixed != nullptr};
    }
    const ProductKernel& kernel = product_kernel(matrix.dtype, choice_, rows);
    return {kernel.tile_rows, kernel.panels_at_once,
            kernel.needs_sums || kernel.pack_fixed != nullptr};
  }

  ThreadPool& pool_;
  const ElementwiseKernels& elementwise_;
  ToFixedKernel to_fixed_;
  KernelChoice choice_;
  const TaskCut tasks_;
  ProductScratch scratch_;
  std::vector<ProductTile> tiles_;  // one a thread
  uint64_t op_ = 0;
  Rows x_;              // of the op that runs
  int64_t blocks_ = 0;  // of one of its rows
  int64_t num_needed_ = 0;
  StreamCut stream_cut_;
  TaskSize task_size_ = kTaskSizes[0];
};

}  // namespace penstock
