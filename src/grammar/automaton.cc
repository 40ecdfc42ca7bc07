#include "grammar/automaton.h"

#include <fmt/format.h>

#include <algorithm>

#include "grammar/nfa.h"

namespace penstock {
namespace {

constexpr uint64_t kInlinedStatesMax = 200;
constexpr uint64_t kHuge = uint64_t{1} << 40;
constexpr uint64_t kStepsMax = 20'000'000;

uint64_t saturated(uint64_t value) {
  return std::min(value, kHuge);
}

std::vector<RuleId> called_by_parts(const Rule& rule) {
  std::vector<RuleId> called = rule.items;
  if (rule.rest != kNoId) called.push_back(rule.rest);
  for (const Member& member : rule.members) called.push_back(member.value);
  if (rule.others) called.push_back(rule.others->value);
  return called;
}

// Children have lower ids than their parents unless somebody links by hand; nobody does. So one
// pass over the expressions in order sees every child before its parent.
class Facts {
 public:
  explicit Facts(const GrammarSource& source) : source_(source) {}

  Result<std::vector<RuleFacts>> run() {
    PENSTOCK_TRY(check());
    PENSTOCK_TRY(find_nullable());
    find_inlined();
    return std::move(facts_);
  }

 private:
  Error in_rule(RuleId id, std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("rule \"{}\": {}", source_.rule_at(id).name, what)};
  }

