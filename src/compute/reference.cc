#include "compute/reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "compute/coded_panels.h"
#include "compute/fixed16.h"

namespace penstock {
namespace {

using Values = std::vector<double>;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double silu(double x) {
  return x * sigmoid(x);
}
double softplus(double x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}

double dot(std::span<const double> x, std::span<const double> y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

Values widen(std::span<const float> x) {
  return {x.begin(), x.end()};
}

// x / sqrt(mean(x^2) + eps) * weight
Values rms_normalised(std::span<const float> x, const float* weight, double eps) {
  Values y = widen(x);
  const double scale = 1 / std::sqrt(dot(y, y) / static_cast<double>(y.size()) + eps);
  for (size_t i = 0; i < y.size(); ++i) y[i] *= scale * weight[i];
  return y;
}

double row_product(const Matrix& matrix, int64_t row, std::span<const float> x) {
  std::vector<float> weights(x.size());
  panel_row(matrix, row, weights);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += double{weights[i]} * x[i];
  return sum;
}

// hidden = silu(gate x) .* (up x); the up rows may follow the gate rows in the same matrix.
void gate_up(std::span<const float> x, const Matrix& gate, const Matrix& up, int64_t first_up_row,
             std::span<float> hidden) {
  for (int64_t i = 0; i < std::ssize(hidden); ++i) {
    hidden[static_cast<size_t>(i)] =
        static_cast<float>(silu(row_product(gate, i, x)) * row_product(up, first_up_row + i, x));
  }
}

void product(const Matrix& matrix, std::span<const float> x, const float* bias,
             std::span<float> out) {
  PENSTOCK_CHECK(std::ssize(x) == matrix.columns && std::ssize(out) == matrix.rows);
  for (int64_t o = 0; o < matrix.rows; ++o) {
    const double sum = row_product(matrix, o, x) + (bias == nullptr ? 0.0 : bias[o]);
    out[static_cast<size_t>(o)] = static_cast<float>(sum);
  }
}

}  // namespace

void ReferenceBackend::copy(Rows from, Rows to) {
  PENSTOCK_CHECK(from.count == to.count && from.width == to.width);
  for (int64_t t = 0; t < from.count; ++t) std::ranges::copy(from.row(t), to.row(t).begin());
}

void ReferenceBackend::clear(Rows rows) {
  for (int64_t t = 0; t < rows.count; ++t) std::ranges::fill(rows.row(t), 0.0f);
}

Fence ReferenceBackend::upload(std::span<const float> from, Rows to) {
  PENSTOCK_CHECK(to.count == 1 && std::ssize(from) == to.width);
  std::ranges::copy(from, to.row(0).begin());
  return {};
}

Result<void> ReferenceBackend::read_back(Rows from, std::span<float> to) {
  PENSTOCK_CHECK(from.count == 1 && std::ssize(to) == from.width);
  std::ranges::copy(from.row(0), to.begin());
  return {};
}

void ReferenceBackend::embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) {
  for (size_t t = 0; t < tokens.size(); ++t) {
    panel_row(table, tokens[t], out.row(static_cast<int64_t>(t)));
  }
}

void ReferenceBackend::rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) {
  for (int64_t t = 0; t < x.count; ++t) {
    const Values y = rms_normalised(x.row(t), weight.data(), eps);
    std::transform(y.begin(), y.end(), out.row(t).begin(),
                   [](double value) { return static_cast<float>(value); });
  }
}

void ReferenceBackend::add(Rows x, Rows y, Rows out) {
  for (int64_t t = 0; t < x.count; ++t) {
    std::transform(x.row(t).begin(), x.row(t).end(), y.row(t).begin(), out.row(t).begin(),
                   std::plus<>());
  }
}

void ReferenceBackend::matmul(Rows x, std::span<const Projection> projections) {
  for (const Projection& projection : projections) {
    for (int64_t t = 0; t < x.count; ++t) {
      product(projection.weight, x.row(t), projection.bias, projection.out.row(t));
    }
  }
}

