// A grammar as its readers write it down: rules over expressions. What compile() takes.
//
// GBNF text, JSON schemas and tool definitions all become this. Expressions are nodes in one vector
// and rules name their parts by index, so a hostile source is a limit on a number, not on a stack.
// Five kinds of rules say what plain context-free rules cannot say in a small space:
//
//   kPlain    an expression
//   kLength   an expression whose text has min to max units (a unit: one character, or one escape
//             that stands for a character; see unit())
//   kCount    a rule, min to max times
//   kMembers  open (member (between member)*)? close, members in any order, each at most once
//   kItems    open (item (between item)*)? close, the n-th by the n-th rule, min to max of them
//
// Threads  plain data.
// Limits   kExpressionsMax, kRulesMax; a source that is full says so in overflowed(), and compile()
//          refuses it. kMembersMax members in one rule.
// See also grammar.h
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

using ExpressionId = uint32_t;
using RuleId = uint32_t;

inline constexpr uint32_t kUnlimited = UINT32_MAX;  // as a maximum
inline constexpr uint32_t kNoId = UINT32_MAX;       // as an id
inline constexpr size_t kExpressionsMax = 200'000;
inline constexpr size_t kRulesMax = 20'000;
inline constexpr size_t kMembersMax = 126;
inline constexpr uint32_t kRepetitionsMax = 1'000'000;

struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;
};

// Sorted, merged, without surrogates and nothing above U+10FFFF.
std::vector<CodePointRange> normalised(std::vector<CodePointRange> ranges);
// All other characters.
std::vector<CodePointRange> inverted(std::vector<CodePointRange> ranges);
// Those of both.
std::vector<CodePointRange> common(const std::vector<CodePointRange>& a,
                                   const std::vector<CodePointRange>& b);

struct Expression {
  enum class Kind : uint8_t {
    kBytes,        // exactly these
    kChars,        // one character of the ranges, as UTF-8
    kAnyByte,      // also what is not UTF-8
    kUnit,         // the child; at its end one unit is complete
    kSequence,     // the children; none: the empty text
    kChoice,       // one of the children; none: nothing at all
    kRepeat,       // the child, min to max times
    kRule,         // what the rule accepts
    kTextBefore,   // text of whole characters (units) in which the child does not occur
    kBytesBefore,  // the same, of any bytes
    kOtherThan     // what the first child accepts and the second does not
  };
  Kind kind = Kind::kSequence;
  std::string bytes = {};
  std::vector<CodePointRange> ranges = {};
  std::vector<ExpressionId> children = {};
  uint32_t min = 0;
  uint32_t max = 0;
  RuleId rule = kNoId;
};

struct Member {
  ExpressionId head = kNoId;  // what names it
  RuleId value = kNoId;
  bool required = false;
};

struct Rule {
  enum class Kind : uint8_t { kPlain, kLength, kCount, kMembers, kItems };
  std::string name;
  Kind kind = Kind::kPlain;
  ExpressionId expression = kNoId;  // kPlain, kLength
  uint32_t min = 0;
  uint32_t max = kUnlimited;
  bool is_shared = false;  // keeps states of its own even where it is small

  ExpressionId open = kNoId;  // kMembers, kItems
  ExpressionId between = kNoId;
  ExpressionId close = kNoId;
  ExpressionId tail = kNoId;     // kMembers: after each value
  std::vector<Member> members;   // kMembers
  std::optional<Member> others;  // kMembers: any number of them; head excludes the members'
  std::vector<RuleId> items;     // kItems: the first ones
  RuleId rest = kNoId;           // kItems: all further ones; kCount: what is repeated
};

class GrammarSource {
 public:
  ExpressionId bytes(std::string_view text);
  ExpressionId chars(std::vector<CodePointRange> ranges);
  ExpressionId any_byte();
  ExpressionId unit(ExpressionId child);
  ExpressionId sequence(std::vector<ExpressionId> children);
  ExpressionId choice(std::vector<ExpressionId> children);
  ExpressionId repeat(ExpressionId child, uint32_t min, uint32_t max);
  ExpressionId optional(ExpressionId child) { return repeat(child, 0, 1); }
  ExpressionId rule(RuleId id);
  ExpressionId text_before(ExpressionId marker);
  ExpressionId bytes_before(ExpressionId marker);
  ExpressionId other_than(ExpressionId allowed, ExpressionId excluded);
  ExpressionId empty() { return sequence({}); }
  // Any of the texts; common beginnings are shared.
  ExpressionId any_of(std::vector<std::string> texts);

  RuleId add_rule(Rule rule);
  RuleId add_rule(std::string name, ExpressionId expression);
  // For recursion: a name first, what it is later.
  RuleId declare_rule(std::string name);
  void define_rule(RuleId id, Rule rule);

  const Expression& expression(ExpressionId id) const { return expressions_[id]; }
  const Rule& rule_at(RuleId id) const { return rules_[id]; }
  size_t expression_count() const { return expressions_.size(); }
  size_t rule_count() const { return rules_.size(); }
  bool overflowed() const { return overflowed_; }

  RuleId root = kNoId;
  uint32_t depth_max = 256;  // of calls in calls, while matching

 private:
  ExpressionId add(Expression expression);
  ExpressionId any_of_sorted(const std::vector<std::string>& texts, size_t begin, size_t end,
                             size_t depth);

  std::vector<Expression> expressions_;
  std::vector<Rule> rules_;
  bool overflowed_ = false;
};

}  // namespace penstock
