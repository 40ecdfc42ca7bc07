// The four-layer toy model of the specification, section 10, run on the op book alone.
//
// Its weights come from a formula and its values were computed independently in double, so this
// shows that the ops mean what the architecture means, for the plain ops and for every instruction
// set: layers 0-2 are delta-nets, layer 3 is attention, every layer has routed experts.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>

#include "compute/cpu/cpu_backend.h"
#include "compute/reference.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::OwnedMatrix;
using test::OwnedRows;

constexpr int64_t kToyHidden = 64, kExperts = 16, kToyWidth = 32, kSharedWidth = 48,
                  kVocabulary = 128;
constexpr int kTopK = 4, kToyTokens = 70, kLayers = 4;
constexpr DeltaNetShape kToyDeltaNet = {2, 4, 16, 16, 4, 1e-6f};
constexpr AttentionShape kToyAttention = {4, 2, 32, 8, 1e-6f};

uint64_t hash_of(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Elements [first, first + count) of a tensor.
std::vector<float> tensor(const std::string& name, int64_t count, double offset, double scale,
                          int64_t first = 0) {
  const uint64_t hash = hash_of(name);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t index = static_cast<uint64_t>(first) + i;
    const double u = static_cast<double>(splitmix64(hash + index) >> 40) / 16777216.0;
    values[i] = static_cast<float>(offset + scale * (2 * u - 1));
  }
  return values;
}

std::string layer_name(int layer, const std::string& rest) {
  return "model.language_model.layers." + std::to_string(layer) + "." + rest;
}