namespace {

// silu of the causal convolution of one token's channels; then the history moves on by one token.
Values convolve(const DeltaNetShape& shape, const float* taps, float* history,
                std::span<const float> input) {
  const size_t channels = input.size();
  const auto kernel = static_cast<size_t>(shape.conv_kernel);
  Values output(channels);
  for (size_t c = 0; c < channels; ++c) {
    double sum = double{taps[c * kernel + kernel - 1]} * input[c];
    for (size_t j = 0; j + 1 < kernel; ++j) {
      sum += double{taps[c * kernel + j]} * history[j * channels + c];
    }
    output[c] = silu(sum);
  }
  if (kernel > 1) {
    std::copy(history + channels, history + (kernel - 1) * channels, history);
    std::copy(input.begin(), input.end(), history + (kernel - 2) * channels);
  }
  return output;
}

// x / sqrt(sum(x^2) + 1e-6): the constant is the architecture's own, not rms_norm_eps.
Values l2_normalised(std::span<const double> x, double scale) {
  const double factor = scale / std::sqrt(dot(x, x) + 1e-6);
  Values y(x.begin(), x.end());
  for (double& value : y) value *= factor;
  return y;
}

// One token of one value head: S = decay S; S += k (beta (v - S^T k))^T; the result is S^T q.
Values delta_rule(const Values& q, const Values& k, std::span<const double> v, double decay,
                  double beta, float* memory) {
  const size_t key_dim = k.size();
  const size_t value_dim = v.size();
  Values out(value_dim);
  for (size_t j = 0; j < value_dim; ++j) {
    double predicted = 0;
    for (size_t i = 0; i < key_dim; ++i) predicted += decay * memory[i * value_dim + j] * k[i];
    const double delta = beta * (v[j] - predicted);
    for (size_t i = 0; i < key_dim; ++i) {
      float& cell = memory[i * value_dim + j];
      const double updated = decay * cell + k[i] * delta;
      out[j] += updated * q[i];
      cell = static_cast<float>(updated);
    }
  }
  return out;
}

void copy_state(const DeltaNetShape& shape, const DeltaNetState& from, const DeltaNetState& to) {
  if (from.memory == to.memory) return;
  std::copy_n(from.conv_history, (shape.conv_kernel - 1) * shape.conv_channels(), to.conv_history);
  std::copy_n(from.memory, int64_t{shape.value_heads} * shape.key_dim * shape.value_dim, to.memory);
}

}  // namespace

void ReferenceBackend::delta_net(const DeltaNetCall& call) {
  const DeltaNetShape& shape = call.shape;
  const DeltaNetWeights& weights = call.weights;
  const Rows qkv = call.qkv, z = call.z, b = call.b, a = call.a, out = call.out;
  const auto key_dim = static_cast<size_t>(shape.key_dim);
  const auto value_dim = static_cast<size_t>(shape.value_dim);
  const size_t keys = static_cast<size_t>(shape.key_heads) * key_dim;
  const int heads_per_key = shape.value_heads / shape.key_heads;
  copy_state(shape, call.before, call.after);
  float* history = call.after.conv_history;
  float* memory = call.after.memory;
  for (int64_t t = 0; t < qkv.count; ++t) {
    if (call.ahead.memory != nullptr && t + 1 == qkv.count) {
      copy_state(shape, call.after, call.ahead);
      history = call.ahead.conv_history;
      memory = call.ahead.memory;
    }
    const Values conv = convolve(shape, weights.conv, history, qkv.row(t));
    const std::span<const double> channels(conv);
    for (size_t h = 0; h < static_cast<size_t>(shape.value_heads); ++h) {
      const size_t key_head = h / static_cast<size_t>(heads_per_key);
      const Values q = l2_normalised(channels.subspan(key_head * key_dim, key_dim),
                                     1 / std::sqrt(static_cast<double>(key_dim)));
      const Values k = l2_normalised(channels.subspan(keys + key_head * key_dim, key_dim), 1);
      const auto v = channels.subspan(2 * keys + h * value_dim, value_dim);
      const double decay =
          std::exp(weights.decay[h] * softplus(double{a.row(t)[h]} + double{weights.dt_bias[h]}));
      const Values o =
          delta_rule(q, k, v, decay, sigmoid(b.row(t)[h]), memory + h * key_dim * value_dim);
      const double norm =
          1 / std::sqrt(dot(o, o) / static_cast<double>(value_dim) + double{shape.rms_norm_eps});
      for (size_t j = 0; j < value_dim; ++j) {
        const double gate = silu(z.row(t)[h * value_dim + j]);
        out.row(t)[h * value_dim + j] = static_cast<float>(o[j] * norm * weights.norm[j] * gate);
      }
    }
  }
}

