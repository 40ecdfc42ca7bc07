// Experts in this machine's memory and on its flash, computed by its own backend.
//
// The reads of a layer start the moment the router has chosen. While they are on their way, the
// caller computes other things and then the experts that are in memory; a missing one starts with
// its gate and up as soon as these are there. Between ops, on the computing thread, the backend lets
// the store take in what has come and start the next reads.
//
// A nearer tier, where there is one, takes the experts that it has and computes them at the same time; in calls
// of many rows also some of those that are here, the ones with the most rows. When it is lost meanwhile, its
// rows are computed here as well.
//
// Threads  the computing thread
// Memory   owns lists only: a pointer and a flag per part of an expert, a few numbers per row
// Errors   as Experts
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "experts/expert_source.h"
#include "experts/expert_tier.h"
#include "experts/experts.h"
#include "experts/routed_rows.h"
#include "store/expert_store.h"

namespace penstock {

class LocalExperts final : public Experts {
 public:
  // forms: of the layers of the store's table. hidden: [n * K, I] for the largest call, what is
  // between gate, up and down. Store, backend and tier, which may be absent, outlive it.
  LocalExperts(ExpertStore& store, Backend& backend, std::vector<ExpertForm> forms, Rows hidden,
               ExpertTier* tier = nullptr);
  ~LocalExperts() override;
  LocalExperts(const LocalExperts&) = delete;
  LocalExperts& operator=(const LocalExperts&) = delete;

  bool wants_foresight() const override { return store_.wants_prefetch(); }
  void foresee(int layer, const Routing& guess) override;

  // Between ops: what has come is taken in, and the next reads start. Whoever stands before several of
  // these has it called for each (experts/split_experts.h).
  void keep_reading() { store_.keep_reading(); }

 protected:
  void start(int layer, const Routing& routing, Rows x) override;
  Result<ExpertTimes> finish(Rows out, const std::stop_token& stop) override;
  void end() override;

 private:
  // How far an expert of the run is.
  struct Progress {
    int parts_here = 0;
    bool has_hidden = false;  // gate and up are computed
    bool is_done = false;
    bool is_shared = false;  // between here and the tier, as a whole
  };

  // Of an arrival: which expert of rows_ it is.
  size_t index_of(const ExpertArrival& arrival) const {
    return static_cast<size_t>(here_[static_cast<size_t>(arrival.index)]);
  }
  void name_experts();
  Result<void> compute_here(Rows out, const std::stop_token& stop, ExpertTimes& times);
  void note(const ExpertArrival& arrival);
  void compute(std::span<const ExpertArrival> arrivals, Rows out);
  void find_shared(std::span<const ExpertArrival> arrivals);
  void share(Rows out);
  void compute_whole(std::span<const ExpertTier::Guest> list, Rows out);
  void add_gate_up(size_t i);
  void add_down(size_t i);
  void run_work(Rows out);
  void release(int32_t expert);
  double rows_for(std::span<const ExpertTier::Guest> list) const;
  Matrix matrix_of(const PartMatrix& place, size_t expert) const;
  ExpertWork work_for(size_t i) const;

  ExpertStore& store_;
  Backend& backend_;
  const std::vector<ExpertForm> forms_;
  const Rows hidden_;
  const size_t parts_max_;
  ExpertTier* const tier_;

  // Of the run.
  int layer_ = 0;
  int64_t choices_ = 0;  // n * K
  Rows x_;
  RoutedRows rows_;
  std::vector<int32_t> here_;             // experts of rows_ that are computed here
  std::vector<int32_t> ids_, elsewhere_;  // the numbers of these, and of the others
  std::optional<ExpertStream> stream_;
  std::vector<Progress> progress_;       // [expert of rows_]
  std::vector<const std::byte*> parts_;  // [expert of rows_][part]
  std::vector<ExpertWork> gate_up_work_, down_work_;
  std::vector<int32_t> finished_;
  std::vector<ExpertTier::Guest> shared_;  // those with the fewest rows first
  std::vector<int32_t> ended_;             // of these, by the tier
  double row_s_ = 0;  // seconds of a row here, in calls that are shared; 0: not known

  std::vector<int32_t> votes_, wishes_;
};

}  // namespace penstock
