// The op book with a device beside the processors: products of matrices that lie in the device's memory
// are computed there, all else by the backend that it stands before, and the bits are that one's.
//
//   matmul      those of the call's projections that lie there, while the processors do the others
//   delta_net_block   the whole of it, with its states, where its large matrices lie there (gpu_delta_nets.h)
//   attention   of many rows or positions, with a copy of keys and values (gpu_attention.h)
//   dense_ffn   where gate, up and down lie there; the call only queues it, and the next op that may
//               look at its rows waits. Experts may be computed meanwhile
//
// Calls of many rows, which processors do well, are done by whichever of both takes less time for them
// (gpu/cheaper_side.h).
//
// The host keeps every matrix as well. When the device is lost, the processors compute what it had
// taken and all that follows.
//
//   auto backend = PENSTOCK_TRY(GpuBackend::create(device, use, cpu, trunk));
//   backend->load();                                        // when the host's matrices are loaded
//
// Threads  as Backend; rows are moved by the team
// Memory   bytes_for_rows() and the matrices: all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. Later none of its own: the device is lost instead
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compute/backend.h"
#include "gpu/cheaper_side.h"
#include "gpu/gpu_attention.h"
#include "gpu/gpu_delta_nets.h"
#include "gpu/gpu_experts.h"
#include "gpu/gpu_matmul.h"
#include "gpu/gpu_matrices.h"
#include "gpu/gpu_use.h"

namespace penstock {

// What lies on a device beside experts, and room for rows of its calls.
struct GpuTrunk {
  std::vector<Matrix> matrices = {};
  int64_t rows = 1;     // of x, at a time: a call with more goes in waves of half as many
  int64_t columns = 0;  // of the widest x
  int64_t results = 0;  // floats of products, at a time; at least two rows of the widest matrix's
  int64_t hidden_size = 0;  // of dense_ffn; 0: its matrices are not among these
  int64_t ffn_width = 0;
  GpuDeltaNetLimits delta_nets = {};  // no layers: their ops are the processors'
  GpuAttentionLimits attention = {};  // likewise
  int64_t few_rows = INT64_MAX;       // calls of more are whose `many` says
  SideRule many = SideRule::kCheaper;
};

struct GpuTrunkReport {
  int64_t matrices = 0;   // that lie there
  uint64_t bytes = 0;     // of the device's memory, rows and copies included
  uint64_t products = 0;  // computed there, over all calls
  uint64_t ffns = 0;
  uint64_t delta_nets = 0;  // whole blocks
  uint64_t attentions = 0;
};

class GpuBackend final : public Backend {
 public:
  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  // Beside the matrices: GpuMatrices::bytes_for(). Both count as the device's; its share of the host's
  // memory is also told.
  static Bytes bytes_for_rows(const GpuTrunk& trunk);

  // Device, use and cpu outlive it.
  static Result<std::unique_ptr<GpuBackend>> create(GpuDevice& device, GpuUse& use, Backend& cpu,
                                                    const GpuTrunk& trunk,
                                                    HostRows host = HostRows());
  ~GpuBackend() override;
  GpuBackend(const GpuBackend&) = delete;
  GpuBackend& operator=(const GpuBackend&) = delete;

  // Copies the matrices over. Until then the processors compute all.
  void load();
  GpuTrunkReport report() const { return report_; }

  std::string description() const override { return cpu_.description(); }
  Memory& memory() override { return cpu_.memory(); }
  void copy(Rows from, Rows to) override;
  void clear(Rows rows) override;
  Fence upload(std::span<const float> from, Rows to) override;
  Result<void> read_back(Rows from, std::span<float> to) override;
  Fence fence() override;
  bool has_passed(Fence fence) override;
  void embed(const Matrix& table, std::span<const int32_t> tokens, Rows out) override;
  void rms_norm(Rows x, std::span<const float> weight, float eps, Rows out) override;
  void add(Rows x, Rows y, Rows out) override;
  void matmul(Rows x, std::span<const Projection> projections) override;
  void delta_net(const DeltaNetCall& call) override;
  void attention(const AttentionCall& call) override;
  void delta_net_block(const DeltaNetBlock& block) override;
  void dense_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down,
                 Rows out) override;
  Result<void> route_top_k(Rows logits, const RoutingRule& rule, Routing& routing) override;
  void expert_gate_up(Rows x, std::span<const ExpertWork> work, Rows hidden) override;
  void expert_down(Rows hidden, std::span<const ExpertWork> work, Rows out) override;
  void combine(Rows expert_rows, const Routing& routing, Rows shared, Rows shared_gate,
               Rows y) override;

 private:
  // A dense_ffn that the device computes.
  struct Ffn {
    Rows x, out;
    Matrix gate, up, down;
    CheaperSide::Kind kind;
    double cost = 0;               // seconds that were spent on it
    int64_t first = 0, count = 0;  // the rows that the device has taken
    int64_t begun = 0, done = 0;   // of these
  };

  GpuBackend(GpuUse& use, Backend& cpu, const GpuTrunk& trunk);
  std::span<const GpuPiece> find(const Matrix& matrix) const;
  static GpuExpertShape shape_of(const Matrix& gate, const Matrix& down);
  bool goes_on(const Result<void>& result);  // otherwise the device is lost
  void share_out(Rows x, std::span<const Projection> projections);
  void multiply_there(Rows x);
  std::span<const GpuProduct> wave_at(int64_t first);
  Result<void> begin_waves(Rows x);
  Result<void> finish_waves(Rows x);
  bool has_ffn(Rows x, const Matrix& gate, const Matrix& up, const Matrix& down) const;
  bool queue_ffn();
  Result<void> take_ffn_rows();
  Result<void> begin_ffn_waves();
  Result<void> finish_ffn_waves();
  GpuBlockPieces pieces_of(const DeltaNetBlock& block) const;
  bool run_block_there(const DeltaNetBlock& block);
  bool run_many_there(const DeltaNetBlock& block, const GpuBlockPieces& pieces);
  bool run_attention_there(const AttentionCall& call);
  void multiply_gates_here(const DeltaNetBlock& block, const GpuBlockPieces& pieces);
  // Before the host reads such floats, or writes them: where they are of states that lie there.
  void settle_states();
  void before_host_reads(const float* begin, int64_t floats);
  void before_host_writes(const float* begin, int64_t floats);
  void settle();  // after it no row is still to come from the device
  void settle_for(Rows read, Rows written);

  GpuUse& use_;
  Backend& cpu_;
  const GpuTrunk trunk_;
  std::optional<GpuMatrices> matrices_;
  std::optional<GpuMatmul> matmul_;
  std::optional<GpuExperts> ffn_;
  std::optional<GpuDeltaNets> delta_nets_;
  std::optional<GpuAttention> attention_;
  bool has_brought_more_ = false;  // its latest call, than its own rows
  GpuTrunkReport report_;
  CheaperSide products_side_, ffn_side_, blocks_side_, attention_side_;

  // Of the call.
  std::vector<Projection> here_, there_;  // who computes which
  std::vector<GpuProduct> products_;      // those there
  std::vector<GpuProduct> wave_;          // some rows of these
  int64_t columns_ = 0;                   // of their results together
  int64_t wave_rows_ = 0, begun_ = 0;     // of x

  std::optional<Ffn> pending_;
  std::vector<int32_t> all_rows_;  // 0, 1, ...
};

}  // namespace penstock
