// A token's experts from two holders: its first choices from the one, those from a rank on from the
// other, which has the same experts in fewer bits.
//
// The router lists a token's experts by falling weight, so the last ones count least. Who computes a
// choice follows from its rank alone: never from what is in memory, so answers do not depend on budget,
// threads, chunks or history.
//
// Reads for both begin with the run; the first choices are computed first.
//
// Threads  the computing thread
// Memory   two lists of a call's choices, and two of a guess
// Errors   as Experts
#pragma once

#include <cstdint>
#include <optional>

#include "experts/local_experts.h"

namespace penstock {

// Each choice of `routing` in one of the shares, whose weights stay what they were; in the other one
// stands kElsewhere. What is left out (kNoExpert) is so in the share of its rank.
void split_by_rank(const Routing& routing, int64_t from_rank, Routing& first, Routing& rest);

class SplitExperts final : public Experts {
 public:
  // from_rank: 1 to K + 1, the first rank that `rest` computes. Both may have the same rows for what
  // is between gate, up and down: no row is used by both. They and their backend outlive it.
  SplitExperts(LocalExperts& first, LocalExperts& rest, Backend& backend, int64_t from_rank);
  ~SplitExperts() override;
  SplitExperts(const SplitExperts&) = delete;
  SplitExperts& operator=(const SplitExperts&) = delete;

  bool wants_foresight() const override;
  void foresee(int layer, const Routing& guess) override;

 protected:
  void start(int layer, const Routing& routing, Rows x) override;
  Result<ExpertTimes> finish(Rows out, const std::stop_token& stop) override;
  void end() override;

 private:
  struct Shares {
    Routing first, rest;
  };

  LocalExperts& first_;
  LocalExperts& rest_;
  Backend& backend_;
  const int64_t from_rank_;
  Shares shares_, guesses_;
  std::optional<ExpertRun> first_run_, rest_run_;
};

}  // namespace penstock