  Result<void> check() const {
    if (source_.overflowed()) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("too large: more than {} expressions or {} rules", kExpressionsMax,
                               kRulesMax)};
    }
    if (source_.root >= source_.rule_count()) {
      return Error{ErrorCode::kInvalidArgument, "there is no root rule"};
    }
    for (RuleId id = 0; id < source_.rule_count(); ++id) {
      const Rule& rule = source_.rule_at(id);
      const bool needs_expression =
          rule.kind == Rule::Kind::kPlain || rule.kind == Rule::Kind::kLength;
      if (needs_expression && rule.expression == kNoId) return in_rule(id, "is not defined");
      if (rule.min > rule.max) return in_rule(id, "its minimum is above its maximum");
      if (rule.members.size() > kMembersMax) {
        return in_rule(
            id, fmt::format("has {} members; {} are supported", rule.members.size(), kMembersMax));
      }
      for (const RuleId called : called_by_parts(rule)) {
        if (called >= source_.rule_count()) return in_rule(id, "uses a rule that is not defined");
      }
    }
    for (ExpressionId id = 0; id < source_.expression_count(); ++id) {
      const Expression& expression = source_.expression(id);
      if (expression.kind == Expression::Kind::kRule && expression.rule >= source_.rule_count()) {
        return Error{ErrorCode::kInvalidArgument, "a rule is used that is not defined"};
      }
    }
    return {};
  }

  bool is_nullable(const Expression& expression, const std::vector<bool>& known) const {
    using Kind = Expression::Kind;
    const auto child = [&](ExpressionId id) { return bool{known[id]}; };
    switch (expression.kind) {
      case Kind::kBytes: return expression.bytes.empty();
      case Kind::kChars:
      case Kind::kAnyByte: return false;
      case Kind::kUnit:
      case Kind::kSequence: return std::ranges::all_of(expression.children, child);
      case Kind::kChoice: return std::ranges::any_of(expression.children, child);
      case Kind::kRepeat: return expression.min == 0 || known[expression.children[0]];
      case Kind::kRule: return facts_[expression.rule].is_nullable;
      case Kind::kTextBefore:
      case Kind::kBytesBefore: return true;
      case Kind::kOtherThan: return known[expression.children[0]] && !known[expression.children[1]];
    }
    return false;
  }

  bool is_nullable(const Rule& rule, const std::vector<bool>& known) const {
    switch (rule.kind) {
      case Rule::Kind::kPlain: return known[rule.expression];
      case Rule::Kind::kLength: return known[rule.expression] && rule.min == 0;
      case Rule::Kind::kCount: return rule.min == 0 || facts_[rule.rest].is_nullable;
      case Rule::Kind::kMembers:
      case Rule::Kind::kItems: return false;  // they have brackets
    }
    return false;
  }

  Result<void> find_nullable() {
    facts_.assign(source_.rule_count(), {});
    std::vector<bool> known(source_.expression_count(), false);
    uint64_t steps = 0;
    for (bool changed = true; changed;) {
      changed = false;
      steps += known.size() + facts_.size();
      if (steps > kStepsMax) {
        return Error{ErrorCode::kUnsupported, "the rules depend on each other in too long chains"};
      }
      for (ExpressionId id = 0; id < known.size(); ++id) {
        if (!known[id]) known[id] = is_nullable(source_.expression(id), known);
      }
      for (RuleId id = 0; id < facts_.size(); ++id) {
        if (facts_[id].is_nullable || !is_nullable(source_.rule_at(id), known)) continue;
        facts_[id].is_nullable = true;
        changed = true;
      }
    }
    return {};
  }

  uint64_t states_of(const Expression& expression, const std::vector<uint64_t>& sizes) const {
    using Kind = Expression::Kind;
    uint64_t sum = 2;
    for (const ExpressionId child : expression.children) sum = saturated(sum + sizes[child]);
    switch (expression.kind) {
      case Kind::kBytes: return saturated(sum + expression.bytes.size());
      case Kind::kChars: return saturated(sum + 4 * expression.ranges.size());
      case Kind::kRepeat:
        return saturated(sum *
                         std::clamp(expression.max == kUnlimited ? expression.min : expression.max,
                                    1u, kRepetitionsMax));
      case Kind::kRule: return 2 + rule_sizes_[expression.rule];
      case Kind::kTextBefore:
      case Kind::kBytesBefore:
      case Kind::kOtherThan: return kHuge;  // its own automaton; better called than copied
      default: return sum;
    }
  }

  // A rule is inlined when it is plain, small with everything it uses, and does not recur: sizes
  // start at "huge" and only shrink where all parts are known.
  void find_inlined() {
    rule_sizes_.assign(source_.rule_count(), kHuge);
    std::vector<uint64_t> sizes(source_.expression_count(), kHuge);
    constexpr int kRounds = 32;  // also the depth of inlining
    bool changed = true;
    for (int round = 0; round < kRounds && changed; ++round) {
      changed = false;
      for (ExpressionId id = 0; id < sizes.size(); ++id) {
        sizes[id] = states_of(source_.expression(id), sizes);
      }
      for (RuleId id = 0; id < facts_.size(); ++id) {
        const Rule& rule = source_.rule_at(id);
        if (rule.kind != Rule::Kind::kPlain || rule.is_shared || facts_[id].is_inlined) continue;
        if (sizes[rule.expression] > kInlinedStatesMax) continue;
        rule_sizes_[id] = sizes[rule.expression];
        facts_[id].is_inlined = true;
        changed = true;
      }
    }
  }

  const GrammarSource& source_;
  std::vector<RuleFacts> facts_;
  std::vector<uint64_t> rule_sizes_;
};

}  // namespace

Result<std::vector<RuleFacts>> rule_facts(const GrammarSource& source) {
  return Facts(source).run();
}

Result<std::vector<RuleState>> build_automaton(const GrammarSource& source,
                                               const std::vector<RuleFacts>& facts, RuleId rule,
                                               uint64_t& steps_left) {
  const auto in_rule = [&](const Error& error) {
    return error.with_context(fmt::format("rule \"{}\"", source.rule_at(rule).name));
  };
  auto nfa = NfaBuilder(source, facts, steps_left).build(rule);
  if (!nfa) return in_rule(nfa.error());
  auto states = determinise(*nfa, steps_left);
  if (!states) return in_rule(states.error());
  return states;
}

}  // namespace penstock
