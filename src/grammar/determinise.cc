#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "grammar/nfa.h"

namespace penstock {
namespace {

// A set of states between which no byte can choose, and what is true on arrival.
struct Subset {
  std::vector<uint32_t> states;  // sorted; only those with edges, calls or acceptance
  bool ends_unit = false;
  bool precedes_part = false;
  friend auto operator<=>(const Subset&, const Subset&) = default;
};

bool is_same_call(const RuleCall& a, const RuleCall& b) {
  return a.rule == b.rule && a.add == b.add && a.mark == b.mark && a.guard == b.guard;
}

class Determiniser {
 public:
  Determiniser(const std::vector<NfaState>& nfa, uint64_t& steps_left)
      : nfa_(nfa), steps_left_(steps_left), seen_(nfa.size(), 0) {}

  Result<std::vector<RuleState>> run() {
    const uint32_t start = 0;
    place(closure({&start, 1}));
    for (size_t i = 0; i < subsets_.size(); ++i) {
      if (subsets_.size() > kRuleStatesMax || steps_left_ == 0) {
        return Error{ErrorCode::kUnsupported,
                     "too complex: telling its alternatives apart takes too many states"};
      }
      expand(i);
    }
    return std::move(states_);
  }

 private:
  void take(uint64_t steps) { steps_left_ -= std::min(steps_left_, steps); }

  Subset closure(std::span<const uint32_t> roots) {
    Subset subset;
    ++stamp_;
    stack_.assign(roots.begin(), roots.end());
    while (!stack_.empty()) {
      const uint32_t id = stack_.back();
      stack_.pop_back();
      if (seen_[id] == stamp_) continue;
      seen_[id] = stamp_;
      const NfaState& state = nfa_[id];
      take(1 + state.epsilon.size());
      subset.ends_unit |= state.ends_unit;
      subset.precedes_part |= state.precedes_part;
      if (!state.edges.empty() || !state.calls.empty() || state.is_accepting) {
        subset.states.push_back(id);
      }
      stack_.insert(stack_.end(), state.epsilon.begin(), state.epsilon.end());
    }
    std::ranges::sort(subset.states);
    return subset;
  }

  uint32_t place(Subset subset) {
    take(1 + 2 * subset.states.size());  // also to find it among those that are known
    const auto next = static_cast<uint32_t>(subsets_.size());
    const auto [at, is_new] = index_.emplace(std::move(subset), next);
    if (is_new) {
      subsets_.push_back(&at->first);
      states_.push_back(described(at->first));
    }
    return at->second;
  }

  RuleState described(const Subset& subset) const {
    RuleState state;
    state.ends_unit = subset.ends_unit;
    state.precedes_part = subset.precedes_part;
    bool is_open = subset.states.empty();
    for (const uint32_t id : subset.states) {
      state.is_accepting |= nfa_[id].is_accepting;
      is_open |= nfa_[id].guard.is_open();
      state.guard.join(nfa_[id].guard);
    }
    if (is_open) state.guard = {};
    return state;
  }

  void expand(size_t index) {
    const std::vector<uint32_t> members = subsets_[index]->states;
    std::array<std::vector<uint32_t>, 256> targets;
    std::vector<std::pair<RuleCall, std::vector<uint32_t>>> calls;
    for (const uint32_t id : members) {
      for (const ByteEdge& edge : nfa_[id].edges) {
        take(1 + (edge.last - edge.first) / 8u);
        for (uint32_t byte = edge.first; byte <= edge.last; ++byte) {
          targets[byte].push_back(edge.target);
        }
      }
      for (const RuleCall& call : nfa_[id].calls) {
        take(1 + calls.size());
        const auto same = std::ranges::find_if(
            calls, [&](const auto& known) { return is_same_call(known.first, call); });
        if (same == calls.end()) {
          calls.push_back({call, {call.target}});
        } else {
          same->second.push_back(call.target);
        }
      }
    }
    std::vector<ByteEdge> edges;
    for (uint32_t first = 0; first < 256;) {
      uint32_t last = first;
      while (last + 1 < 256 && targets[last + 1] == targets[first]) ++last;
      if (!targets[first].empty()) {
        const uint32_t target = place(closure(targets[first]));
        if (!edges.empty() && edges.back().target == target && edges.back().last + 1u == first) {
          edges.back().last = static_cast<uint8_t>(last);
        } else {
          edges.push_back({static_cast<uint8_t>(first), static_cast<uint8_t>(last), target});
        }
      }
      first = last + 1;
    }
    for (auto& [call, roots] : calls) {
      call.target = place(closure(roots));
      states_[index].calls.push_back(call);
    }
    states_[index].edges = std::move(edges);
  }

  const std::vector<NfaState>& nfa_;
  uint64_t& steps_left_;
  std::vector<uint32_t> seen_;
  std::vector<uint32_t> stack_;
  uint32_t stamp_ = 0;
  std::map<Subset, uint32_t> index_;
  std::vector<const Subset*> subsets_;  // keys of index_, which stay where they are
  std::vector<RuleState> states_;
};

}  // namespace

Result<std::vector<RuleState>> determinise(const std::vector<NfaState>& nfa, uint64_t& steps_left) {
  return Determiniser(nfa, steps_left).run();
}

}  // namespace penstock