class ToyModel {
 public:
  explicit ToyModel(Backend& ops) : ops_(ops) {
    for (int t = 0; t < kToyTokens; ++t) tokens_.push_back((7 * t + 3) % kVocabulary);
    for (int position = 0; position < kToyTokens; ++position) {
      for (int i = 0; i < 4; ++i) {
        const double angle = position * std::pow(1e7, -2.0 * i / 8);
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    for (auto& each : history_) each.resize(3 * 128);
    for (auto& each : memory_) each.resize(4 * 16 * 16);
  }

  // Logits [kToyTokens, vocabulary] of the tokens in chunks of the given sizes.
  OwnedRows run(const std::vector<int>& chunks) {
    OwnedRows logits(kToyTokens, kVocabulary, 0);
    int first = 0;
    for (const int count : chunks) {
      const OwnedRows chunk = run_chunk(first, count);
      std::copy(chunk.values.begin(), chunk.values.end(),
                logits.values.begin() + first * kVocabulary);
      first += count;
    }
    EXPECT_EQ(first, kToyTokens);
    return logits;
  }

  // The delta-net memory of layer 0: Frobenius norm of one head.
  double memory_norm(size_t head) const {
    double sum = 0;
    for (size_t i = 0; i < 256; ++i) sum += std::pow(memory_[0][head * 256 + i], 2.0);
    return std::sqrt(sum);
  }
  const std::vector<int32_t>& last_experts(int layer) { return experts_[layer]; }
  const std::vector<float>& last_weights(int layer) { return weights_[layer]; }

 private:
  const Matrix& matrix(const std::string& name, int64_t rows, int64_t columns, double gain = 1) {
    auto& owned = matrices_[name];
    if (owned == nullptr) {
      const double scale = gain * static_cast<float>(std::sqrt(3.0 / static_cast<double>(columns)));
      owned = std::make_unique<OwnedMatrix>(DType::kF32, tensor(name, rows * columns, 0, scale),
                                            rows, columns);
    }
    return owned->matrix;
  }
  // The experts of a layer are one tensor; each takes its part of it.
  const Matrix& expert_matrix(const std::string& name, int32_t expert, int64_t rows,
                              int64_t columns) {
    auto& owned = matrices_[name + std::to_string(expert)];
    if (owned == nullptr) {
      const float scale = static_cast<float>(std::sqrt(3.0 / static_cast<double>(columns)));
      const int64_t size = rows * columns;
      owned = std::make_unique<OwnedMatrix>(
          DType::kF32, tensor(name, size, 0, scale, expert * size), rows, columns);
    }
    return owned->matrix;
  }
  std::vector<float> norm(const std::string& name, int64_t width) {
    return tensor(name, width, 1, 0.1);
  }
  void product(const Matrix& weight, const OwnedRows& x, const OwnedRows& out) {
    const Projection projections[] = {{weight, nullptr, out.rows}};
    ops_.matmul(x.rows, projections);
  }

  OwnedRows run_chunk(int first, int count) {
    const OwnedRows x(count, kToyHidden), h(count, kToyHidden), y(count, kToyHidden);
    auto& table = matrices_["embed"];
    if (table == nullptr) {
      table = std::make_unique<OwnedMatrix>(
          DType::kF32,
          tensor("model.language_model.embed_tokens.weight", kVocabulary * kToyHidden, 0, 1),
          kVocabulary, kToyHidden);
    }
    ops_.embed(table->matrix, std::span(tokens_).subspan(first, count), x.rows);
    for (int layer = 0; layer < kLayers; ++layer) {
      ops_.rms_norm(x.rows, norm(layer_name(layer, "input_layernorm.weight"), kToyHidden), 1e-6f,
                    h.rows);
      layer == 3 ? attention(layer, first, h, y) : delta_net(layer, h, y);
      ops_.add(x.rows, y.rows, x.rows);
      ops_.rms_norm(x.rows, norm(layer_name(layer, "post_attention_layernorm.weight"), kToyHidden),
                    1e-6f, h.rows);
      experts(layer, h, y);
      ops_.add(x.rows, y.rows, x.rows);
    }
    ops_.rms_norm(x.rows, norm("model.language_model.norm.weight", kToyHidden), 1e-6f, h.rows);
    OwnedRows logits(count, kVocabulary, 0);
    product(matrix("lm_head.weight", kVocabulary, kToyHidden), h, logits);
    return logits;
  }

  void delta_net(int layer, const OwnedRows& h, const OwnedRows& y) {
    const auto name = [layer](const std::string& rest) {
      return layer_name(layer, "linear_attn." + rest);
    };
    const int64_t count = h.rows.count;
    const OwnedRows qkv(count, 128), z(count, 64), b(count, 4), a(count, 4), out(count, 64);
    product(matrix(name("in_proj_qkv.weight"), 128, kToyHidden), h, qkv);
    product(matrix(name("in_proj_z.weight"), 64, kToyHidden), h, z);
    product(matrix(name("in_proj_b.weight"), 4, kToyHidden), h, b);
    product(matrix(name("in_proj_a.weight"), 4, kToyHidden), h, a);
    std::vector<float> decay = tensor(name("A_log"), 4, 0, 1);
    for (float& value : decay) value = -std::exp(value);
    const auto conv = tensor(name("conv1d.weight"), 128 * 4, 0, 0.6);
    const auto dt_bias = tensor(name("dt_bias"), 4, 0, 0.5);
    const auto gated_norm = tensor(name("norm.weight"), 16, 1, 0.2);
    const auto at = static_cast<size_t>(layer);
    const DeltaNetState state = {history_[at].data(), memory_[at].data()};
    ops_.delta_net({.shape = kToyDeltaNet,
                    .weights = {conv.data(), decay.data(), dt_bias.data(), gated_norm.data()},
                    .before = state,
                    .after = state,
                    .ahead = {},
                    .qkv = qkv.rows,
                    .z = z.rows,
                    .b = b.rows,
                    .a = a.rows,
                    .out = out.rows});
    product(matrix(name("out_proj.weight"), kToyHidden, 64), out, y);
  }

  void attention(int layer, int first, const OwnedRows& h, const OwnedRows& y) {
    const auto name = [layer](const std::string& rest) {
      return layer_name(layer, "self_attn." + rest);
    };
    const int64_t count = h.rows.count;
    const OwnedRows q_gate(count, 256), k(count, 64), v(count, 64), out(count, 128);
    product(matrix(name("q_proj.weight"), 256, kToyHidden), h, q_gate);
    product(matrix(name("k_proj.weight"), 64, kToyHidden), h, k);
    product(matrix(name("v_proj.weight"), 64, kToyHidden), h, v);
    const auto q_norm = norm(name("q_norm.weight"), 32), k_norm = norm(name("k_norm.weight"), 32);
    float* const page = page_.data();
    ops_.attention({.shape = kToyAttention,
                    .weights = {q_norm.data(), k_norm.data()},
                    .rope = {cos_.data(), sin_.data()},
                    .cache = {std::span(&page, 1), 0, kToyAttention.kv_width() * kKvPagePositions},
                    .first_position = first,
                    .q = q_gate.rows,
                    .k = k.rows,
                    .v = v.rows,
                    .out = out.rows});
    product(matrix(name("o_proj.weight"), kToyHidden, 128), out, y);
  }

  void experts(int layer, const OwnedRows& h, const OwnedRows& y) {
    const auto name = [layer](const std::string& rest) { return layer_name(layer, "mlp." + rest); };
    const int64_t count = h.rows.count;
    const auto choices = static_cast<size_t>(count) * kTopK;
    const OwnedRows logits(count, kExperts), hidden(count * kTopK, kToyWidth),
        rows(count * kTopK, kToyHidden), shared(count, kToyHidden), shared_gate(count, 1);
    product(matrix(name("gate.weight"), kExperts, kToyHidden, 2), h, logits);
    Routing routing = {0, 0, std::vector<int32_t>(choices), std::vector<float>(choices)};
    EXPECT_TRUE(ops_.route_top_k(logits.rows, kTopK, routing));

    for (int32_t e = 0; e < kExperts; ++e) {
      std::vector<int32_t> row_list, places;
      for (size_t place = 0; place < choices; ++place) {
        if (routing.experts[place] != e) continue;
        row_list.push_back(static_cast<int32_t>(place) / kTopK);
        places.push_back(static_cast<int32_t>(place));
      }
      if (places.empty()) continue;
      const ExpertWork work[] = {work_of_gate_up(
          expert_matrix(name("experts.gate_up_proj"), e, 2 * kToyWidth, kToyHidden),
          expert_matrix(name("experts.down_proj"), e, kToyHidden, kToyWidth), row_list, places)};
      ops_.expert_gate_up(h.rows, work, hidden.rows);
      ops_.expert_down(hidden.rows, work, rows.rows);
    }
    ops_.dense_ffn(h.rows, matrix(name("shared_expert.gate_proj.weight"), kSharedWidth, kToyHidden),
                   matrix(name("shared_expert.up_proj.weight"), kSharedWidth, kToyHidden),
                   matrix(name("shared_expert.down_proj.weight"), kToyHidden, kSharedWidth),
                   shared.rows);
    product(matrix(name("shared_expert_gate.weight"), 1, kToyHidden), h, shared_gate);
    ops_.combine(rows.rows, routing, shared.rows, shared_gate.rows, y.rows);
    experts_[layer] = {routing.experts.end() - kTopK, routing.experts.end()};
    weights_[layer] = {routing.weights.end() - kTopK, routing.weights.end()};
  }

  Backend& ops_;
  std::vector<int32_t> tokens_;
  std::vector<float> cos_, sin_;
  std::map<std::string, std::unique_ptr<OwnedMatrix>> matrices_;
  std::array<std::vector<float>, kLayers> history_, memory_;
  std::vector<float> page_ =
      std::vector<float>(static_cast<size_t>(2 * kToyAttention.kv_width() * kKvPagePositions));
  std::map<int, std::vector<int32_t>> experts_;
  std::map<int, std::vector<float>> weights_;
};

struct Expected {
  int position;
  size_t argmax;
  std::array<double, 6> first;
  double sum_of_squares;
};

const Expected kExpected[] = {
    {0, 37, {-0.153432, -1.189423, -0.704218, 0.293818, 0.372587, -2.456726}, 118.86471},
    {1, 42, {-0.454885, -0.321724, -0.791048, -0.591868, -1.081074, 0.030118}, 123.34941},
    {5, 24, {-0.279790, -0.962099, 0.407215, -1.125881, 1.509722, 0.845293}, 110.21187},
    {63, 41, {0.254780, 0.215683, -0.738843, 1.412690, 1.504900, 0.748302}, 103.86072},
    {64, 86, {0.276026, 0.600962, -1.249854, 0.294049, -0.335971, 0.474586}, 145.65862},
    {69, 81, {1.304365, -0.406068, 0.836393, 0.256092, 0.183896, 1.419384}, 115.97255},
};

// f32 arithmetic of the official implementation differs from these by up to 3.4e-5.
void expect_logits(const OwnedRows& logits) {
  for (const Expected& expected : kExpected) {
    const auto row = logits.rows.row(expected.position);
    for (size_t i = 0; i < expected.first.size(); ++i) {
      EXPECT_NEAR(row[i], expected.first[i], 5e-5) << "position " << expected.position;
    }
    double squares = 0;
    for (const float value : row) squares += double{value} * value;
    EXPECT_NEAR(squares, expected.sum_of_squares, 2e-3);
    EXPECT_EQ(static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin()),
              expected.argmax);
  }
}

void expect_state(ToyModel& model) {
  const double norms[] = {0.343260, 1.304516, 0.786790, 0.675036};
  for (size_t head = 0; head < 4; ++head) {
    EXPECT_NEAR(model.memory_norm(head), norms[head], 2e-6);
  }
  const std::vector<int32_t> experts[] = {
      {0, 8, 10, 9}, {10, 4, 15, 12}, {9, 8, 6, 10}, {9, 10, 7, 15}};
  const std::array<double, 4> weights[] = {{0.506163, 0.204731, 0.194743, 0.094363},
                                           {0.370303, 0.334357, 0.162811, 0.132530},
                                           {0.468623, 0.353676, 0.090203, 0.087499},
                                           {0.466339, 0.226816, 0.155108, 0.151738}};
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(model.last_experts(layer), experts[layer]) << "layer " << layer;
    for (size_t k = 0; k < kTopK; ++k) {
      EXPECT_NEAR(model.last_weights(layer)[k], weights[layer][k], 1e-5);
    }
  }
}

