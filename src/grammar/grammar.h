// A compiled grammar: tables over bytes, the same for every request that asks for it.
//
//   GrammarSource source = PENSTOCK_TRY(parse_gbnf(text));         // or json_schema.h,
//   tool_grammar.h const Grammar grammar = PENSTOCK_TRY(Grammar::compile(source)); GrammarMatcher
//   matcher(grammar, tokens);                       // matcher.h: one per request
//
// Each rule is a deterministic automaton (automaton.h); rules call each other. What compile() makes
// sure of, so that a text that has begun can always be ended:
//
// Invariants
//   (1) from every state its rule's end can be reached, through calls that can end themselves
//   (2) `need` of a state is a depth of calls that suffices for it; a state is only entered where
//       so much depth is left
//   (3) no rule calls itself before it has taken a byte
//   (4) where the text of a rule has a length in units, every reachable pair of state and length
//       can be completed
//
// Threads  immutable after compile().
// Memory   about 40 bytes a state; kStatesMax of them.
// Errors   kInvalidArgument and kUnsupported with the rule: undefined, left recursion, never ends,
//          too large or too complex.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "grammar/automaton.h"
#include "grammar/byte_groups.h"
#include "grammar/expression.h"
#include "grammar/guard.h"
#include "grammar/work.h"

namespace penstock {

class Grammar {
 public:
  // Takes its steps from the work that the source has left (work.h).
  static Result<Grammar> compile(const GrammarSource& source, GrammarWork& work);
  static Result<Grammar> compile(const GrammarSource& source) {
    GrammarWork work;
    return compile(source, work);
  }

  size_t state_count() const { return states_.size(); }
  int64_t memory_bytes() const;

 private:
  friend class GrammarMatcher;
  class Compiler;

  struct State {
    uint32_t edges_begin = 0;
    uint32_t calls_begin = 0;
    uint16_t edge_count = 0;
    uint16_t call_count = 0;
    uint16_t need = 0;
    bool is_accepting = false;
    bool ends_unit = false;  // of a rule that counts its units
    bool is_final = false;   // accepts always and leads nowhere: a call to here needs no frame
    uint32_t rule = 0;
    uint32_t guard = 0;       // into guards_; 0 is open
    uint32_t accept_min = 0;  // of the count
    // On these groups of bytes `home` is reached, which on all of them stays where it is.
    ByteGroups stays = 0;
    uint32_t home = 0;
    ByteGroups live = 0;  // some byte of these leads on, within the rule or into a call
  };
  struct Call {
    uint32_t rule = 0;
    uint32_t target = 0;
    uint32_t add = 0;
    uint32_t guard = 0;
    Marks mark = {};
    bool may_be_empty = false;
  };
  struct CompiledRule {
    uint32_t start = 0;
    uint32_t count_cap = 0;  // counts beyond are the same
    uint16_t need = 0;
    std::bitset<256> first;  // bytes that it may begin with
    // Whether what its frame remembers matters: never, or only for counts outside of this range.
    bool is_free = false;
    uint32_t free_min = 0;
    uint32_t free_max = UINT32_MAX;
  };

  static constexpr uint32_t kNoState = UINT32_MAX;

  uint32_t next_state(uint32_t state, uint8_t byte) const {
    const State& from = states_[state];
    const ByteEdge* edge = edges_.data() + from.edges_begin;
    const ByteEdge* end = edge + from.edge_count;
    for (; edge != end; ++edge) {
      if (byte <= edge->last) return byte >= edge->first ? edge->target : kNoState;
    }
    return kNoState;
  }

  std::vector<State> states_;
  std::vector<ByteEdge> edges_;
  std::vector<Call> calls_;
  std::vector<Guard> guards_;
  std::vector<CompiledRule> rules_;
  std::vector<std::string> rule_names_;
  uint32_t root_ = 0;  // a rule
  uint32_t depth_max_ = 0;
};

}  // namespace penstock
