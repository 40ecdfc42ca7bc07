// The op book: what a model may ask of the machine. Coarse ops, one contract each.
//
// Ops run in call order. On the CPU they are finished when the call returns; a device may only have
// queued them. So nobody looks at outputs but through an op that waits (route_top_k, read_back),
// and bytes that a queued op reads may be reused only when a fence behind it has passed. No op knows
// a model's name, a file or an expert's place.
//
// Each op computes every row (token) independently of the other rows of the call, in an order of
// operations that follows from the shapes alone: results do not depend on how a prompt was cut into
// chunks, on the number of threads, or on which experts were computed first.
//
// Shapes   n tokens, H hidden, I expert width, E experts, K experts per token, C conv channels
// Threads  all calls from one thread
// Memory   all scratch is allocated at creation from BackendLimits; ops allocate nothing
// Errors   only ops that wait can fail: kIo when a device is lost. Wrong shapes are our own mistakes and
//          end the program
// Source   docs/model.md; plain versions of every op in compute/reference.h
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/place.h"
#include "base/result.h"
#include "compute/kv_codes.h"
#include "compute/panel.h"
#include "compute/rows.h"

namespace penstock {

// One matrix product of a matmul call: out[t, o] = bias[o] + sum_i x[t, i] * weight[o, i].
struct Projection {
  Matrix weight;      // [out, in]
  const float* bias;  // [out] or nullptr
  Rows out;           // [n, out]
};

struct DeltaNetShape {
  int key_heads = 0, value_heads = 0;  // value head h uses key head h / (value_heads / key_heads)
  int key_dim = 0, value_dim = 0;
  int conv_kernel = 0;  // taps, oldest first
  float rms_norm_eps = 0;

  int64_t conv_channels() const {
    return 2LL * key_heads * key_dim + 1LL * value_heads * value_dim;
  }
};

struct DeltaNetWeights {
  const float* conv;     // [C, conv_kernel]
  const float* decay;    // [value_heads]: -exp(A_log)
  const float* dt_bias;  // [value_heads]
  const float* norm;     // [value_dim], plain multiplier
};

// What a delta-net layer remembers of a sequence. Both zero at its start.
struct DeltaNetState {
  float* conv_history = nullptr;  // [conv_kernel - 1, C], raw inputs, oldest first
  float* memory = nullptr;        // [value_heads, key_dim, value_dim]
};

// Causal convolution, gates, delta rule and gated norm of one sequence's rows, token by token (the
// recurrent form).
//
// The state is read from `before` and written to `after`, so that a pass that fails has changed
// nothing; both may be the same. Where `ahead` is given, the last row is on trial (a drafted
// token): `after` stops at the row before it, and `ahead` is what the state would be after it.
struct DeltaNetCall {
  const DeltaNetShape& shape;
  const DeltaNetWeights& weights;
  DeltaNetState before;
  DeltaNetState after;
  DeltaNetState ahead;  // nullptrs: no row is on trial
  Rows qkv;             // [n, C] as projected: q heads, k heads, v heads
  Rows z;               // [n, value_heads * value_dim]
  Rows b, a;            // [n, value_heads]
  Rows out;             // [n, value_heads * value_dim]
};

// A delta-net layer from its input to what is added to the residual: projections of x, the op above for
// each sequence's rows, the projection of what these give.
struct DeltaNetBlock {
  Rows x;                   // [n, H]
  Projection qkv, z, b, a;  // outputs: those of the calls, of all rows
  std::span<const DeltaNetCall>
      calls;          // one for each sequence, in the order of the rows; at least one
  Rows mixed;         // [n, value_heads * value_dim]: the calls' outs
  Projection output;  // of mixed; [n, H]
};

struct AttentionShape {
  int heads = 0, kv_heads = 0, head_dim = 0, rotary_dim = 0;
  float rms_norm_eps = 0;
  bool output_gate = true;  // a sigmoid gate on what attention gives

