// The nondeterministic automaton of one rule, and the fragments it is made of.
//
// Errors  kInvalidArgument: more states than a grammar may have
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "grammar/automaton.h"
#include "grammar/expression.h"
#include "grammar/guard.h"

namespace penstock {

struct NfaState {
  std::vector<ByteEdge> edges;
  std::vector<uint32_t> epsilon;
  std::vector<RuleCall> calls;
  Guard guard;
  bool is_accepting = false;
  bool ends_unit = false;
  bool precedes_part = false;
};

class NfaBuilder {
 public:
  NfaBuilder(const GrammarSource& source, const std::vector<RuleFacts>& facts, uint64_t& steps_left)
      : source_(source), facts_(facts), steps_left_(steps_left) {}

  // The automaton of a rule; state 0 is its start.
  Result<std::vector<NfaState>> build(RuleId rule);

 private:
  // Everything of an expression between `from` and the state that is returned.
  Result<uint32_t> add(ExpressionId id, uint32_t from);
  Result<uint32_t> add_repeat(const Expression& expression, uint32_t from);
  Result<uint32_t> add_text_before(const Expression& expression, uint32_t from);
  Result<uint32_t> add_other_than(const Expression& expression, uint32_t from);
  Result<std::vector<RuleState>> alone(ExpressionId id);
  Result<uint32_t> add_call(RuleCall call, uint32_t from);
  Result<void> add_members(const Rule& rule);
  Result<void> add_items(const Rule& rule);
  Result<void> add_count(const Rule& rule);
  Result<void> add_chars(const std::vector<CodePointRange>& ranges, uint32_t from, uint32_t to);
  Result<uint32_t> new_state();
  bool take(uint64_t steps);  // false when there are too few
  void link(uint32_t from, uint32_t to) { states_[from].epsilon.push_back(to); }

  const GrammarSource& source_;
  const std::vector<RuleFacts>& facts_;
  uint64_t& steps_left_;
  std::vector<NfaState> states_;
  Guard guard_;  // of the states that are being made
  int depth_ = 0;
};

// The same language without choices over bytes. State 0 is the start.
Result<std::vector<RuleState>> determinise(const std::vector<NfaState>& nfa, uint64_t& steps_left);

}  // namespace penstock