namespace {

// Rotates the pairs (i, i + rotary_dim / 2) of one head; the other components stay.
void rotate(const RopeTable& rope, int rotary_dim, int64_t position, Values& head) {
  const auto half = static_cast<size_t>(rotary_dim) / 2;
  const float* cosine = rope.cos + position * static_cast<int64_t>(half);
  const float* sine = rope.sin + position * static_cast<int64_t>(half);
  for (size_t i = 0; i < half; ++i) {
    const double first = head[i];
    const double second = head[i + half];
    head[i] = first * cosine[i] - second * sine[i];
    head[i + half] = second * cosine[i] + first * sine[i];
  }
}

// Where a position's row of one kv head lies.
float* cached(const KvCache& cache, int64_t part, const AttentionShape& shape, int64_t kv_head,
              int64_t position) {
  return cache.pages[static_cast<size_t>(position / kKvPagePositions)] + part +
         (kv_head * kKvPagePositions + position % kKvPagePositions) *
             kv_row_floats(cache.form, shape.head_dim);
}

void put(const KvCache& cache, const std::vector<float>& row, float* place) {
  if (cache.form == KvForm::kFloat32) {
    std::ranges::copy(row, place);
  } else {
    encode_kv(row.data(), std::ssize(row), place);
  }
}

std::vector<float> taken(const KvCache& cache, const float* place, int64_t head_dim) {
  std::vector<float> row(place, place + kv_row_floats(cache.form, head_dim));
  if (cache.form == KvForm::kFloat32) return row;
  std::vector<float> decoded(static_cast<size_t>(head_dim));
  decode_kv(row.data(), head_dim, decoded.data());
  return decoded;
}

// sum_p softmax(query . key_p)_p * value_p over the first `positions` of one kv head.
Values attend(const Values& query, const AttentionCall& call, int64_t kv_head, int64_t positions) {
  const auto head_dim = std::ssize(query);
  const KvCache& cache = call.cache;
  Values scores;
  for (int64_t p = 0; p < positions; ++p) {
    const auto key =
        taken(cache, cached(cache, cache.keys, call.shape, kv_head, p), call.shape.head_dim);
    double score = 0;
    for (size_t i = 0; i < query.size(); ++i) score += query[i] * key[i];
    scores.push_back(score / std::sqrt(static_cast<double>(head_dim)));
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  Values result(query.size());
  for (int64_t p = 0; p < positions; ++p) {
    const auto value =
        taken(cache, cached(cache, cache.values, call.shape, kv_head, p), call.shape.head_dim);
    for (size_t i = 0; i < query.size(); ++i) {
      result[i] += scores[static_cast<size_t>(p)] / sum * value[i];
    }
  }
  return result;
}

}  // namespace

void ReferenceBackend::attention(const AttentionCall& call) {
  const AttentionShape& shape = call.shape;
  const auto head_dim = static_cast<size_t>(shape.head_dim);
  const size_t query_width = head_dim * (shape.output_gate ? 2 : 1);
  PENSTOCK_CHECK(call.first_position + call.k.count <= call.cache.capacity());
  for (int64_t t = 0; t < call.k.count; ++t) {
    const int64_t position = call.first_position + t;
    for (size_t j = 0; j < static_cast<size_t>(shape.kv_heads); ++j) {
      const auto kv_head = static_cast<int64_t>(j);
      Values key = rms_normalised(call.k.row(t).subspan(j * head_dim, head_dim),
                                  call.weights.k_norm, shape.rms_norm_eps);
      rotate(call.rope, shape.rotary_dim, position, key);
      std::vector<float> row;
      for (const double value : key) row.push_back(static_cast<float>(value));
      put(call.cache, row, cached(call.cache, call.cache.keys, shape, kv_head, position));
      const auto value = call.v.row(t).subspan(j * head_dim, head_dim);
      put(call.cache, {value.begin(), value.end()},
          cached(call.cache, call.cache.values, shape, kv_head, position));
    }
    if (call.out.count == 0) continue;
    for (size_t h = 0; h < static_cast<size_t>(shape.heads); ++h) {
      const auto query_and_gate = call.q.row(t).subspan(h * query_width, query_width);
      Values query =
          rms_normalised(query_and_gate.first(head_dim), call.weights.q_norm, shape.rms_norm_eps);
      rotate(call.rope, shape.rotary_dim, position, query);
      const int kv_head = static_cast<int>(h) / (shape.heads / shape.kv_heads);
      const Values mixed = attend(query, call, kv_head, position + 1);
      for (size_t i = 0; i < head_dim; ++i) {
        const double gate = shape.output_gate ? sigmoid(query_and_gate[head_dim + i]) : 1;
        call.out.row(t)[h * head_dim + i] = static_cast<float>(mixed[i] * gate);
      }
    }
  }
}

void ReferenceBackend::dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                                 Rows out) {
  std::vector<float> hidden(static_cast<size_t>(gate.rows));
  for (int64_t t = 0; t < x.count; ++t) {
    gate_up(x.row(t), gate, up, 0, hidden);
    product(down, hidden, nullptr, out.row(t));
  }
}

