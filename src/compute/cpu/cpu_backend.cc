#include "compute/cpu/cpu_backend.h"

#include <fmt/format.h>

#include "compute/reference.h"

namespace penstock {

Result<std::unique_ptr<CpuBackend>> CpuBackend::create(int threads, const BackendLimits&,
                                                       const CpuBackendOptions&) {
  return std::unique_ptr<CpuBackend>(new CpuBackend(threads));
}

int64_t CpuBackend::scratch_bytes(int, const BackendLimits&) {
  return 0;
}

std::vector<std::string> CpuBackend::targets() {
  return {"plain"};
}

std::string CpuBackend::description() const {
  return fmt::format("plain, {} threads", pool_.num_threads());
}

void CpuBackend::embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) {
  ReferenceBackend().embed(table, tokens, out);
}
void CpuBackend::rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) {
  ReferenceBackend().rms_norm(x, weight, eps, out);
}
void CpuBackend::add(Rows x, Rows y, Rows out) {
  ReferenceBackend().add(x, y, out);
}
void CpuBackend::matmul(Rows x, std::span<const Projection> projections) {
  ReferenceBackend().matmul(x, projections);
}
void CpuBackend::gated_delta_net(const DeltaNetShape& shape, const DeltaNetWeights& weights,
                                 const DeltaNetState& state, Rows qkv, Rows z, Rows b, Rows a,
                                 Rows out) {
  ReferenceBackend().gated_delta_net(shape, weights, state, qkv, z, b, a, out);
}
void CpuBackend::gated_attention(const AttentionShape& shape, const AttentionWeights& weights,
                                 const RopeTable& rope, const KvCache& cache,
                                 int64_t first_position, Rows q_gate, Rows k, Rows v, Rows out) {
  ReferenceBackend().gated_attention(shape, weights, rope, cache, first_position, q_gate, k, v,
                                     out);
}
void CpuBackend::dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                           Rows out) {
  ReferenceBackend().dense_ffn(x, gate, up, down, out);
}
void CpuBackend::route_top_k(Rows logits, int top_k, Routing& routing) {
  ReferenceBackend().route_top_k(logits, top_k, routing);
}
void CpuBackend::expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) {
  ReferenceBackend().expert_gate_up(x, work, hidden);
}
void CpuBackend::expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) {
  ReferenceBackend().expert_down(hidden, work, out);
}
void CpuBackend::combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
                         Rows y) {
  ReferenceBackend().combine(expert_rows, routing, shared, shared_gate, y);
}

}  // namespace penstock