  int64_t query_width() const { return (output_gate ? 2LL : 1LL) * heads * head_dim; }
  int64_t kv_width() const { return 1LL * kv_heads * head_dim; }

  bool operator==(const AttentionShape&) const = default;
};

struct AttentionWeights {
  const float* q_norm;  // [head_dim], full multiplier (1 + w)
  const float* k_norm;  // [head_dim]
};

// Rows of cos and sin by position: [positions, rotary_dim / 2].
struct RopeTable {
  const float* cos;
  const float* sin;
};

// Positions of a page of keys and values: one segment of the attention kernel, so that a page is
// read as one piece (compute/cpu/attention.h).
inline constexpr int64_t kKvPagePositions = 504;

// Keys and values of one layer and one sequence, in pages: position p is in pages[p / 504]. Pages
// belong to whole sequences; this layer's part begins at the same place in each.
struct KvCache {
  std::span<float* const> pages;
  int64_t keys = 0;    // where they begin in a page, in floats: [kv_heads, 504, row]
  int64_t values = 0;  // likewise
  // A row is head_dim floats, or those in codes (compute/kv_codes.h).
  KvForm form = KvForm::kFloat32;

  int64_t capacity() const { return std::ssize(pages) * kKvPagePositions; }
};

// Norms and rotates q and k, appends k and v to the cache at first_position.., attends causally
// and, where the shape has one, applies the sigmoid output gate. The rows are one sequence's.
struct AttentionCall {
  const AttentionShape& shape;
  const AttentionWeights& weights;
  const RopeTable& rope;
  KvCache cache;
  int64_t first_position = 0;
  Rows q;     // [n, query_width()], per head the query, then its gate where there is one
  Rows k, v;  // [n, kv_width()]
  Rows out;   // [n, heads * head_dim]; without rows: only appends, q is not read
};

// How a router chooses: softmax over all experts, the top_k largest, renormalised or as they are.
struct RoutingRule {
  int top_k = 0;
  bool renormalise = true;

  RoutingRule(int k, bool to_one = true) : top_k(k), renormalise(to_one) {}
};

// The router's choice for n tokens. Sized by the caller to [n * top_k].
struct Routing {
  int64_t num_tokens = 0;
  int top_k = 0;
  std::vector<int32_t> experts;  // [n, top_k], by falling logit; equal logits: lower index first
  std::vector<float> weights;    // [n, top_k]; renormalised: each row sums to 1
};

// One routed expert and the rows that go through it. Gate and up may be one matrix, one below the
// other, or two, of two types.
struct ExpertWork {
  Matrix gate = {};                      // [I, H]; rows below the first I are not looked at
  Matrix up = {};                        // [I, H], from up_first_row on
  Matrix down = {};                      // [H, I]
  int64_t up_first_row = 0;              // I where up follows gate in the same panels
  std::span<const int32_t> tokens = {};  // rows of x
  std::span<const int32_t> places = {};  // rows of hidden and out: token * top_k + rank
};

// Of a matrix [2 * I, H]: I gate rows, then I up rows.
inline ExpertWork work_of_gate_up(const Matrix& gate_up, const Matrix& down,
                                  std::span<const int32_t> tokens,
                                  std::span<const int32_t> places) {
  return {.gate = gate_up,
          .up = gate_up,
          .down = down,
          .up_first_row = gate_up.rows / 2,
          .tokens = tokens,
          .places = places};
}

// A point in the order of ops. Everything before it has ended when it has passed.
struct Fence {
  uint64_t number = 0;
};

// What the largest call will need. Everything is allocated from these at creation.
struct BackendLimits {
  int64_t tokens = 1;             // rows of one forward pass
  int64_t hidden_size = 0;        // H
  int64_t width = 0;              // widest input or output of any matmul but the head
  int64_t top_k = 0;              // K
  int64_t expert_width = 0;       // widest hidden of any ffn: expert, shared expert, dense
  int64_t context = 0;            // positions a KV cache may hold
  int64_t coded_columns = 0;      // of the widest matrix in coded rows; 0: there are none
  KvForm kv_form = {};            // of caches; with codes there may be float32 as well
  AttentionShape attention = {};  // zeros where the model has none
  DeltaNetShape delta_net = {};
};

class Backend {
 public:
  virtual ~Backend() = default;

