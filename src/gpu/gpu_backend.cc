#include "gpu/gpu_backend.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "gpu/gpu_clock.h"

namespace penstock {
namespace {

// Of all matrices of a call; what is beyond is the processors'.
constexpr int64_t kPiecesMax = 32;

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

// Where they lie in one piece; of others, which states are not, a little too much is asked.
int64_t floats_of(Rows rows) {
  return rows.count > 0 ? (rows.count - 1) * rows.stride + rows.width : 0;
}

}  // namespace

GpuBackend::Bytes GpuBackend::bytes_for_rows(const GpuTrunk& trunk) {
  const GpuMatmul::Bytes products = GpuMatmul::bytes_for(matmul_limits(trunk));
  Bytes bytes = {.on_device = products.on_device + GpuMatmul::kAllocations * kGpuRounding,
                 .on_host = products.on_host + 2 * kGpuRounding};
  if (trunk.delta_nets.layers > 0) {
    const GpuDeltaNets::Bytes nets = GpuDeltaNets::bytes_for(trunk.delta_nets);
    bytes.on_device += nets.on_device + kGpuRounding;
    bytes.on_host += nets.on_host + kGpuRounding;
  }
  if (trunk.attention.layers > 0) {
    const GpuAttention::Bytes attention = GpuAttention::bytes_for(trunk.attention);
    bytes.on_device += attention.on_device;
    bytes.on_host += attention.on_host;
  }
  if (trunk.hidden_size == 0) return bytes;
  const GpuExperts::Bytes ffn = GpuExperts::bytes_for(ffn_limits(trunk));
  bytes.on_device += ffn.on_device + GpuExperts::kAllocations * kGpuRounding;
  bytes.on_host += ffn.on_host + 3 * kGpuRounding;
  return bytes;
}

GpuBackend::GpuBackend(GpuUse& use, Backend& cpu, const GpuTrunk& trunk)
    : use_(use),
      cpu_(cpu),
      trunk_(trunk),
      products_side_(trunk.many),
      ffn_side_(trunk.many),
      blocks_side_(trunk.many),
      attention_side_(trunk.many),
      all_rows_(static_cast<size_t>(trunk.rows)) {
  std::iota(all_rows_.begin(), all_rows_.end(), 0);
  cpu_.set_between_ops([this] { end_op(); });
}

GpuBackend::~GpuBackend() {
  cpu_.set_between_ops({});
}

Result<std::unique_ptr<GpuBackend>> GpuBackend::create(GpuDevice& device, GpuUse& use, Backend& cpu,
                                                       const GpuTrunk& trunk, HostRows host) {
  std::unique_ptr<GpuBackend> made(new GpuBackend(use, cpu, trunk));
  made->matrices_ = PENSTOCK_TRY(GpuMatrices::create(device, trunk.matrices));
  const std::vector<GpuCoding> codings = gpu_codings_of(trunk.matrices);
  made->matmul_ = PENSTOCK_TRY(GpuMatmul::create(device, matmul_limits(trunk), codings, host));
  if (trunk.hidden_size > 0) {
    made->ffn_ =
        PENSTOCK_TRY(GpuExperts::create(device, ffn_limits(trunk), ffn_shapes(codings), host));
  }
  if (trunk.delta_nets.layers > 0) {
    made->delta_nets_ = PENSTOCK_TRY(GpuDeltaNets::create(device, trunk.delta_nets, codings, host));
    if (!made->delta_nets_->pays()) made->delta_nets_.reset();
  }
  if (trunk.attention.layers > 0) {
    made->attention_ = PENSTOCK_TRY(GpuAttention::create(device, trunk.attention, host));
    if (!made->attention_->pays()) made->attention_.reset();
  }
  GpuTrunk counted = trunk;
  if (!made->delta_nets_) counted.delta_nets.layers = 0;
  if (!made->attention_) counted.attention.layers = 0;
  const Bytes rows = bytes_for_rows(counted);
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
        x.count > 0 && x.width <= trunk_.columns &&
        matmul_->rows_at_once(x.count, columns_ + rows) > 0 &&
        pieces + std::ssize(found) <= kPiecesMax &&
        (there_.empty() || GpuMatmul::go_together(there_[0].weight, projection.weight));
    if (found.empty() || !fits) {
      here_.push_back(projection);
      continue;
    }
    there_.push_back(projection);
    products_.push_back({projection, found});
    columns_ += rows;
    pieces += std::ssize(found);
  }
}

// The products with rows of a wave.
std::span<const GpuProduct> GpuBackend::wave_at(int64_t first) {
  wave_ = products_;
  for (GpuProduct& product : wave_) {
    Rows& out = product.projection.out;
    out = out.slice(first, std::min(wave_rows_, out.count - first));
  }
  return wave_;
}

Result<void> GpuBackend::begin_waves(Rows x) {
  while (begun_ < x.count && matmul_->under_way() < GpuMatmul::kCalls) {
    const std::span<const GpuProduct> wave = wave_at(begun_);
    const int64_t count = wave.front().projection.out.count;
    PENSTOCK_TRY(matmul_->begin(x.slice(begun_, count), wave));
    begun_ += count;
  }
  return {};
}

Result<void> GpuBackend::finish_waves(Rows x) {
  for (int64_t done = 0; done < x.count; done += wave_rows_) {
    PENSTOCK_TRY(matmul_->finish(wave_at(done)));
    PENSTOCK_TRY(begin_waves(x));
  }
  return {};
}

