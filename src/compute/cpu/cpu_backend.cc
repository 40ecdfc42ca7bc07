#include "compute/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/thread.h"
#include "compute/exact_math.h"

namespace penstock {
namespace {

// Below this many elements an op takes about as long as waking the team.
constexpr int64_t kParallelElements = 64 << 10;

}  // namespace

struct CpuBackend::Scratch {
  Scratch(int threads, const BackendLimits& limits, ScratchCursor cursor)
      : products(threads, limits, cursor),
        delta_net(threads, limits, cursor),
        attention(threads, limits, cursor),
        ffn_hidden{cursor.take<float>(limits.tokens * limits.expert_width), limits.tokens,
                   limits.expert_width, limits.expert_width},
        bytes(cursor.bytes()) {}

  ProductScratch products;
  DeltaNetScratch delta_net;
  AttentionScratch attention;
  Rows ffn_hidden;
  int64_t bytes;
};

Result<std::unique_ptr<CpuBackend>> CpuBackend::create(int threads, const BackendLimits& limits,
                                                       const CpuBackendOptions& options) {
  const InstructionSet set = PENSTOCK_TRY(find_target(options.target));
  const auto bytes = static_cast<uint64_t>(scratch_bytes(threads, limits));
  AlignedMemory memory =
      PENSTOCK_TRY(AlignedMemory::create(bytes, "the scratch of the kernels", Prefault::kYes));
  const Scratch scratch(threads, limits, ScratchCursor(memory.bytes()));
  const ByteTiles byte_tiles = options.emulate_byte_tiles            ? ByteTiles::kEmulated
                               : set.unit == IntegerUnit::kByteTiles ? ByteTiles::kProcessor
                                                                     : ByteTiles::kNone;
  const KernelChoice choice = {set.target, options.arithmetic, byte_tiles,
                               set.unit == IntegerUnit::kPairDots};
  std::unique_ptr<CpuBackend> backend(
      new CpuBackend(threads, set, choice, options, std::move(memory), scratch));
  PENSTOCK_TRY(check_team(backend->pool_, threads));
  return backend;
}

CpuBackend::CpuBackend(int threads, const InstructionSet& set, const KernelChoice& choice,
                       const CpuBackendOptions& options, AlignedMemory memory,
                       const Scratch& scratch)
    : memory_(std::move(memory)),
      pool_(threads, options.spins),
      set_(set),
      choice_(choice),
      elementwise_(elementwise_kernels(choice.target)),
      products_(pool_, choice, scratch.products, options.tasks),
      delta_net_(pool_, choice.target, scratch.delta_net),
      attention_(pool_, choice.target, scratch.attention),
      ffn_hidden_(scratch.ffn_hidden) {}

int64_t CpuBackend::scratch_bytes(int threads, const BackendLimits& limits) {
  return Scratch(threads, limits, ScratchCursor()).bytes;
}

std::vector<std::string> CpuBackend::targets() {
  return target_names();
}

std::string CpuBackend::description() const {
  return fmt::format("{}, {}, {} thread{}", name_of(set_), name_of(choice_.arithmetic),
                     pool_.num_threads(), pool_.num_threads() == 1 ? "" : "s");
}

template <class Body>
void CpuBackend::for_rows(int64_t rows, int64_t row_elements, const Body& body) {
  if (rows * row_elements < kParallelElements) {
    for (int64_t row = 0; row < rows; ++row) body(row);
  } else {
    pool_.run(rows, [&](int64_t row, int) { body(row); });
  }
}

void CpuBackend::copy(Rows from, Rows to) {
  PENSTOCK_CHECK(from.count == to.count && from.width == to.width);
  for (int64_t t = 0; t < from.count; ++t) std::ranges::copy(from.row(t), to.row(t).begin());
}

void CpuBackend::clear(Rows rows) {
  for (int64_t t = 0; t < rows.count; ++t) std::ranges::fill(rows.row(t), 0.0f);
}

Fence CpuBackend::upload(std::span<const float> from, Rows to) {
  PENSTOCK_CHECK(to.count == 1 && std::ssize(from) == to.width);
  std::ranges::copy(from, to.row(0).begin());
  return {};
}

Result<void> CpuBackend::read_back(Rows from, std::span<float> to) {
  PENSTOCK_CHECK(from.count == 1 && std::ssize(to) == from.width);
  std::ranges::copy(from.row(0), to.begin());
  return {};
}

void CpuBackend::embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) {
  PENSTOCK_CHECK(out.count == std::ssize(tokens) && out.width == table.columns);
  for_rows(out.count, 8 * out.width, [&](int64_t t) {
    const int64_t token = tokens[static_cast<size_t>(t)];
    if (!table.is_coded()) return panel_row(table, token, out.row(t));
    PENSTOCK_CHECK(table.coded.order == nullptr);
    decode_row(table.coded, token, out.row(t), {});
  });
}

void CpuBackend::rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) {
  PENSTOCK_CHECK(x.count == out.count && x.width == out.width && std::ssize(weight) == x.width);
  for_rows(x.count, x.width, [&](int64_t t) {
    elementwise_.rms_norm(x.row(t).data(), weight.data(), eps, x.width, out.row(t).data());
  });
}

void CpuBackend::add(Rows x, Rows y, Rows out) {
  PENSTOCK_CHECK(x.count == y.count && x.count == out.count);
  PENSTOCK_CHECK(x.width == y.width && x.width == out.width);
  for_rows(x.count, x.width, [&](int64_t t) {
    elementwise_.add(x.row(t).data(), y.row(t).data(), x.width, out.row(t).data());
  });
}