TEST(ToyModel, plain_ops_give_the_values_of_the_specification) {
  ReferenceBackend reference;
  ToyModel model(reference);
  expect_logits(model.run({kToyTokens}));
  expect_state(model);
}

class ToyModelOn : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<CpuBackend> ops = CpuBackend::create(2,
                                                       {.tokens = kToyTokens,
                                                        .hidden_size = kToyHidden,
                                                        .width = 256,
                                                        .top_k = kTopK,
                                                        .expert_width = kSharedWidth,
                                                        .context = kToyTokens,
                                                        .attention = kToyAttention,
                                                        .delta_net = kToyDeltaNet},
                                                       {.target = GetParam()})
                                        .value();
};

TEST_P(ToyModelOn, kernels_give_the_values_of_the_specification_in_any_chunks) {
  ToyModel whole(*ops);
  const OwnedRows logits = whole.run({kToyTokens});
  expect_logits(logits);
  expect_state(whole);
  std::vector<int> chunks(30, 1);
  chunks.insert(chunks.begin(), 40);
  ToyModel cut(*ops);
  EXPECT_TRUE(test::same_bits(cut.run(chunks).values, logits.values));
}

INSTANTIATE_TEST_SUITE_P(Targets, ToyModelOn, testing::ValuesIn(CpuBackend::targets()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace penstock
