// The op book on the processors of this machine.
//
// Owns a team of threads and the scratch memory of every op, both made once. The vector
// instructions are chosen when the backend is made, from what the processor has.
//
// Threads  all calls from one thread; ops use the whole team and have finished when they return
// Memory   scratch_bytes() exactly, allocated in create(); ops allocate nothing
// Errors   create(): kOutOfMemory, kInvalidArgument (an unknown target)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "compute/backend.h"
#include "compute/cpu/attention.h"
#include "compute/cpu/delta_net.h"
#include "compute/cpu/elementwise.h"
#include "compute/cpu/products.h"
#include "compute/cpu/target.h"

namespace penstock {

struct CpuBackendOptions {
  std::string target;  // one of targets(); empty: the best one
  Arithmetic arithmetic = Arithmetic::kFixed16;
  TaskCut tasks = {};
  int spins = ThreadPool::kSpins;   // of the team
  bool emulate_byte_tiles = false;  // for tests: as a unit for tiles would compute, in plain code
};

class CpuBackend final : public Backend {
 public:
  static Result<std::unique_ptr<CpuBackend>> create(int threads, const BackendLimits& limits,
                                                    const CpuBackendOptions& options = {});

  // What create() allocates, in bytes.
  static int64_t scratch_bytes(int threads, const BackendLimits& limits);

  // Names of the instruction sets of this build that this processor has, best first.
  static std::vector<std::string> targets();

  // Idle between ops: for other short work of the thread that calls them.
  ThreadPool& team() { return pool_; }

  std::string description() const override;
  Memory& memory() override { return host_memory_; }
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
  struct Scratch;

  CpuBackend(int threads, const InstructionSet& set, const KernelChoice& choice,
             const CpuBackendOptions& options, AlignedMemory memory, const Scratch& scratch);

  // Runs body(first, end) over [0, rows), on one thread where there is too little to share.
  template <class Body>
  void for_rows(int64_t rows, int64_t row_elements, const Body& body);

  HostMemory host_memory_;
  AlignedMemory memory_;
  ThreadPool pool_;
  InstructionSet set_;
  KernelChoice choice_;
  const ElementwiseKernels& elementwise_;
  Products products_;
  DeltaNet delta_net_;
  Attention attention_;
  Rows ffn_hidden_;  // [tokens, expert_width]
};

}  // namespace penstock