void CpuBackend::matmul(Rows x, std::span<const Projection> projections) {
  products_.run(std::ssize(projections), [&](int64_t i) {
    const Projection& projection = projections[static_cast<size_t>(i)];
    PENSTOCK_CHECK(projection.out.count == x.count);
    PENSTOCK_CHECK(projection.out.width == projection.weight.rows);
    return ProductJob{.weight = projection.weight,
                      .bias = projection.bias,
                      .x = x,
                      .out = projection.out,
                      .num_rows = x.count};
  });
  end_op();
}

void CpuBackend::delta_net(const DeltaNetCall& call) {
  delta_net_.run(call);
  end_op();
}

void CpuBackend::attention(const AttentionCall& call) {
  attention_.run(call);
  end_op();
}

void CpuBackend::dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                           Rows out) {
  PENSTOCK_CHECK(gate.rows == up.rows && gate.rows == down.columns && down.rows == out.width);
  PENSTOCK_CHECK(x.count <= ffn_hidden_.count && gate.rows <= ffn_hidden_.width);
  const Rows hidden = {ffn_hidden_.data, x.count, gate.rows, gate.rows};
  products_.run(1, [&](int64_t) {
    return ProductJob{.weight = up, .gate = gate, .x = x, .out = hidden, .num_rows = x.count};
  });
  products_.run(1, [&](int64_t) {
    return ProductJob{.weight = down, .x = hidden, .out = out, .num_rows = x.count};
  });
  end_op();
}

namespace {

// The top_k largest of one row, by falling logit; equal logits: lower index first. What is not a
// number counts as the smallest.
void choose(std::span<const float> logits, std::span<int32_t> experts, std::span<float> weights) {
  size_t chosen = 0;
  for (size_t e = 0; e < logits.size(); ++e) {
    const float logit = std::isnan(logits[e]) ? -std::numeric_limits<float>::infinity() : logits[e];
    if (chosen == experts.size() && !(logit > weights[chosen - 1])) continue;
    size_t place = chosen < experts.size() ? chosen++ : chosen - 1;
    for (; place > 0 && logit > weights[place - 1]; --place) {
      weights[place] = weights[place - 1];
      experts[place] = experts[place - 1];
    }
    weights[place] = logit;
    experts[place] = static_cast<int32_t>(e);
  }
}

// Logits to weights: the softmax over `all`, or renormalised over the chosen ones, which is the
// softmax over these (then `all` is empty). What is not a number counts as the smallest.
void to_weights(std::span<float> logits, std::span<const float> all) {
  const float largest = logits[0];
  float sum = 0;
  for (const float logit : all) {
    if (!std::isnan(logit)) sum += exact_exp(logit - largest);
  }
  for (float& logit : logits) {
    logit = exact_exp(logit - largest);
    if (all.empty()) sum += logit;
  }
  const float part = exact_reciprocal(sum);
  for (float& logit : logits) logit = exact_product(logit, part);
}

}  // namespace

Result<void> CpuBackend::route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) {
  const int64_t top_k = rule.top_k;
  const auto k = static_cast<size_t>(top_k);
  PENSTOCK_CHECK(top_k >= 1 && top_k <= logits.width);
  PENSTOCK_CHECK(std::ssize(routing.experts) >= logits.count * top_k);
  PENSTOCK_CHECK(std::ssize(routing.weights) >= logits.count * top_k);
  routing.num_tokens = logits.count;
  routing.top_k = rule.top_k;
  for_rows(logits.count, 4 * logits.width, [&](int64_t t) {
    const size_t first = static_cast<size_t>(t) * k;
    const std::span<float> weights(routing.weights.data() + first, k);
    choose(logits.row(t), {routing.experts.data() + first, k}, weights);
    to_weights(weights, rule.renormalise ? std::span<const float>() : logits.row(t));
  });
  return {};
}

void CpuBackend::expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) {
  products_.run(std::ssize(work), [&](int64_t i) {
    const ExpertWork& expert = work[static_cast<size_t>(i)];
    PENSTOCK_CHECK(expert.tokens.size() == expert.places.size());
    return ProductJob{.weight = expert.up,
                      .gate = expert.gate,
                      .first_row = expert.up_first_row,
                      .x = x,
                      .out = hidden,
                      .num_rows = std::ssize(expert.places),
                      .x_rows = expert.tokens,
                      .out_rows = expert.places};
  });
  end_op();
}

void CpuBackend::expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) {
  products_.run(std::ssize(work), [&](int64_t i) {
    const ExpertWork& expert = work[static_cast<size_t>(i)];
    PENSTOCK_CHECK(expert.down.rows == out.width);
    return ProductJob{.weight = expert.down,
                      .x = hidden,
                      .out = out,
                      .num_rows = std::ssize(expert.places),
                      .x_rows = expert.places,
                      .out_rows = expert.places};
  });
}

void CpuBackend::combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
                         Rows y) {
  const int64_t top_k = routing.top_k;
  PENSTOCK_CHECK(routing.num_tokens == y.count && expert_rows.count >= y.count * top_k);
  PENSTOCK_CHECK(expert_rows.width == y.width);
  const bool has_shared = shared.count > 0;
  PENSTOCK_CHECK(!has_shared || (shared.count == y.count && shared.width == y.width));
  for_rows(y.count, top_k * y.width, [&](int64_t t) {
    elementwise_.combine(expert_rows.data + t * top_k * expert_rows.stride, expert_rows.stride,
                         routing.weights.data() + t * top_k, routing.top_k,
                         has_shared ? shared_gate.row(t)[0] : 0.0f,
                         has_shared ? shared.row(t).data() : nullptr, y.width, y.row(t).data());
  });
}

}  // namespace penstock
