#include "grammar/nfa.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace penstock {
namespace {

constexpr int kExpressionNestingMax = 512;  // of expressions and copied rules; the stack holds it

Error too_large() {
  return {ErrorCode::kUnsupported,
          fmt::format("too large: more than {} states in one rule, or too much work to make them",
                      kRuleStatesMax)};
}

struct Utf8Sequence {
  int length = 0;
  std::array<ByteEdge, 4> bytes;
};

// The smallest and largest code point of each length in UTF-8.
constexpr std::array<std::pair<char32_t, char32_t>, 4> kLengths = {
    {{0x0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xFFFF}, {0x10000, 0x10FFFF}}};

std::array<uint8_t, 4> encoded(char32_t c, int length) {
  std::array<uint8_t, 4> bytes{};
  constexpr std::array<uint8_t, 4> kLead = {0x00, 0xC0, 0xE0, 0xF0};
  for (int i = length - 1; i > 0; --i) {
    bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(0x80 | (c & 0x3F));
    c >>= 6;
  }
  bytes[0] = static_cast<uint8_t>(kLead[static_cast<size_t>(length - 1)] | c);
  return bytes;
}

// Cuts [first, last], all of `length` bytes, into products of byte ranges. `fixed` leading bytes
// are known to be equal.
void cut_sequences(char32_t first, char32_t last, int length, std::vector<Utf8Sequence>& out) {
  for (int i = 1; i < length; ++i) {
    const char32_t low = (char32_t{1} << (6 * i)) - 1;  // what the last i bytes hold
    if ((first & ~low) == (last & ~low)) continue;
    if ((first & low) != 0) {
      cut_sequences(first, first | low, length, out);
      cut_sequences((first | low) + 1, last, length, out);
      return;
    }
    if ((last & low) != low) {
      cut_sequences(first, (last & ~low) - 1, length, out);
      cut_sequences(last & ~low, last, length, out);
      return;
    }
  }
  Utf8Sequence sequence{.length = length, .bytes = {}};
  const auto a = encoded(first, length);
  const auto b = encoded(last, length);
  for (size_t i = 0; i < static_cast<size_t>(length); ++i) sequence.bytes[i] = {a[i], b[i], 0};
  out.push_back(sequence);
}

}  // namespace

Result<uint32_t> NfaBuilder::new_state() {
  if (states_.size() >= kRuleStatesMax || !take(1)) return too_large();
  states_.push_back({});
  states_.back().guard = guard_;
  return static_cast<uint32_t>(states_.size() - 1);
}

bool NfaBuilder::take(uint64_t steps) {
  const bool is_enough = steps <= steps_left_;
  steps_left_ -= std::min(steps, steps_left_);
  return is_enough;
}

Result<void> NfaBuilder::add_chars(const std::vector<CodePointRange>& ranges, uint32_t from,
                                   uint32_t to) {
  std::vector<Utf8Sequence> sequences;
  for (const CodePointRange& range : ranges) {
    for (int length = 1; length <= 4; ++length) {
      const auto [low, high] = kLengths[static_cast<size_t>(length - 1)];
      const char32_t first = std::max(range.first, low);
      const char32_t last = std::min(range.last, high);
      if (first <= last) cut_sequences(first, last, length, sequences);
    }
  }
  for (const Utf8Sequence& sequence : sequences) {
    uint32_t at = from;
    for (int i = 0; i < sequence.length; ++i) {
      const uint32_t next = i + 1 < sequence.length ? PENSTOCK_TRY(new_state()) : to;
      ByteEdge edge = sequence.bytes[static_cast<size_t>(i)];
      edge.target = next;
      states_[at].edges.push_back(edge);
      at = next;
    }
  }
  return {};
}

Result<uint32_t> NfaBuilder::add_call(RuleCall call, uint32_t from) {
  call.target = PENSTOCK_TRY(new_state());
  states_[from].calls.push_back(call);
  // A call that marks nothing may be stepped over here; the others are by the matcher.
  if (facts_[call.rule].is_nullable) {
    if (call.add == 0 && call.mark == kNoId) {
      link(from, call.target);
    } else {
      states_[from].calls.back().may_be_empty = true;
    }
  }
  return call.target;
}

