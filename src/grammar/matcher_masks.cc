// The masks of a matcher: all tokens at once, by a walk over the tree of their texts.
#include <algorithm>

#include "grammar/matcher.h"

namespace penstock {
namespace {

constexpr uint32_t kIsSpecial = 1u << 31;
constexpr uint32_t kNoNext = kIsSpecial - 1;
constexpr size_t kRowsMax = 2048;

}  // namespace

uint64_t GrammarMatcher::units_left(const GrammarReading& reading) const {
  const Grammar::State& home = grammar_.states_[grammar_.states_[reading.state].home];
  if (!home.ends_unit || home.guard == 0) return kUnlimited;
  const uint64_t limit = grammar_.guards_[home.guard].count_max;
  if (limit == kUnlimited) return limit;
  return limit > reading.marks.low ? limit - reading.marks.low : 0;
}

const uint32_t* GrammarMatcher::row(uint32_t state) {
  if (row_of_[state] == 0) {
    if (rows_.size() >= kRowsMax) {
      rows_.clear();
      rows_.emplace_back();
      std::ranges::fill(row_of_, 0);
    }
    row_of_[state] = static_cast<uint32_t>(rows_.size());
    auto& made = rows_.emplace_back();
    made.fill(kNoNext);
    const Grammar::State& from = grammar_.states_[state];
    for (uint32_t e = 0; e < from.edge_count; ++e) {
      const ByteEdge& edge = grammar_.edges_[from.edges_begin + e];
      for (uint32_t byte = edge.first; byte <= edge.last; ++byte) made[byte] = edge.target;
    }
    for (uint32_t c = 0; c < from.call_count; ++c) {
      const Grammar::Call& call = grammar_.calls_[from.calls_begin + c];
      for (uint32_t byte = 0; byte < 256; ++byte) {
        if (call.may_be_empty || grammar_.rules_[call.rule].first[byte]) made[byte] |= kIsSpecial;
      }
    }
  }
  return rows_[row_of_[state]].data();
}

// At least all bytes that a reading can take after its rule has ended in this frame.
std::bitset<256> GrammarMatcher::bytes_after(uint32_t frame) const {
  std::bitset<256> bytes;
  for (; frame != 0; frame = frames_[frame].below) {
    const Grammar::State& state = grammar_.states_[frames_[frame].state];
    for (uint32_t e = 0; e < state.edge_count; ++e) {
      const ByteEdge& edge = grammar_.edges_[state.edges_begin + e];
      for (uint32_t byte = edge.first; byte <= edge.last; ++byte) bytes.set(byte);
    }
    for (uint32_t c = 0; c < state.call_count; ++c) {
      const Grammar::Call& call = grammar_.calls_[state.calls_begin + c];
      bytes |= grammar_.rules_[call.rule].first;
      if (call.may_be_empty) return bytes.set();
    }
    if (!state.is_accepting) break;
  }
  return bytes;
}

void GrammarMatcher::add_range(TokenTrie::Range range) {
  if (range.begin == range.end) return;
  if (!ranges_.empty() && ranges_.back().end == range.begin) {
    ranges_.back().end = range.end;
  } else {
    ranges_.push_back(range);
  }
}

// The children of a node, with all below them, where `from` is the reading at the node.
bool GrammarMatcher::walk_one(const TokenTrie::Node& node, size_t depth,
                              const GrammarReading& from) {
  const std::bitset<256> after = bytes_after(from.below);
  const OneFrame frame = {.after = after,
                          .depth_left = grammar_.depth_max_ - frames_[from.below].depth,
                          .first_count = from.marks.low,
                          .live_after = groups_of(after)};
  const bool is_filtered = filter_groups_ != 0 && depth == 0;
  // What stands before is known for the root only.
  Before before;
  if (depth > 0) before = {.groups = ~ByteGroups{0}, .characters = 0, .utf8 = kUtf8Broken};
  return walk_one(node, depth, from, frame, is_filtered, before);
}

bool GrammarMatcher::walk_one(const TokenTrie::Node& node, size_t depth, const GrammarReading& from,
                              const OneFrame& frame, bool is_filtered, const Before& before) {
  const auto [begin, end] = node.children();
  const uint32_t* nexts = row(from.state);
  const bool is_accepting = grammar_.states_[from.state].is_accepting;
  if (recording_ != nullptr) recording_->uses_after |= is_accepting;
  for (uint32_t index = begin; index < end; ++index) {
    const TokenTrie::Node& child = tokens_.node(index);
    bool is_child_filtered = false;
    const ByteGroups group = child.byte < 0x80 ? kAsciiGroups[child.byte] : kWholeCharacters;
    if (is_filtered) {
      is_child_filtered = depth == 0 ? filter_first_[child.byte] : (group & ~filter_groups_) == 0;
      // The bitmaps know all of it.
      if (is_child_filtered && (child.groups & ~filter_groups_) == 0) continue;
    }
    const uint32_t next = nexts[child.byte];
    if (next == kNoNext && !(is_accepting && frame.after[child.byte])) continue;
    if ((next & kIsSpecial) != 0 || (is_accepting && frame.after[child.byte])) {
      // More than one reading, or another frame.
      if (recording_ != nullptr) {
        recording_->leaving.push_back(
            {.node = index,
             .depth = static_cast<uint32_t>(depth),
             .state = from.state,
             .units = static_cast<uint32_t>(from.marks.low - frame.first_count)});
        continue;
      }
      levels_[depth].assign(1, from);
      if (!step(levels_[depth], child.byte, levels_[depth + 1])) return false;
      if (!walk_below(child, depth + 1)) return false;
      nexts = row(from.state);  // the walk may have made rows
      continue;
    }
    const Grammar::State& to = grammar_.states_[next];
    GrammarReading here = {from.below, next, from.marks};
    if (to.ends_unit) here.marks = counted(here.marks, to.rule, 1);
    if (to.need > frame.depth_left) continue;
    if (to.guard != 0 && !grammar_.guards_[to.guard].holds(here.marks)) continue;
    // Some text below may leave where the reading stays; but can it then go on at all?
    const ByteGroups live = to.live | (to.is_accepting ? frame.live_after : 0);
    if (recording_ != nullptr) recording_->uses_after |= to.is_accepting;
    Before now = before;
    now.groups |= child.byte < 0x80 ? group : kWholeCharacters | kBrokenCharacters;
    if (now.utf8 != kUtf8Broken) {
      if (now.utf8 == 0) ++now.characters;
      now.utf8 = next_utf8_state(now.utf8, child.byte);
    }
    if (is_child_filtered) {
      if ((child.groups & ~filter_groups_ & live) == 0) continue;
    } else if (takes_all_below(here, child)) {
      add_range(child.tokens());
      continue;
    } else if ((child.groups & ~to.stays & (live | now.groups)) == 0 &&
               (now.utf8 == 0 || child.characters_max() <= units_left(here))) {
      // No: the plain texts are all, and what a whole token consists of tells which these are.
      const uint64_t left = units_left(here);
      add_plain(child, to.stays | now.groups,
                child.characters_max() <= left ? UINT64_MAX : now.characters + left);
      continue;
    } else {
      add_range(child.own_tokens());
    }
    if (!walk_one(child, depth + 1, here, frame, is_child_filtered, now)) return false;
    nexts = row(from.state);
  }
  return true;
}

// The tokens of these groups, with so many characters at most.
void GrammarMatcher::add_plain(const TokenTrie::Node& node, ByteGroups groups,
                               uint64_t characters) {
  for (uint32_t i = node.first_token; i < node.end_token; ++i) {
    if ((tokens_.groups_of(i) & ~groups) != 0) continue;
    const uint8_t count = tokens_.characters_of(i);
    const uint64_t most = count == TokenTrie::kManyCharacters ? kTokenBytesMax : count;
    if (most <= characters) add_range({i, i + 1});
  }
}

// What is below a node whose readings are in levels_, and the node itself.
bool GrammarMatcher::walk_below(const TokenTrie::Node& node, size_t depth) {
  const Readings& here = levels_[depth];
  if (here.empty()) return true;
  for (const GrammarReading& reading : here) {
    if (!takes_all_below(reading, node)) continue;
    add_range(node.tokens());
    return true;
  }
  add_range(node.own_tokens());
  if (here.size() == 1) return walk_one(node, depth, GrammarReading(here[0]));
  return walk_all(node, depth);
}

bool GrammarMatcher::walk_all(const TokenTrie::Node& node, size_t depth) {
  const auto [begin, end] = node.children();
  for (uint32_t index = begin; index < end; ++index) {
    const TokenTrie::Node& child = tokens_.node(index);
    if (!step(levels_[depth], child.byte, levels_[depth + 1])) return false;
    if (!walk_below(child, depth + 1)) return false;
  }
  return true;
}

void GrammarMatcher::filter_for(const GrammarReading& reading) {
  const Grammar::State& from = grammar_.states_[reading.state];
  filter_groups_ = grammar_.states_[from.home].stays;
  filter_characters_ = units_left(reading);
  if (filter_characters_ == 0) filter_groups_ = 0;
  if (filter_groups_ == 0) return;
  const uint32_t* nexts = row(reading.state);
  for (uint32_t byte = 0; byte < 256; ++byte) {
    filter_first_[byte] =
        byte < 0x80 ? nexts[byte] == from.home && (kAsciiGroups[byte] & ~filter_groups_) == 0
                    : (from.stays & kWholeCharacters) != 0;
  }
}

bool GrammarMatcher::walk(const GrammarState& state) {
  ranges_.clear();
  filter_groups_ = 0;
  if (tokens_.token_count() == 0 || state.readings.empty()) return true;
  if (state.readings.size() == 1) filter_for(state.readings[0]);
  levels_[0] = state.readings;
  return walk_below(tokens_.node(0), 0);
}

// What the frame remembers does not matter, however long the next token is.
bool GrammarMatcher::is_free(const GrammarReading& reading) const {
  const Grammar::CompiledRule& rule = grammar_.rules_[grammar_.states_[reading.state].rule];
  return rule.is_free && reading.marks.low >= rule.free_min &&
         reading.marks.low + tokens_.depth_max() <= rule.free_max;
}

const GrammarMatcher::InsideMask& GrammarMatcher::inside_of(const GrammarReading& reading) {
  const std::bitset<256> after = bytes_after(reading.below);
  // All needs are below this, so more depth than that is as good as any.
  constexpr uint32_t kDepthMax = 64;
  const uint32_t depth_left =
      std::min(kDepthMax, grammar_.depth_max_ - frames_[reading.below].depth);
  for (auto known = insides_.begin(); known != insides_.end(); ++known) {
    if (known->state != reading.state || known->depth_left != depth_left) continue;
    if (known->uses_after && known->after != after) continue;
    insides_.splice(insides_.begin(), insides_, known);
    return *known;
  }
  if (insides_.size() >= kMasksMax / 2) insides_.pop_back();
  InsideMask& made = insides_.emplace_front();
  made.state = reading.state;
  made.depth_left = depth_left;
  made.after = after;
  ranges_.clear();
  filter_for(reading);
  recording_ = &made;
  static_cast<void>(walk_one(tokens_.node(0), 0, reading));  // steps nowhere: meets no limit
  recording_ = nullptr;
  write_bits(made.bits);
  return made;
}

bool GrammarMatcher::mask_one(const GrammarReading& reading, std::vector<uint64_t>& bits) {
  const InsideMask& inside = inside_of(reading);
  const uint32_t rule = grammar_.states_[reading.state].rule;
  bits = inside.bits;
  ranges_.clear();
  filter_groups_ = 0;
  for (const Leaving& leaving : inside.leaving) {
    const TokenTrie::Node& node = tokens_.node(leaving.node);
    const Marks marks = counted(reading.marks, rule, leaving.units);
    const size_t depth = leaving.depth;
    levels_[depth].assign(1, {reading.below, leaving.state, marks});
    if (!step(levels_[depth], node.byte, levels_[depth + 1])) return false;
    if (!walk_below(node, depth + 1)) return false;
  }
  for (const auto& range : ranges_) {
    for (uint32_t i = range.begin; i < range.end; ++i) {
      const auto id = static_cast<size_t>(tokens_.token(i));
      bits[id / 64] |= uint64_t{1} << (id % 64);
    }
  }
  return true;
}

std::span<const uint64_t> GrammarMatcher::tokens_of(ByteGroups groups) {
  constexpr size_t kGroupsMax = 16;
  const auto known = of_groups_.find(groups);
  if (known != of_groups_.end()) return known->second;
  if (of_groups_.size() >= kGroupsMax) of_groups_.clear();
  std::vector<uint64_t>& bits = of_groups_[groups];
  bits.assign(tokens_.all_bits().size(), 0);
  for (uint32_t i = 0; i < tokens_.token_count(); ++i) {
    const auto id = static_cast<size_t>(tokens_.token(i));
    const uint64_t is_inside = (tokens_.groups_of(i) & ~groups) == 0 ? 1 : 0;
    bits[id / 64] |= is_inside << (id % 64);
  }
  return bits;
}

// Tokens lie in the order of their texts, bits in the order of ids: the fewer of both are written.
void GrammarMatcher::write_bits(std::vector<uint64_t>& bits) {
  size_t allowed = 0;
  for (const auto& range : ranges_) allowed += range.end - range.begin;
  const auto word = [&](uint32_t index) -> uint64_t& {
    return bits[static_cast<size_t>(tokens_.token(index)) / 64];
  };
  const auto bit = [&](uint32_t index) {
    return uint64_t{1} << (static_cast<size_t>(tokens_.token(index)) % 64);
  };
  if (filter_groups_ != 0) {
    const auto inside = tokens_of(filter_groups_);
    bits.assign(inside.begin(), inside.end());
    tokens_.keep_up_to(filter_characters_, bits);
    const auto [begin, end] = tokens_.node(0).children();
    for (uint32_t index = begin; index < end; ++index) {
      const TokenTrie::Node& child = tokens_.node(index);
      if (filter_first_[child.byte]) continue;
      for (uint32_t i = child.first_token; i < child.end_token; ++i) word(i) &= ~bit(i);
    }
  } else {
    bits.assign(tokens_.all_bits().size(), 0);
  }
  if (filter_groups_ != 0 || allowed * 2 < tokens_.token_count()) {
    for (const auto& range : ranges_) {
      for (uint32_t i = range.begin; i < range.end; ++i) word(i) |= bit(i);
    }
    return;
  }
  std::ranges::sort(ranges_, {}, &TokenTrie::Range::begin);
  std::ranges::copy(tokens_.all_bits(), bits.begin());
  uint32_t next = 0;
  const auto forbid_to = [&](uint32_t end) {
    for (; next < end; ++next) word(next) &= ~bit(next);
  };
  for (const auto& range : ranges_) {
    forbid_to(range.begin);
    next = range.end;
  }
  forbid_to(static_cast<uint32_t>(tokens_.token_count()));
}

Result<std::span<const uint64_t>> GrammarMatcher::mask(const GrammarState& state) {
  const auto known = known_.find(state);
  if (known != known_.end()) {
    masks_.splice(masks_.begin(), masks_, known->second);
    return std::span<const uint64_t>(masks_.front().bits);
  }
  const size_t frames = frames_.size();
  std::vector<uint64_t> bits;
  bool is_done = true;
  if (state.readings.size() > 1) {
    // A token is allowed if one of the readings lets it: each has a mask of its own.
    bits.assign(tokens_.all_bits().size(), 0);
    for (const GrammarReading& reading : state.readings) {
      const std::span<const uint64_t> one = PENSTOCK_TRY(mask({{reading}}));
      for (size_t i = 0; i < bits.size(); ++i) bits[i] |= one[i];
    }
  } else if (tokens_.token_count() > 0 && !state.readings.empty() && is_free(state.readings[0])) {
    is_done = mask_one(state.readings[0], bits);
  } else {
    is_done = walk(state);
    write_bits(bits);
  }
  forget_frames(frames);
  if (!is_done) return too_ambiguous();
  if (masks_.size() >= kMasksMax) {
    known_.erase(masks_.back().state);
    masks_.splice(masks_.begin(), masks_, std::prev(masks_.end()));
  } else {
    masks_.emplace_front();
  }
  masks_.front().state = state;
  masks_.front().bits = std::move(bits);
  known_.emplace(state, masks_.begin());
  return std::span<const uint64_t>(masks_.front().bits);
}

}  // namespace penstock
