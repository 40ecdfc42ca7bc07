// Every op of the op book in plain loops: what the fast versions are tested against.
//
// Written to be read, never to be fast. Sums are kept in double and rounded to f32 once, where a
// value is written, so a fast version may differ by its own rounding errors and by no more. The one
// exception is panel_product, which follows panel.h operation by operation and gives the very bits
// that every kernel must give.
//
// Threads  plain functions of their arguments; the backend has no state
// Memory   allocates temporaries freely
// Errors   none: the host is never lost
// Source   docs/model.md, Forward pass
#pragma once

#include "compute/backend.h"

namespace penstock {

class ReferenceBackend final : public Backend {
 public:
  std::string description() const override { return "reference"; }
  Memory& memory() override { return memory_; }
  void copy(Rows from, Rows to) override;
  void clear(Rows rows) override;
  Fence upload(std::span<const float> from, Rows to) override;
  Result<void> read_back(Rows from, std::span<float> to) override;
  Fence fence() override { return {}; }
  bool has_passed(Fence) override { return true; }
  void embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) override;
  void rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) override;
  void add(Rows x, Rows y, Rows out) override;
  void matmul(Rows x, std::span<const Projection> projections) override;
  void delta_net(const DeltaNetCall& call) override;
  void attention(const AttentionCall& call) override;
  void dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                 Rows out) override;
  Result<void> route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) override;
  void expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) override;
  void expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) override;
  void combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
               Rows y) override;

 private:
  HostMemory memory_;
};

// out[o] = sum_i w[o, i] * x[i], in exactly the order of operations of panel.h.
// x: [columns], out: [rows].
void panel_product(const Matrix& matrix, std::span<const float> x, Arithmetic arithmetic,
                   std::span<float> out);

}  // namespace penstock
