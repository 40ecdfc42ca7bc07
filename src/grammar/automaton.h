// The automata of one rule: first nondeterministic, as written, then deterministic over bytes.
//
// Rules that are called stay symbols: a state of the result has byte ranges that lead on, and calls
// ("when rule r has accepted here, go on there"). Characters become their UTF-8 bytes, so a state
// may stand in the middle of one. Small rules that do not recur are copied in where they are used:
// then a string or a number is a walk over one table and needs no stack.
//
// Threads  plain functions.
// Limits   kRuleStatesMax states of either kind in one rule, and the caller's budget of steps.
// Errors   kUnsupported naming the rule that is too large.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "grammar/expression.h"
#include "grammar/guard.h"

namespace penstock {

inline constexpr size_t kRuleStatesMax = 100'000;

struct ByteEdge {
  uint8_t first = 0;
  uint8_t last = 0;
  uint32_t target = 0;
};

struct RuleCall {
  RuleId rule = kNoId;
  uint32_t target = 0;        // where to go on afterwards
  uint32_t add = 0;           // to the count
  uint32_t mark = kNoId;      // the member that is seen afterwards
  bool may_be_empty = false;  // the empty text counts as well, and adds or marks
  Guard guard = {};           // of the call itself
};

struct RuleState {
  std::vector<ByteEdge> edges;  // sorted and disjoint
  std::vector<RuleCall> calls;
  Guard guard;  // of entering
  bool is_accepting = false;
  bool ends_unit = false;
  bool precedes_part = false;  // of a members or items rule: any of its parts may have to come
};

// Facts about rules that their automata depend on; see rule_facts().
struct RuleFacts {
  bool is_nullable = false;
  bool is_inlined = false;
};

// Errors: a rule that is not defined, sizes beyond the limits, an invalid repetition.
Result<std::vector<RuleFacts>> rule_facts(const GrammarSource& source);

// State 0 is the start. Takes the steps that it needs from `steps_left`.
Result<std::vector<RuleState>> build_automaton(const GrammarSource& source,
                                               const std::vector<RuleFacts>& facts, RuleId rule,
                                               uint64_t& steps_left);

}  // namespace penstock