void GpuBackend::matmul(Rows x, std::span<const Projection> projections) {
  settle();
  share_out(x, projections);
  if (there_.empty()) return cpu_.matmul(x, projections);
  for (const Projection& projection : there_) {
    PENSTOCK_CHECK(projection.out.count == x.count &&
                   projection.out.width == projection.weight.rows);
  }
  if (x.count <= trunk_.few_rows) return multiply_there(x);
  const CheaperSide::Kind kind = {x.width, columns_, CheaperSide::row_class(x.count)};
  const Side side = products_side_.choose(kind);
  const double start = now_in_seconds();
  if (side == Side::kDevice) {
    multiply_there(x);
  } else {
    cpu_.matmul(x, projections);
  }
  products_side_.note(kind, side, (now_in_seconds() - start) / static_cast<double>(x.count));
}

void GpuBackend::multiply_there(Rows x) {
  matmul_->forget();
  wave_rows_ = matmul_->rows_at_once(x.count, columns_);
  begun_ = 0;
  const bool has_begun = goes_on(begin_waves(x));
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
  if (!ffn_ || x.count == 0 || gate.rows > trunk_.ffn_width || x.width > trunk_.hidden_size) {
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

// The next rows, as many as it takes.
Result<void> GpuBackend::take_ffn_rows() {
  Ffn& call = *pending_;
  call.count = std::min(trunk_.rows, call.x.count - call.first);
  call.begun = call.done = 0;
  PENSTOCK_TRY(ffn_->take(shape_of(call.gate, call.down), call.x.slice(call.first, call.count)));
  return begin_ffn_waves();
}

Result<void> GpuBackend::begin_ffn_waves() {
  Ffn& call = *pending_;
  while (call.begun < call.count && ffn_->under_way() < GpuExperts::kCalls) {
    const int64_t count = std::min(ffn_->rows_at_once(call.count), call.count - call.begun);
    const std::span rows =
        std::span(all_rows_).subspan(static_cast<size_t>(call.begun), static_cast<size_t>(count));
    const GpuExpertWork work[] = {{.gate = find(call.gate)[0].planes,
                                   .up = find(call.up)[0].planes,
                                   .down = find(call.down)[0].planes,
                                   .tokens = rows,
                                   .places = rows}};
    PENSTOCK_TRY(ffn_->begin(work));
    call.begun += count;
  }
  return {};
}

Result<void> GpuBackend::finish_ffn_waves() {
  Ffn& call = *pending_;
  for (;;) {
    const int64_t count = ffn_->rows_at_once(call.count);
    for (; call.done < call.count; call.done += count) {
      PENSTOCK_TRY(ffn_->finish(call.out.slice(call.first, call.count)));
      PENSTOCK_TRY(begin_ffn_waves());
    }
    call.first += call.count;
    if (call.first == call.x.count) return {};
    PENSTOCK_TRY(take_ffn_rows());
  }
}

// Whether the device has it.
bool GpuBackend::queue_ffn() {
  Ffn& call = *pending_;
  const double start = now_in_seconds();
  const bool has_begun = goes_on(take_ffn_rows());
  call.cost = now_in_seconds() - start;
  return has_begun;
}

void GpuBackend::dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                           Rows out) {
  settle();
  if (!has_ffn(x, gate, up, down)) return cpu_.dense_ffn(x, gate, up, down, out);
  PENSTOCK_CHECK(gate.rows == up.rows && gate.rows == down.columns && down.rows == out.width &&
                 down.rows == x.width && out.count == x.count);
  const CheaperSide::Kind kind = {gate.columns, gate.rows, CheaperSide::row_class(x.count)};
  const bool is_many = x.count > trunk_.few_rows;
  if (is_many && ffn_side_.choose(kind) == Side::kProcessors) {
    const double start = now_in_seconds();
    cpu_.dense_ffn(x, gate, up, down, out);
    ffn_side_.note(kind, Side::kProcessors,
                   (now_in_seconds() - start) / static_cast<double>(x.count));
    return;
  }
  pending_ = Ffn{.x = x, .out = out, .gate = gate, .up = up, .down = down, .kind = kind};
  if (queue_ffn()) return end_op();
  pending_.reset();
  cpu_.dense_ffn(x, gate, up, down, out);
}

void GpuBackend::settle() {
  if (!pending_) return;
  const double start = now_in_seconds();
  const bool is_done = !use_.is_lost() && goes_on(finish_ffn_waves());
  const Ffn call = *pending_;
  pending_.reset();
  if (!is_done) return cpu_.dense_ffn(call.x, call.gate, call.up, call.down, call.out);
  ++report_.ffns;
  if (call.x.count <= trunk_.few_rows) return;
  const double cost = call.cost + now_in_seconds() - start;
  ffn_side_.note(call.kind, Side::kDevice, cost / static_cast<double>(call.x.count));
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
  before_host_reads(from.data, floats_of(from));
  before_host_writes(to.data, floats_of(to));
  cpu_.copy(from, to);
}

void GpuBackend::clear(Rows rows) {
  settle();
  before_host_writes(rows.data, floats_of(rows));
  cpu_.clear(rows);
}

Fence GpuBackend::upload(std::span<const float> from, Rows to) {
  settle();
  before_host_writes(to.data, floats_of(to));
  return cpu_.upload(from, to);
}

Result<void> GpuBackend::read_back(Rows from, std::span<float> to) {
  settle();
  before_host_reads(from.data, floats_of(from));
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
