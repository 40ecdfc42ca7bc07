// What a token costs in bytes of experts: those that its routers chose, once each, were nothing in
// memory. It is the axis on which precision and numbers of experts can be compared.
//
// Threads  the computing thread
// Errors   none
#pragma once

#include <cstdint>
#include <vector>

#include "model/step.h"
#include "store/expert_table.h"

namespace penstock {

class ExpertTraffic {
 public:
  // copy: of the experts in fewer bits, from which a token's choices from `from_rank` on come; nullptr:
  // none. The tables outlive it.
  explicit ExpertTraffic(const ExpertTable& table, const ExpertTable* copy = nullptr,
                         int64_t from_rank = 0);

  RouteObserver observer();
  bool is_empty() const { return tokens_.empty() || tokens_.front() == 0; }

  // Means over all tokens that were observed.
  double bytes_per_token() const;
  double experts_per_token() const;  // of a layer

 private:
  void add(int64_t layer, const Routing& routing);

  const ExpertTable& table_;
  const ExpertTable* const copy_;
  const int64_t from_rank_;
  std::vector<int64_t> tokens_;            // [layer]
  std::vector<int64_t> chosen_, of_copy_;  // [layer]
};

}  // namespace penstock