Result<void> ReferenceBackend::route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) {
  routing.num_tokens = logits.count;
  routing.top_k = rule.top_k;
  const auto chosen = static_cast<size_t>(rule.top_k);
  for (int64_t t = 0; t < logits.count; ++t) {
    const auto row = logits.row(t);
    std::vector<int32_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t left, int32_t right) {
      return row[static_cast<size_t>(left)] > row[static_cast<size_t>(right)];
    });
    Values weights(row.size());
    double sum = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      weights[i] =
          std::exp(double{row[static_cast<size_t>(order[i])]} - row[static_cast<size_t>(order[0])]);
      if (i < chosen || !rule.renormalise) sum += weights[i];
    }
    for (size_t i = 0; i < chosen; ++i) {
      const size_t place = static_cast<size_t>(t) * chosen + i;
      routing.experts[place] = order[i];
      routing.weights[place] = static_cast<float>(weights[i] / sum);
    }
  }
  return {};
}

void ReferenceBackend::expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) {
  for (const ExpertWork& expert : work) {
    PENSTOCK_CHECK(hidden.width <= expert.gate.rows &&
                   expert.up_first_row + hidden.width <= expert.up.rows);
    for (size_t j = 0; j < expert.tokens.size(); ++j) {
      gate_up(x.row(expert.tokens[j]), expert.gate, expert.up, expert.up_first_row,
              hidden.row(expert.places[j]));
    }
  }
}

void ReferenceBackend::expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) {
  for (const ExpertWork& expert : work) {
    for (const int32_t place : expert.places) {
      product(expert.down, hidden.row(place), nullptr, out.row(place));
    }
  }
}

void ReferenceBackend::combine(Rows expert_rows, const Routing& routing, Rows shared,
                               Rows shared_gate, Rows y) {
  for (int64_t t = 0; t < y.count; ++t) {
    for (size_t i = 0; i < static_cast<size_t>(y.width); ++i) {
      double sum = 0;
      for (int k = 0; k < routing.top_k; ++k) {
        const int64_t place = t * routing.top_k + k;
        sum += double{routing.weights[static_cast<size_t>(place)]} * expert_rows.row(place)[i];
      }
      if (shared.count > 0) sum += sigmoid(shared_gate.row(t)[0]) * shared.row(t)[i];
      y.row(t)[i] = static_cast<float>(sum);
    }
  }
}

namespace {

// One block of x as integers times a scale.
struct FixedBlock {
  std::array<int32_t, kGroupColumns> codes;
  float scale;
  float sum;  // of what the codes stand for