Result<uint32_t> NfaBuilder::add_repeat(const Expression& expression, uint32_t from) {
  const ExpressionId child = expression.children[0];
  uint32_t at = from;
  for (uint32_t i = 0; i < expression.min; ++i) {
    const uint32_t next = PENSTOCK_TRY(new_state());
    link(at, next);
    at = PENSTOCK_TRY(add(child, next));
  }
  const uint32_t end = PENSTOCK_TRY(new_state());
  if (expression.max == kUnlimited) {
    const uint32_t loop = PENSTOCK_TRY(new_state());
    link(at, loop);
    link(loop, end);
    link(PENSTOCK_TRY(add(child, loop)), loop);
    return end;
  }
  for (uint32_t i = expression.min; i < expression.max; ++i) {
    const uint32_t next = PENSTOCK_TRY(new_state());
    link(at, next);
    link(next, end);
    at = PENSTOCK_TRY(add(child, next));
  }
  link(at, end);
  return end;
}

// All states of "anything, then the marker" that have not yet seen the whole marker.
Result<uint32_t> NfaBuilder::add_text_before(const Expression& expression, uint32_t from) {
  NfaBuilder inner(source_, facts_, steps_left_);
  const uint32_t base = PENSTOCK_TRY(inner.new_state());
  if (expression.kind == Expression::Kind::kBytesBefore) {
    inner.states_[base].edges.push_back({0, 255, base});
  } else {
    const uint32_t after = PENSTOCK_TRY(inner.new_state());
    PENSTOCK_TRY(inner.add_chars(inverted({}), base, after));
    inner.states_[after].ends_unit = true;
    inner.link(after, base);
  }
  inner.states_[base].ends_unit = true;
  const uint32_t begin = PENSTOCK_TRY(inner.new_state());
  inner.link(base, begin);
  const uint32_t marker = PENSTOCK_TRY(inner.add(expression.children[0], begin));
  inner.states_[marker].is_accepting = true;
  const std::vector<RuleState> text = PENSTOCK_TRY(determinise(inner.states_, steps_left_));
  std::vector<uint32_t> place(text.size(), kNoId);
  for (size_t i = 0; i < text.size(); ++i) {
    if (!text[i].calls.empty()) {
      return Error{ErrorCode::kUnsupported, "what ends a text must not contain large rules"};
    }
    if (!text[i].is_accepting) place[i] = PENSTOCK_TRY(new_state());
  }
  const uint32_t end = PENSTOCK_TRY(new_state());
  if (place[0] == kNoId) return end;  // the empty text is a marker: there is nothing before it
  for (size_t i = 0; i < text.size(); ++i) {
    if (place[i] == kNoId) continue;
    NfaState& state = states_[place[i]];
    state.ends_unit = text[i].ends_unit;
    for (ByteEdge edge : text[i].edges) {
      edge.target = place[edge.target];
      if (edge.target != kNoId) state.edges.push_back(edge);
    }
    if (text[i].ends_unit) link(place[i], end);
  }
  link(from, place[0]);
  return end;
}

// The deterministic automaton of an expression by itself.
Result<std::vector<RuleState>> NfaBuilder::alone(ExpressionId id) {
  NfaBuilder inner(source_, facts_, steps_left_);
  inner.depth_ = depth_;
  const uint32_t begin = PENSTOCK_TRY(inner.new_state());
  const uint32_t end = PENSTOCK_TRY(inner.add(id, begin));
  inner.states_[end].is_accepting = true;
  std::vector<RuleState> states = PENSTOCK_TRY(determinise(inner.states_, steps_left_));
  for (const RuleState& state : states) {
    if (!state.calls.empty()) {
      return Error{ErrorCode::kUnsupported, "a difference of texts must not contain large rules"};
    }
  }
  return states;
}

// Both automata side by side; the second may have died (kNoId).
Result<uint32_t> NfaBuilder::add_other_than(const Expression& expression, uint32_t from) {
  const std::vector<RuleState> allowed = PENSTOCK_TRY(alone(expression.children[0]));
  const std::vector<RuleState> excluded = PENSTOCK_TRY(alone(expression.children[1]));
  const auto next_excluded = [&](uint32_t state, uint8_t byte) {
    if (state == kNoId) return kNoId;
    for (const ByteEdge& edge : excluded[state].edges) {
      if (byte >= edge.first && byte <= edge.last) return edge.target;
    }
    return kNoId;
  };
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> places;
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  const uint32_t end = PENSTOCK_TRY(new_state());
  const auto place = [&](uint32_t a, uint32_t b) -> Result<uint32_t> {
    const auto known = places.find({a, b});
    if (known != places.end()) return known->second;
    const uint32_t state = PENSTOCK_TRY(new_state());
    places[{a, b}] = state;
    pairs.push_back({a, b});
    states_[state].ends_unit = allowed[a].ends_unit;
    if (allowed[a].is_accepting && (b == kNoId || !excluded[b].is_accepting)) link(state, end);
    return state;
  };
  link(from, PENSTOCK_TRY(place(0, 0)));
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto [a, b] = pairs[i];
    const uint32_t state = places[{a, b}];
    for (const ByteEdge& edge : allowed[a].edges) {
      const uint64_t others = b == kNoId ? 0 : excluded[b].edges.size();
      if (!take(1 + (edge.last - edge.first + 1u) * others / 4)) return too_large();
      for (uint32_t first = edge.first; first <= edge.last;) {
        const uint32_t other = next_excluded(b, static_cast<uint8_t>(first));
        uint32_t last = first;
        while (last < edge.last && next_excluded(b, static_cast<uint8_t>(last + 1)) == other) {
          ++last;
        }
        const uint32_t target = PENSTOCK_TRY(place(edge.target, other));
        states_[state].edges.push_back(
            {static_cast<uint8_t>(first), static_cast<uint8_t>(last), target});
        first = last + 1;
      }
    }
  }
  return end;
}

