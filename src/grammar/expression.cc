#include "grammar/expression.h"

#include <algorithm>
#include <utility>

namespace penstock {

std::vector<CodePointRange> normalised(std::vector<CodePointRange> ranges) {
  std::vector<CodePointRange> cut;
  for (CodePointRange range : ranges) {
    range.last = std::min<char32_t>(range.last, 0x10FFFF);
    if (range.first > range.last) continue;
    if (range.first < 0xD800) cut.push_back({range.first, std::min<char32_t>(range.last, 0xD7FF)});
    if (range.last > 0xDFFF) cut.push_back({std::max<char32_t>(range.first, 0xE000), range.last});
  }
  std::ranges::sort(cut, {}, &CodePointRange::first);
  std::vector<CodePointRange> merged;
  for (const CodePointRange& range : cut) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

std::vector<CodePointRange> inverted(std::vector<CodePointRange> ranges) {
  std::vector<CodePointRange> others;
  char32_t next = 0;
  for (const CodePointRange& range : normalised(std::move(ranges))) {
    if (range.first > next) others.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= 0x10FFFF) others.push_back({next, 0x10FFFF});
  return normalised(std::move(others));
}

std::vector<CodePointRange> common(const std::vector<CodePointRange>& a,
                                   const std::vector<CodePointRange>& b) {
  std::vector<CodePointRange> both;
  for (const CodePointRange& x : a) {
    for (const CodePointRange& y : b) {
      const char32_t first = std::max(x.first, y.first);
      const char32_t last = std::min(x.last, y.last);
      if (first <= last) both.push_back({first, last});
    }
  }
  return normalised(std::move(both));
}

ExpressionId GrammarSource::add(Expression expression) {
  if (expressions_.size() >= kExpressionsMax) {
    overflowed_ = true;
    return 0;
  }
  expressions_.push_back(std::move(expression));
  return static_cast<ExpressionId>(expressions_.size() - 1);
}

ExpressionId GrammarSource::bytes(std::string_view text) {
  Expression expression{.kind = Expression::Kind::kBytes};
  expression.bytes = text;
  return add(std::move(expression));
}

ExpressionId GrammarSource::chars(std::vector<CodePointRange> ranges) {
  Expression expression{.kind = Expression::Kind::kChars};
  expression.ranges = normalised(std::move(ranges));
  return add(std::move(expression));
}

ExpressionId GrammarSource::any_byte() {
  return add({.kind = Expression::Kind::kAnyByte});
}

ExpressionId GrammarSource::unit(ExpressionId child) {
  Expression expression{.kind = Expression::Kind::kUnit};
  expression.children = {child};
  return add(std::move(expression));
}

ExpressionId GrammarSource::sequence(std::vector<ExpressionId> children) {
  if (children.size() == 1) return children[0];
  Expression expression{.kind = Expression::Kind::kSequence};
  expression.children = std::move(children);
  return add(std::move(expression));
}

ExpressionId GrammarSource::choice(std::vector<ExpressionId> children) {
  if (children.size() == 1) return children[0];
  Expression expression{.kind = Expression::Kind::kChoice};
  expression.children = std::move(children);
  return add(std::move(expression));
}

ExpressionId GrammarSource::repeat(ExpressionId child, uint32_t min, uint32_t max) {
  Expression expression{.kind = Expression::Kind::kRepeat};
  expression.children = {child};
  expression.min = min;
  expression.max = max;
  return add(std::move(expression));
}

ExpressionId GrammarSource::rule(RuleId id) {
  Expression expression{.kind = Expression::Kind::kRule};
  expression.rule = id;
  return add(std::move(expression));
}

ExpressionId GrammarSource::text_before(ExpressionId marker) {
  Expression expression{.kind = Expression::Kind::kTextBefore};
  expression.children = {marker};
  return add(std::move(expression));
}

ExpressionId GrammarSource::bytes_before(ExpressionId marker) {
  Expression expression{.kind = Expression::Kind::kBytesBefore};
  expression.children = {marker};
  return add(std::move(expression));
}

ExpressionId GrammarSource::other_than(ExpressionId allowed, ExpressionId excluded) {
  Expression expression{.kind = Expression::Kind::kOtherThan};
  expression.children = {allowed, excluded};
  return add(std::move(expression));
}

ExpressionId GrammarSource::any_of(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return any_of_sorted(texts, 0, texts.size(), 0);
}

// Texts [begin, end) agree in their first `depth` bytes. Every level shares at least one byte more,
// so kSharedMax bounds the recursion.
ExpressionId GrammarSource::any_of_sorted(const std::vector<std::string>& texts, size_t begin,
                                          size_t end, size_t depth) {
  constexpr size_t kSharedMax = 256;
  std::vector<ExpressionId> choices;
  while (begin < end) {
    const std::string& first = texts[begin];
    size_t last = begin + 1;
    if (first.size() > depth && depth < kSharedMax) {
      while (last < end && texts[last].size() > depth && texts[last][depth] == first[depth]) ++last;
    }
    size_t shared = first.size();
    if (last - begin > 1) {
      const std::string& other = texts[last - 1];
      shared = depth;
      while (shared < first.size() && shared < other.size() && first[shared] == other[shared] &&
             shared < kSharedMax) {
        ++shared;
      }
    }
    const ExpressionId head = bytes(std::string_view(first).substr(depth, shared - depth));
    choices.push_back(
        last - begin == 1 ? head : sequence({head, any_of_sorted(texts, begin, last, shared)}));
    begin = last;
  }
  return choice(std::move(choices));
}

RuleId GrammarSource::add_rule(Rule rule) {
  if (rules_.size() >= kRulesMax) {
    overflowed_ = true;
    return 0;
  }
  rules_.push_back(std::move(rule));
  return static_cast<RuleId>(rules_.size() - 1);
}

RuleId GrammarSource::add_rule(std::string name, ExpressionId expression) {
  Rule rule;
  rule.name = std::move(name);
  rule.expression = expression;
  return add_rule(std::move(rule));
}

RuleId GrammarSource::declare_rule(std::string name) {
  return add_rule(std::move(name), kNoId);
}

void GrammarSource::define_rule(RuleId id, Rule rule) {
  if (id < rules_.size()) rules_[id] = std::move(rule);
}

}  // namespace penstock
