#include "gpu/cheaper_side.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace penstock {

int64_t CheaperSide::row_class(int64_t rows) {
  PENSTOCK_DCHECK(rows > 0);
  return std::bit_width(static_cast<uint64_t>(rows - 1));
}

Side CheaperSide::choose(const Kind& kind) {
  if (rule_ != SideRule::kCheaper) {
    return rule_ == SideRule::kDevice ? Side::kDevice : Side::kProcessors;
  }
  Times& times = times_[kind];
  for (const Side side : {Side::kDevice, Side::kProcessors}) {
    if (times.tries[at(side)] == 0) return side;
  }
  const double best = times.cost[at(times.best)], rest = times.cost[at(other(times.best))];
  const Side rarer = times.tries[at(Side::kDevice)] <= times.tries[at(Side::kProcessors)]
                         ? Side::kDevice
                         : Side::kProcessors;
  if (rest < kClose * best && times.tries[at(rarer)] < kCloseTries) return rarer;
  // A look costs rest - best; so many calls apart it is kLookShare of them.
  const double apart = std::max(1.0, rest / best) / kLookShare;
  if (static_cast<double>(++times.calls) < apart) return times.best;
  times.calls = 0;
  return other(times.best);
}

void CheaperSide::note(const Kind& kind, Side side, double cost) {
  if (rule_ != SideRule::kCheaper) return;
  Times& times = times_[kind];
  double& known = times.cost[at(side)];
  int64_t& tries = times.tries[at(side)];
  // The first ones are never too short and often too long: something is done for the first time.
  known = tries == 0            ? cost
          : tries < kCloseTries ? std::min(known, cost)
                                : known + (side == times.best ? kNew : kNewOfLook) * (cost - known);
  ++tries;
  if (times.tries[at(other(side))] == 0) {
    times.best = side;
    return;
  }
  const Side rival = other(times.best);
  if (times.cost[at(rival)] < kLead * times.cost[at(times.best)]) {
    times.best = rival;
    times.calls = 0;
  }
}

}  // namespace penstock
