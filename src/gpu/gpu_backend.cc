#include "gpu/gpu_backend.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace penstock {
namespace {

// Of all matrices of a call; what is beyond is the processors'.
constexpr int64_t kPiecesMax = 32;

constexpr uint64_t kFfnAllocations = 6;

GpuMatmulLimits matmul_limits(const GpuTrunk& trunk) {
  return {
      .rows = trunk.rows, .columns = trunk.columns, .results = trunk.results, .pieces = kPiecesMax};
}

GpuExpertLimits ffn_limits(const GpuTrunk& trunk) {
  return {.tokens = trunk.rows,
          .places = trunk.rows,
          .hidden_size = trunk.hidden_size,
          .expert_width = trunk.ffn_width};
}

// Of each pair that an FFN may have.
std::vector<GpuExpertShape> ffn_shapes(std::span<const GpuCoding> codings) {
  std::vector<GpuExpertShape> shapes;
  for (const GpuCoding& coding : codings) shapes.push_back({.gate_up = coding, .down = coding});
  return shapes;
}

bool overlap(Rows a, Rows b) {
  const auto end_of = [](Rows rows) { return rows.data + rows.count * rows.stride; };
  return a.count > 0 && b.count > 0 && a.data < end_of(b) && b.data < end_of(a);
}

}  // namespace

GpuBackend::Bytes GpuBackend::bytes_for_rows(const GpuTrunk& trunk) {
  const GpuMatmul::Bytes products = GpuMatmul::bytes_for(matmul_limits(trunk));
  Bytes bytes = {.on_device = products.on_device + GpuMatmul::kAllocations * kGpuRounding,
                 .on_host = products.on_host + 2 * kGpuRounding};
  if (trunk.hidden_size == 0) return bytes;
  const GpuExperts::Bytes ffn = GpuExperts::bytes_for(ffn_limits(trunk));
  bytes.on_device += ffn.on_device + kFfnAllocations * kGpuRounding;
  bytes.on_host += ffn.on_host + 2 * kGpuRounding;
  return bytes;
}

GpuBackend::GpuBackend(GpuUse& use, Backend& cpu, const GpuTrunk& trunk)
    : use_(use), cpu_(cpu), trunk_(trunk), all_rows_(static_cast<size_t>(trunk.rows)) {
  std::iota(all_rows_.begin(), all_rows_.end(), 0);
  cpu_.set_between_ops([this] { end_op(); });
}

GpuBackend::~GpuBackend() {
  cpu_.set_between_ops({});
}

Result<std::unique_ptr<GpuBackend>> GpuBackend::create(GpuDevice& device, GpuUse& use, Backend& cpu,
                                                       const GpuTrunk& trunk) {
  std::unique_ptr<GpuBackend> made(new GpuBackend(use, cpu, trunk));
  made->matrices_ = PENSTOCK_TRY(GpuMatrices::create(device, trunk.matrices));
  const std::vector<GpuCoding> codings = gpu_codings_of(trunk.matrices);
  made->matmul_ = PENSTOCK_TRY(GpuMatmul::create(device, matmul_limits(trunk), codings));
  if (trunk.hidden_size > 0) {
    made->ffn_ = PENSTOCK_TRY(GpuExperts::create(device, ffn_limits(trunk), ffn_shapes(codings)));
  }
  const Bytes rows = bytes_for_rows(trunk);
  made->report_.bytes = rows.on_device + rows.on_host + GpuMatrices::bytes_for(trunk.matrices);
  return made;
}

void GpuBackend::load() {
  if (!use_.is_lost()) goes_on(matrices_->fill(matmul_->staging()));
  report_.matrices = matrices_->num_filled();
}

bool GpuBackend::goes_on(const Result<void>& result) {
  if (!result) use_.lose(result.error());
  return result.has_value();
}

std::span<const GpuPiece> GpuBackend::find(const Matrix& matrix) const {
  return use_.is_lost() ? std::span<const GpuPiece>() : matrices_->find(matrix);
}

void GpuBackend::share_out(Rows x, std::span<const Projection> projections) {
  here_.clear();
  there_.clear();
  products_.clear();
  columns_ = 0;
  int64_t pieces = 0;
  for (const Projection& projection : projections) {
    const std::span<const GpuPiece> found = find(projection.weight);
    const int64_t rows = projection.weight.rows;
    const bool fits =
        columns_ + rows <= trunk_.results && x.width <= trunk_.columns &&
        pieces + std::ssize(found) <= kPiecesMax &&
        (there_.empty() || GpuMatmul::go_together(there_[0].weight, projection.weight));
    if (found.empty() || x.count == 0 || x.count > trunk_.call_rows_max || !fits) {
      here_.push_back(projection);
      continue;
    }
    there_.push_back(projection);
    products_.push_back({projection, found});
    columns_ += rows;
    pieces += std::ssize(found);
  }
}

Result<void> GpuBackend::begin_wave(Rows x, int64_t first) {
  const int64_t count = std::min(matmul_->rows_at_once(columns_), x.count - first);
  wave_ = products_;
  for (GpuProduct& product : wave_) {
    product.projection.out = product.projection.out.slice(first, count);
  }
  return matmul_->begin(x.slice(first, count), wave_);
}

Result<void> GpuBackend::finish_waves(Rows x) {
  for (int64_t first = 0;;) {
    PENSTOCK_TRY(matmul_->finish(wave_));
    first += wave_.front().projection.out.count;
    if (first == x.count) return {};
    PENSTOCK_TRY(begin_wave(x, first));
  }
}

