#include "gpu/cheaper_side.h"

#include <algorithm>
#include <bit>
#include <limits>

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
  if (times.looking > 0) return other(times.best);
  // A call of a look costs rest - best; so many calls apart looks are kLookShare of them.
  double apart = static_cast<double>(kLookCalls) * std::max(1.0, rest / best) / kLookShare;
  if (rest < kClose * best) apart = std::min(apart, static_cast<double>(times.next_look));
  if (static_cast<double>(++times.calls) < apart) return times.best;
  times.calls = 0;
  times.next_look = std::min(2 * times.next_look, kLastLook);
  times.looking = kLookCalls;
  times.seen = std::numeric_limits<double>::infinity();
  return other(times.best);
}

void CheaperSide::note(const Kind& kind, Side side, double cost) {
  if (rule_ != SideRule::kCheaper) return;
  Times& times = times_[kind];
  if (times.looking > 0 && side != times.best) {
    times.seen = std::min(times.seen, cost);
    if (--times.looking > 0) return;
    cost = times.seen;
  }
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