Result<uint32_t> NfaBuilder::add(ExpressionId id, uint32_t from) {
  using Kind = Expression::Kind;
  if (depth_ >= kExpressionNestingMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("nested deeper than {}", kExpressionNestingMax)};
  }
  if (!take(1)) return too_large();
  struct Depth {
    int& depth;
    explicit Depth(int& d) : depth(d) { ++depth; }
    ~Depth() { --depth; }
  } const depth(depth_);
  const Expression& expression = source_.expression(id);
  switch (expression.kind) {
    case Kind::kBytes: {
      uint32_t at = from;
      for (const char byte : expression.bytes) {
        const uint32_t next = PENSTOCK_TRY(new_state());
        const auto value = static_cast<uint8_t>(byte);
        states_[at].edges.push_back({value, value, next});
        at = next;
      }
      return at;
    }
    case Kind::kChars:
    case Kind::kAnyByte: {
      const uint32_t to = PENSTOCK_TRY(new_state());
      if (expression.kind == Kind::kAnyByte) {
        states_[from].edges.push_back({0, 255, to});
      } else {
        PENSTOCK_TRY(add_chars(expression.ranges, from, to));
      }
      return to;
    }
    case Kind::kUnit: {
      const uint32_t inner = PENSTOCK_TRY(add(expression.children[0], from));
      const uint32_t end = PENSTOCK_TRY(new_state());
      link(inner, end);
      states_[end].ends_unit = true;
      return end;
    }
    case Kind::kSequence: {
      uint32_t at = from;
      for (const ExpressionId child : expression.children) at = PENSTOCK_TRY(add(child, at));
      return at;
    }
    case Kind::kChoice: {
      const uint32_t end = PENSTOCK_TRY(new_state());
      for (const ExpressionId child : expression.children) {
        const uint32_t begin = PENSTOCK_TRY(new_state());
        link(from, begin);
        link(PENSTOCK_TRY(add(child, begin)), end);
      }
      return end;
    }
    case Kind::kRepeat: {
      const uint32_t begin = PENSTOCK_TRY(new_state());
      link(from, begin);
      return add_repeat(expression, begin);
    }
    case Kind::kRule: {
      const uint32_t begin = PENSTOCK_TRY(new_state());
      link(from, begin);
      if (facts_[expression.rule].is_inlined) {
        return add(source_.rule_at(expression.rule).expression, begin);
      }
      return add_call({.rule = expression.rule}, begin);
    }
    case Kind::kTextBefore:
    case Kind::kBytesBefore: return add_text_before(expression, from);
    case Kind::kOtherThan: return add_other_than(expression, from);
  }
  return too_large();
}