  explicit FixedBlock(std::span<const float> x) : codes() {
    float largest = 0;
    for (const float value : x) {
      const float size =
          std::isnan(value) ? std::numeric_limits<float>::infinity() : std::fabs(value);
      largest = std::max(largest, size);
    }
    const FixedScale block(largest);
    scale = block.scale;
    int32_t total = 0;
    for (size_t c = 0; block.is_number() && c < x.size(); ++c) {
      codes[c] = static_cast<int32_t>(std::nearbyint(x[c] * block.factor));
      PENSTOCK_CHECK(std::abs(codes[c]) <= kFixedCodeMax);
      total += codes[c];
    }
    sum = static_cast<float>(total) * scale;
  }
};

// A row of a matrix in coded panels, from the bytes that the file had for it.
float code_product(const Matrix& matrix, int64_t row, std::span<const float> inputs) {
  const Coding& coding = matrix.coded.coding;
  const int64_t columns = matrix.columns;
  const RowBytes bytes = row_bytes(coding, columns), panel = row_panel_bytes(coding, columns);
  const auto index = static_cast<uint64_t>(row / kPanelRows);
  const auto plane = [&](CodedPlane which, const std::byte* panels, uint64_t each, uint64_t size) {
    std::vector<std::byte> made(size);
    if (size > 0) {
      row_of_panel(coding, which, columns, panels + index * each,
                   static_cast<int>(row % kPanelRows), made);
    }
    return made;
  };
  const auto codes = plane(CodedPlane::kCodes, matrix.coded.codes, panel.codes, bytes.codes);
  const auto scales = plane(CodedPlane::kScales, matrix.coded.scales, panel.scales, bytes.scales);
  const auto biases = plane(CodedPlane::kBiases, matrix.coded.biases, panel.biases, bytes.biases);
  std::vector<float> x(inputs.begin(), inputs.end());
  if (const ColumnOrder* order = matrix.coded.order; order != nullptr) {
    for (size_t c = 0; c < x.size(); ++c) {
      const auto width = static_cast<size_t>(order->width);
      x[static_cast<size_t>(order->stored[c / width]) * width + c % width] = inputs[c];
    }
  }
  const auto group_width = static_cast<size_t>(code_group_columns(coding));
  const size_t step = std::min<size_t>(group_width, kGroupColumns);
  float total = 0;
  for (size_t start = 0; start < x.size(); start += kGroupColumns) {
    const FixedBlock fixed(std::span<const float>(x).subspan(start, kGroupColumns));
    for (size_t first = 0; first < kGroupColumns; first += step) {
      const size_t column = start + first;
      const CodeGroup group =
          code_group(coding, codes, scales, biases, static_cast<int64_t>(column / group_width));
      int32_t sum = 0, inputs_sum = 0;
      for (size_t c = 0; c < step; ++c) {
        sum += group.codes[column % group_width + c] * fixed.codes[first + c];
        inputs_sum += fixed.codes[first + c];
      }
      total = total + group.scale * (static_cast<float>(sum) * fixed.scale);
      if (!has_minima(coding)) continue;
      total = total + group.minimum * (static_cast<float>(inputs_sum) * fixed.scale);
    }
  }
  return total;
}

}  // namespace

void panel_product(const Matrix& matrix, std::span<const float> x, Arithmetic arithmetic,
                   std::span<float> out) {
  PENSTOCK_CHECK(std::ssize(x) == matrix.columns && std::ssize(out) == matrix.rows);
  std::vector<float> weights(x.size()), stored(x.size());
  for (int64_t row = 0; row < matrix.rows; ++row) {
    float total = 0;
    if (multiplies_codes(matrix, arithmetic)) {
      out[static_cast<size_t>(row)] = code_product(matrix, row, x);
      continue;
    }
    if (matrix.is_coded()) {
      decode_row(matrix.coded, row, weights, stored);
    } else if (!is_quantised(matrix.dtype)) {
      panel_row(matrix, row, weights);
    }
    for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
      const size_t start = static_cast<size_t>(block * kGroupColumns);
      const auto values = x.subspan(start, std::min<size_t>(kGroupColumns, x.size() - start));
      float products = 0, inputs = 0;
      if (!is_quantised(matrix.dtype)) {
        for (size_t c = 0; c < values.size(); ++c) {
          products = std::fma(weights[start + c], values[c], products);
        }
        total = total + products;
        continue;
      }
      const AffineGroup group = panel_group(matrix, row, block);
      const float scale = bf16_to_f32(group.scale);
      const float bias = bf16_to_f32(group.bias);
      if (arithmetic == Arithmetic::kFixed16) {
        const FixedBlock fixed(values);
        const int32_t sum =
            std::inner_product(fixed.codes.begin(), fixed.codes.end(), group.codes, int32_t{0});
        total = total + scale * (static_cast<float>(sum) * fixed.scale);
        total = total + bias * fixed.sum;
        continue;
      }
      for (size_t c = 0; c < values.size(); ++c) {
        products = std::fma(static_cast<float>(group.codes[c]), values[c], products);
        inputs = inputs + values[c];
      }
      total = std::fma(scale, products, total);
      total = std::fma(bias, inputs, total);
    }
    out[static_cast<size_t>(row)] = total;
  }
}

}  // namespace penstock
