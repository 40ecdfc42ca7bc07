#include "grammar/text_length.h"

#include <algorithm>
#include <array>

#include "grammar/expression.h"

namespace penstock {
namespace {

constexpr uint32_t kLookahead = 4096;      // lengths that are looked at one by one
constexpr size_t kPeriodicStatesMax = 64;  // so few states repeat themselves within the lookahead
constexpr uint32_t kNever = UINT32_MAX;

struct Rest {
  uint32_t shortest = kNever;
  uint32_t longest = 0;  // kUnlimited: no end
  bool has_gap = false;
};

// For k = 0, 1, ... : from which states can the text end after exactly k more units?
class RestLengths {
 public:
  RestLengths(const std::vector<RuleState>& states, uint64_t& steps_left)
      : states_(states), steps_left_(steps_left), rests_(states.size()) {
    for (const RuleState& state : states) edge_count_ += 1 + state.edges.size();
  }

  // False when the steps ran out.
  bool run(uint32_t last) {
    std::vector<uint8_t> now;
    std::vector<uint8_t> before(states_.size(), 0);
    for (uint32_t k = 0; k <= last; ++k) {
      now.assign(states_.size(), 0);
      bool changed = true;
      // Within a unit there are at most a dozen bytes, so this settles quickly.
      while (changed) {
        if (steps_left_ < edge_count_) return false;
        steps_left_ -= edge_count_;
        changed = false;
        for (size_t s = states_.size(); s-- > 0;) {
          if (now[s] != 0 || !can_end(s, k, now, before)) continue;
          now[s] = 1;
          changed = true;
        }
      }
      for (size_t s = 0; s < states_.size(); ++s) {
        if (now[s] != 0) note(rests_[s], k);
      }
      before.swap(now);
    }
    still_ = std::move(before);
    return true;
  }

  const Rest& rest(size_t state) const { return rests_[state]; }
  bool goes_on(size_t state) const { return still_[state] != 0; }

 private:
  bool can_end(size_t s, uint32_t k, const std::vector<uint8_t>& now,
               const std::vector<uint8_t>& before) const {
    if (k == 0 && states_[s].is_accepting) return true;
    return std::ranges::any_of(states_[s].edges, [&](const ByteEdge& edge) {
      return (states_[edge.target].ends_unit ? before : now)[edge.target] != 0;
    });
  }
  static void note(Rest& rest, uint32_t k) {
    if (rest.shortest == kNever) {
      rest.shortest = k;
    } else if (k != rest.longest + 1) {
      rest.has_gap = true;
    }
    rest.longest = k;
  }

  const std::vector<RuleState>& states_;
  uint64_t& steps_left_;
  std::vector<Rest> rests_;
  std::vector<uint8_t> still_;
  uint64_t edge_count_ = 0;
};

}  // namespace

Result<void> limit_length(std::vector<RuleState>& states, uint32_t min, uint32_t max,
                          uint64_t& steps_left) {
  for (const RuleState& state : states) {
    if (!state.calls.empty()) {
      return Error{ErrorCode::kUnsupported, "a text of limited length is too large"};
    }
  }
  const auto count = static_cast<uint32_t>(states.size());
  // With one limit only the shortest or only the longest rest matters, and a rest longer than the
  // number of states has a loop in it.
  const bool has_both = min > 0 && max != kUnlimited;
  uint32_t last = count + 1;
  if (has_both) {
    last = std::min(max, kLookahead);
    if (last < max && count > kPeriodicStatesMax) {
      return Error{ErrorCode::kUnsupported, "a pattern with such length limits is too large"};
    }
  }
  RestLengths lengths(states, steps_left);
  if (!lengths.run(last)) {
    return Error{ErrorCode::kUnsupported, "a pattern with such length limits is too large"};
  }
  for (size_t s = 0; s < states.size(); ++s) {
    Rest rest = lengths.rest(s);
    if (rest.shortest == kNever) continue;  // leads nowhere and is dropped later
    if (has_both && rest.has_gap) {
      return Error{ErrorCode::kUnsupported,
                   "the lengths that the pattern allows leave gaps between the limits"};
    }
    const bool is_endless = has_both ? lengths.goes_on(s) : rest.longest >= count;
    if (is_endless) rest.longest = kUnlimited;
    const Guard guard = {.has_range = true,
                         .count_min = rest.longest >= min ? 0 : min - rest.longest,
                         .count_max = max == kUnlimited      ? kUnlimited
                                      : rest.shortest <= max ? max - rest.shortest
                                                             : 0};
    const bool never_fits = rest.shortest > max;
    if (s == 0 && (never_fits || guard.count_min > 0)) {
      return Error{ErrorCode::kInvalidArgument, "no text of the allowed lengths fits"};
    }
    states[s].guard = guard;
    if (never_fits) states[s].guard.count_min = 1, states[s].guard.count_max = 0;
  }
  return {};
}

}  // namespace penstock