// open (member (between member)*)? close. Guards stand on all states that lead nowhere else: on a
// member's head, that it is new; on what separates, that there is something left; on the close,
// that nothing is missing.
Result<void> NfaBuilder::add_members(const Rule& rule) {
  Marks all;
  Marks required;
  for (uint32_t i = 0; i < rule.members.size(); ++i) {
    all = all | Marks::bit(i);
    if (rule.members[i].required) required = required | Marks::bit(i);
  }
  const Marks others = rule.others ? Marks::bit(kMembersMax) : Marks{};  // never seen
  const uint32_t first = PENSTOCK_TRY(add(rule.open, 0));
  const uint32_t next = PENSTOCK_TRY(new_state());   // a member has to come
  const uint32_t after = PENSTOCK_TRY(new_state());  // a member has ended
  link(first, next);
  for (uint32_t i = 0; i <= rule.members.size(); ++i) {
    const bool is_other = i == rule.members.size();
    if (is_other && !rule.others) break;
    const Member& member = is_other ? *rule.others : rule.members[i];
    guard_ = {.unseen = is_other ? others : Marks::bit(i)};
    const uint32_t begin = PENSTOCK_TRY(new_state());
    link(next, begin);
    const uint32_t named = PENSTOCK_TRY(add(member.head, begin));
    RuleCall call{.rule = member.value};
    if (!is_other) call.mark = i;
    guard_ = {};
    const uint32_t valued = PENSTOCK_TRY(add_call(call, named));
    link(PENSTOCK_TRY(add(rule.tail, valued)), after);
  }
  guard_ = {.unseen = all | others};
  const uint32_t separate = PENSTOCK_TRY(new_state());
  link(after, separate);
  const uint32_t separated = PENSTOCK_TRY(add(rule.between, separate));
  link(separated, next);
  states_[separated].precedes_part = true;
  guard_ = {.has_needs = true, .needs = required};
  const uint32_t closing = PENSTOCK_TRY(new_state());
  link(first, closing);
  link(after, closing);
  const uint32_t closed = PENSTOCK_TRY(add(rule.close, closing));
  guard_ = {};
  states_[closed].is_accepting = true;
  return {};
}

// open (item (between item)*)? close, where calls are told by the count of items so far.
Result<void> NfaBuilder::add_items(const Rule& rule) {
  const auto prefix = static_cast<uint32_t>(rule.items.size());
  const uint32_t last = rule.rest == kNoId ? std::min(rule.max, prefix) : rule.max;
  const uint32_t first = PENSTOCK_TRY(add(rule.open, 0));
  const uint32_t after = PENSTOCK_TRY(new_state());
  const Guard has_room = {.has_range = true,
                          .count_max = last == 0 || last == kUnlimited ? kUnlimited : last - 1};
  guard_ = has_room;
  const uint32_t next = PENSTOCK_TRY(new_state());
  guard_ = {};
  if (last > 0) link(first, next);
  const auto add_item = [&](RuleId item, uint32_t low, uint32_t high) -> Result<void> {
    RuleCall call{.rule = item, .add = 1};
    call.guard = {.has_range = true, .count_min = low, .count_max = high};
    link(PENSTOCK_TRY(add_call(call, next)), after);
    return {};
  };
  for (uint32_t i = 0; i < std::min(prefix, last); ++i) PENSTOCK_TRY(add_item(rule.items[i], i, i));
  if (rule.rest != kNoId && last > prefix) {
    PENSTOCK_TRY(add_item(rule.rest, prefix, last == kUnlimited ? kUnlimited : last - 1));
  }
  if (last > 1) {
    guard_ = has_room;
    const uint32_t separate = PENSTOCK_TRY(new_state());
    link(after, separate);
    const uint32_t separated = PENSTOCK_TRY(add(rule.between, separate));
    link(separated, next);
    states_[separated].precedes_part = true;
  }
  guard_ = {.has_range = true, .count_min = rule.min};
  const uint32_t closing = PENSTOCK_TRY(new_state());
  link(first, closing);
  link(after, closing);
  const uint32_t closed = PENSTOCK_TRY(add(rule.close, closing));
  guard_ = {};
  states_[closed].is_accepting = true;
  return {};
}

Result<void> NfaBuilder::add_count(const Rule& rule) {
  RuleCall call{.rule = rule.rest, .add = 1};
  call.guard = {.has_range = true, .count_max = rule.max == kUnlimited ? kUnlimited : rule.max - 1};
  states_[0].is_accepting = true;
  call.target = 0;
  if (rule.max > 0) states_[0].calls.push_back(call);
  return {};
}

Result<std::vector<NfaState>> NfaBuilder::build(RuleId id) {
  states_.clear();
  guard_ = {};
  PENSTOCK_TRY(new_state());
  const Rule& rule = source_.rule_at(id);
  if (rule.kind == Rule::Kind::kMembers) {
    PENSTOCK_TRY(add_members(rule));
  } else if (rule.kind == Rule::Kind::kItems) {
    PENSTOCK_TRY(add_items(rule));
  } else if (rule.kind == Rule::Kind::kCount) {
    PENSTOCK_TRY(add_count(rule));
  } else {
    const uint32_t end = PENSTOCK_TRY(add(rule.expression, 0));
    states_[end].is_accepting = true;
  }
  return std::move(states_);
}

}  // namespace penstock