void GpuBackend::matmul(Rows x, std::span<const Projection> projections) {
  settle();
  share_out(x, projections);
  if (there_.empty()) return cpu_.matmul(x, projections);
  for (const Projection& projection : there_) {
    PENSTOCK_CHECK(projection.out.count == x.count &&
                   projection.out.width == projection.weight.rows);
  }
  const bool has_begun = goes_on(begin_wave(x, 0));
  if (here_.empty()) {
    end_op();
  } else {
    cpu_.matmul(x, here_);
  }
  if (has_begun && goes_on(finish_waves(x))) {
    report_.products += there_.size();
  } else {
    cpu_.matmul(x, there_);
  }
}

bool GpuBackend::has_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down) const {
  if (!ffn_ || x.count == 0 || x.count > trunk_.call_rows_max || gate.rows > trunk_.ffn_width ||
      x.width > trunk_.hidden_size) {
    return false;
  }
  for (const Matrix* matrix : {&gate, &up, &down}) {
    if (find(*matrix).size() != 1 || matrix->coded.order != nullptr) return false;
  }
  return gpu_coding_of(gate) == gpu_coding_of(up) && shape_of(gate, down).can_be_computed();
}

GpuExpertShape GpuBackend::shape_of(const Matrix& gate, const Matrix& down) {
  return {.gate_up = gpu_coding_of(gate),
          .down = gpu_coding_of(down),
          .hidden_size = gate.columns,
          .expert_width = gate.rows};
}

Result<void> GpuBackend::begin_ffn_wave() {
  Ffn& call = *pending_;
  call.count = std::min(trunk_.rows, call.x.count - call.first);
  const std::span rows = std::span(all_rows_).first(static_cast<size_t>(call.count));
  const GpuExpertWork work[] = {{.gate = find(call.gate)[0].planes,
                                 .up = find(call.up)[0].planes,
                                 .down = find(call.down)[0].planes,
                                 .tokens = rows,
                                 .places = rows}};
  PENSTOCK_TRY(
      ffn_->begin(shape_of(call.gate, call.down), call.x.slice(call.first, call.count), work));
  return {};
}

Result<void> GpuBackend::finish_ffn_waves() {
  Ffn& call = *pending_;
  for (;;) {
    PENSTOCK_TRY(ffn_->finish(call.out.slice(call.first, call.count)));
    call.first += call.count;
    if (call.first == call.x.count) return {};
    PENSTOCK_TRY(begin_ffn_wave());
  }
}

void GpuBackend::dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                           Rows out) {
  settle();
  if (!has_ffn(x, gate, up, down)) return cpu_.dense_ffn(x, gate, up, down, out);
  PENSTOCK_CHECK(gate.rows == up.rows && gate.rows == down.columns && down.rows == out.width &&
                 down.rows == x.width && out.count == x.count);
  pending_ = Ffn{.x = x, .out = out, .gate = gate, .up = up, .down = down};
  if (goes_on(begin_ffn_wave())) return end_op();
  pending_.reset();
  cpu_.dense_ffn(x, gate, up, down, out);
}

void GpuBackend::settle() {
  if (!pending_) return;
  const bool is_done = !use_.is_lost() && goes_on(finish_ffn_waves());
  const Ffn call = *pending_;
  pending_.reset();
  if (is_done) {
    ++report_.ffns;
  } else {
    cpu_.dense_ffn(call.x, call.gate, call.up, call.down, call.out);
  }
}

// Ops that have nothing to do with what is still to come need not wait for it.
void GpuBackend::settle_for(Rows read, Rows written) {
  if (!pending_) return;
  if (overlap(pending_->out, read) || overlap(pending_->out, written) ||
      overlap(pending_->x, written)) {
    settle();
  }
}

void GpuBackend::expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) {
  settle_for(x, hidden);
  cpu_.expert_gate_up(x, work, hidden);
}

void GpuBackend::expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) {
  settle_for(hidden, out);
  cpu_.expert_down(hidden, work, out);
}

void GpuBackend::copy(Rows from, Rows to) {
  settle();
  cpu_.copy(from, to);
}

void GpuBackend::clear(Rows rows) {
  settle();
  cpu_.clear(rows);
}

Fence GpuBackend::upload(std::span<const float> from, Rows to) {
  settle();
  return cpu_.upload(from, to);
}

Result<void> GpuBackend::read_back(Rows from, std::span<float> to) {
  settle();
  return cpu_.read_back(from, to);
}

Fence GpuBackend::fence() {
  settle();
  return cpu_.fence();
}

bool GpuBackend::has_passed(Fence fence) {
  return cpu_.has_passed(fence);
}

void GpuBackend::embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) {
  settle();
  cpu_.embed(table, tokens, out);
}

void GpuBackend::rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) {
  settle();
  cpu_.rms_norm(x, weight, eps, out);
}

void GpuBackend::add(Rows x, Rows y, Rows out) {
  settle();
  cpu_.add(x, y, out);
}

void GpuBackend::delta_net(const DeltaNetCall& call) {
  settle();
  cpu_.delta_net(call);
}

void GpuBackend::attention(const AttentionCall& call) {
  settle();
  cpu_.attention(call);
}

Result<void> GpuBackend::route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) {
  settle();
  return cpu_.route_top_k(logits, rule, routing);
}

void GpuBackend::combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
                         Rows y) {
  settle();
  cpu_.combine(expert_rows, routing, shared, shared_gate, y);
}

}  // namespace penstock