  // What the computing thread does between ops: called at the end of each that takes long, by an op
  // that has left nothing running here. For those who have to look after something meanwhile, and
  // must not compute. Empty: nothing.
  void set_between_ops(std::function<void()> between_ops) { between_ops_ = std::move(between_ops); }

  // "AVX3, 2 threads"
  virtual std::string description() const = 0;

  // The memory that weights, activations and states of this backend's ops lie in.
  virtual Memory& memory() = 0;

  // to = from, to = 0: rows of this backend's memory.
  virtual void copy(Rows from, Rows to) = 0;
  virtual void clear(Rows rows) = 0;

  // One row from the host's memory, which may be reused when the fence has passed; and back: waits
  // for all ops so far.
  virtual Fence upload(std::span<const float> from, Rows to) = 0;
  virtual Result<void> read_back(Rows from, std::span<float> to) = 0;

  // A fence behind all ops so far; whether it has passed. Neither waits.
  virtual Fence fence() = 0;
  virtual bool has_passed(Fence fence) = 0;

  // out[t] = table[tokens[t]]. table: [vocab, H], out: [n, H].
  virtual void embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) = 0;

  // out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight. weight: [width], the full multiplier.
  virtual void rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) = 0;

  // out[t] = x[t] + y[t]. May be in place.
  virtual void add(Rows x, Rows y, Rows out) = 0;

  // All products of one input. x: [n, in].
  virtual void matmul(Rows x, std::span<const Projection> projections) = 0;

  // The two mixers; contracts with their calls. A pass over several sequences calls them once for
  // each, everything else once for all rows.
  virtual void delta_net(const DeltaNetCall& call) = 0;
  virtual void attention(const AttentionCall& call) = 0;

  // The ops that it consists of, one after the other; a device may do them in one go. Only the states and
  // output.out are what they would be: of the rows in between nothing is said.
  virtual void delta_net_block(const DeltaNetBlock& block) {
    const Projection inputs[] = {block.qkv, block.z, block.b, block.a};
    matmul(block.x, inputs);
    for (const DeltaNetCall& call : block.calls) delta_net(call);
    matmul(block.mixed, {&block.output, 1});
  }

  // out = down * (silu(gate x) .* (up x)). gate, up: [Is, H], down: [H, Is]; x, out: [n, H].
  virtual void dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                         Rows out) = 0;

  // The choice by `rule`. logits: [n, E]. Waits for all ops so far; `routing` is on the host.
  virtual Result<void> route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) = 0;

  // hidden[places[j]] = silu(gate * x[tokens[j]]) .* (up * x[tokens[j]]). hidden: [n * K, I].
  // Uses no byte of work.down. All works of one call have the same types.
  virtual void expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) = 0;

  // out[places[j]] = down * hidden[places[j]]. out: [n * K, H].
  virtual void expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) = 0;

  // y[t] = sum_k weights[t, k] * expert_rows[t * K + k], k in order from zero; then
  // y[t] = y[t] + sigmoid(shared_gate[t]) * shared[t] (compute/exact_math.h).
  // expert_rows: [n * K, H], shared: [n, H], shared_gate: [n, 1], y: [n, H]. A `shared` without
  // rows: there is no shared expert, and y stays as the sum is; shared_gate is not read.
  virtual void combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
                       Rows y) = 0;

 protected:
  void end_op() const {
    if (between_ops_) between_ops_();
  }

 private:
  std::function<void()> between_ops_;
};

}  // namespace penstock
