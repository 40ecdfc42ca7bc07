#include "grammar/matcher.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

constexpr uint32_t kIsSpecial = 1u << 31;
constexpr uint32_t kNoNext = kIsSpecial - 1;
constexpr size_t kRowsMax = 2048;

constexpr uint64_t mixed(uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  return x ^ (x >> 32);
}

uint64_t hash_of(uint32_t below, uint32_t state, Marks marks) {
  return mixed(mixed(uint64_t{below} << 32 | state) + mixed(marks.low) + 3 * mixed(marks.high));
}

Error too_ambiguous() {
  return {ErrorCode::kUnsupported,
          "the grammar is too ambiguous here: too many readings of the same text, or calls nested "
          "too often"};
}

}  // namespace

size_t GrammarMatcher::StateHash::operator()(const GrammarState& state) const {
  uint64_t hash = state.readings.size();
  for (const GrammarReading& reading : state.readings) {
    hash = mixed(hash + hash_of(reading.below, reading.state, reading.marks));
  }
  return hash;
}

GrammarMatcher::GrammarMatcher(const Grammar& grammar, const TokenTrie& tokens)
    : grammar_(grammar), tokens_(tokens), frames_(1), slots_(1024, 0) {
  levels_.resize(tokens.depth_max() + size_t{1});
  path_.resize(levels_.size());
  rows_.emplace_back();
  row_of_.assign(grammar.states_.size(), 0);
}

GrammarState GrammarMatcher::start() const {
  return {{{.below = 0, .state = grammar_.rules_[grammar_.root_].start, .marks = {}}}};
}

// ---- frames

size_t GrammarMatcher::slot_of(uint32_t below, uint32_t state, Marks marks) const {
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash_of(below, state, marks) & mask;; slot = (slot + 1) & mask) {
    if (slots_[slot] == 0) return slot;
    const Frame& frame = frames_[slots_[slot]];
    if (frame.below == below && frame.state == state && frame.marks == marks) return slot;
  }
}

void GrammarMatcher::grow_slots() {
  slots_.assign(slots_.size() * 2, 0);
  for (uint32_t id = 1; id < frames_.size(); ++id) {
    slots_[slot_of(frames_[id].below, frames_[id].state, frames_[id].marks)] = id;
  }
}

uint32_t GrammarMatcher::frame(uint32_t below, uint32_t state, Marks marks) {
  const size_t slot = slot_of(below, state, marks);
  if (slots_[slot] != 0) return slots_[slot];
  if (frames_.size() >= kFramesMax) {
    is_over_limit_ = true;
    return 0;
  }
  const auto id = static_cast<uint32_t>(frames_.size());
  const auto depth = static_cast<uint16_t>(frames_[below].depth + 1);
  frames_.push_back({.below = below, .state = state, .marks = marks, .depth = depth});
  slots_[slot] = id;
  if (frames_.size() * 2 > slots_.size()) grow_slots();
  return id;
}

// Newest first, so that each is the last of its chain when it goes.
void GrammarMatcher::forget_frames(size_t count) {
  while (frames_.size() > count) {
    const Frame& last = frames_.back();
    slots_[slot_of(last.below, last.state, last.marks)] = 0;
    frames_.pop_back();
  }
}

// ---- one byte

Marks GrammarMatcher::counted(Marks marks, uint32_t rule, uint32_t add) const {
  if (add == 0) return marks;
  marks.low = std::min<uint64_t>(marks.low + add, grammar_.rules_[rule].count_cap);
  return marks;
}

bool GrammarMatcher::may_enter(uint32_t below, uint32_t state, Marks marks) const {
  const Grammar::State& to = grammar_.states_[state];
  if (frames_[below].depth + uint32_t{to.need} > grammar_.depth_max_) return false;
  return to.guard == 0 || grammar_.guards_[to.guard].holds(marks);
}

void GrammarMatcher::arrive(uint32_t below, uint32_t state, Marks marks) {
  const Grammar::State& to = grammar_.states_[state];
  if (to.ends_unit) marks = counted(marks, to.rule, 1);
  if (!may_enter(below, state, marks)) return;
  const GrammarReading reading{below, state, marks};
  if (std::ranges::find(*out_, reading) != out_->end()) return;
  if (out_->size() >= kReadingsMax) {
    is_over_limit_ = true;
    return;
  }
  out_->push_back(reading);
}

bool GrammarMatcher::accepts(const GrammarReading& reading) const {
  const Grammar::State& state = grammar_.states_[reading.state];
  return state.is_accepting && reading.marks.low >= state.accept_min;
}

void GrammarMatcher::take_calls(const GrammarReading& from, uint8_t byte) {
  const Grammar::State& state = grammar_.states_[from.state];
  for (uint32_t c = 0; c < state.call_count; ++c) {
    const Grammar::Call& call = grammar_.calls_[state.calls_begin + c];
    const Grammar::CompiledRule& rule = grammar_.rules_[call.rule];
    const bool may_begin = rule.first[byte];
    if (!may_begin && !call.may_be_empty) continue;
    if (!grammar_.guards_[call.guard].holds(from.marks)) continue;
    const Marks marks = counted(from.marks | call.mark, state.rule, call.add);
    if (!may_enter(from.below, call.target, marks)) continue;
    if (call.may_be_empty) step_one({from.below, call.target, marks}, byte, false);
    if (!may_begin) continue;
    uint32_t below = from.below;
    if (!grammar_.states_[call.target].is_final) below = frame(below, call.target, marks);
    if (is_over_limit_) return;
    if (may_enter(below, rule.start, {})) step_one({below, rule.start, {}}, byte, true);
  }
}

// A rule that has just been called takes the byte itself or not at all: what it does with nothing
// is the caller's may_be_empty.
void GrammarMatcher::step_one(const GrammarReading& from, uint8_t byte, bool has_just_begun) {
  if (steps_left_ == 0) is_over_limit_ = true;
  if (is_over_limit_) return;
  --steps_left_;
  const Grammar::State& state = grammar_.states_[from.state];
  const uint32_t next = grammar_.next_state(from.state, byte);
  if (next != Grammar::kNoState) arrive(from.below, next, from.marks);
  if (state.call_count > 0) take_calls(from, byte);
  if (!has_just_begun && from.below != 0 && accepts(from)) {
    const Frame back = frames_[from.below];
    step_one({back.below, back.state, back.marks}, byte, false);
  }
}

bool GrammarMatcher::step(const Readings& from, uint8_t byte, Readings& to) {
  to.clear();
  out_ = &to;
  steps_left_ = kStepsPerByteMax;
  is_over_limit_ = false;
  for (const GrammarReading& reading : from) step_one(reading, byte, false);
  return !is_over_limit_;
}

Result<bool> GrammarMatcher::accept(GrammarState& state, std::string_view bytes) {
  const size_t frames = frames_.size();
  Readings now = state.readings;
  Readings next;
  for (const char byte : bytes) {
    const bool is_done = step(now, static_cast<uint8_t>(byte), next);
    if (!is_done || next.empty()) {
      forget_frames(frames);
      if (!is_done) return too_ambiguous();
      return false;
    }
    now.swap(next);
  }
  state.readings = std::move(now);
  return true;
}

bool GrammarMatcher::can_end(const GrammarState& state) const {
  return std::ranges::any_of(state.readings, [&](GrammarReading reading) {
    while (accepts(reading)) {
      if (reading.below == 0) return true;
      const Frame& back = frames_[reading.below];
      reading = {back.below, back.state, back.marks};
    }
    return false;
  });
}

// ---- all tokens

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

// The nodes [begin, end) are children, with all below them, of the node that `from` stands at.
bool GrammarMatcher::walk_one(uint32_t begin, uint32_t end, const GrammarReading& from) {
  const std::bitset<256> after = bytes_after(from.below);
  const uint32_t depth_left = grammar_.depth_max_ - frames_[from.below].depth;
  path_[tokens_.node(begin).depth - 1u] = from;
  uint16_t filtered_depth =
      filter_characters_ > 0 && begin == 1 ? 1 : 0;  // filter holds up to here
  for (uint32_t index = begin; index < end;) {
    const TokenTrie::Node& node = tokens_.node(index);
    const uint16_t depth = node.depth;
    const GrammarReading& parent = path_[depth - 1u];
    const uint32_t next = row(parent.state)[node.byte];
    if (filtered_depth > depth) filtered_depth = depth;
    if (filtered_depth == depth) {
      const ByteGroups group = node.byte < 0x80 ? kAsciiGroups[node.byte] : kWholeCharacters;
      if ((group & ~filter_groups_) == 0) {
        if ((node.groups & ~filter_groups_) == 0) {  // the bitmaps know all of it
          index = node.end;
          continue;
        }
        ++filtered_depth;
      }
    }
    const bool may_return = grammar_.states_[parent.state].is_accepting && after[node.byte];
    if ((next & kIsSpecial) != 0 || may_return) {
      // More than one reading, or another frame: step all the way. What the walk below it does to
      // path_ and levels_ is deeper than what is needed here, but for this level's reading.
      levels_[depth - 1u].assign(1, parent);
      if (!step(levels_[depth - 1u], node.byte, levels_[depth])) return false;
      if (!walk_below(index)) return false;
      index = node.end;
      continue;
    }
    if (next == kNoNext) {
      index = node.end;
      continue;
    }
    const Grammar::State& to = grammar_.states_[next];
    GrammarReading& here = path_[depth];
    here = {parent.below, next, parent.marks};
    if (to.ends_unit) here.marks = counted(here.marks, to.rule, 1);
    const bool is_open = to.guard == 0 || grammar_.guards_[to.guard].holds(here.marks);
    if (!is_open || to.need > depth_left) {
      index = node.end;
    } else if (takes_all_below(here, node)) {
      add_range(tokens_.tokens_below(index));
      index = node.end;
    } else {
      add_range(tokens_.tokens_at(index));
      ++index;
    }
  }
  return true;
}

// What is below a node whose readings are in levels_, and the node itself.
bool GrammarMatcher::walk_below(uint32_t index) {
  const TokenTrie::Node& node = tokens_.node(index);
  const Readings& here = levels_[node.depth];
  if (here.empty()) return true;
  for (const GrammarReading& reading : here) {
    if (!takes_all_below(reading, node)) continue;
    add_range(tokens_.tokens_below(index));
    return true;
  }
  if (index != 0) add_range(tokens_.tokens_at(index));
  if (here.size() == 1) return walk_one(index + 1, node.end, GrammarReading(here[0]));
  return walk_all(index + 1, node.end);
}

bool GrammarMatcher::walk_all(uint32_t begin, uint32_t end) {
  for (uint32_t index = begin; index < end; index = tokens_.node(index).end) {
    const TokenTrie::Node& node = tokens_.node(index);
    if (!step(levels_[node.depth - 1u], node.byte, levels_[node.depth])) return false;
    if (!walk_below(index)) return false;
  }
  return true;
}

bool GrammarMatcher::walk(const GrammarState& state) {
  ranges_.clear();
  filter_characters_ = 0;
  if (tokens_.token_count() == 0 || state.readings.empty()) return true;
  if (state.readings.size() == 1) {
    const uint64_t left = units_left(state.readings[0]);
    if (left > 0 && left <= TokenTrie::kFilteredMax) {
      filter_characters_ = static_cast<uint32_t>(left);
      filter_groups_ = grammar_.states_[state.readings[0].state].stays;
    }
  }
  levels_[0] = state.readings;
  return walk_below(0);
}

std::span<const uint64_t> GrammarMatcher::tokens_of(ByteGroups groups) {
  constexpr size_t kGroupsMax = 16;
  const auto known = of_groups_.find(groups);
  if (known != of_groups_.end()) return known->second;
  if (of_groups_.size() >= kGroupsMax) of_groups_.clear();
  std::vector<uint64_t>& bits = of_groups_[groups];
  bits.assign(tokens_.all_bits().size(), 0);
  for (TokenId id = 0; id < tokens_.vocab_size(); ++id) {
    const uint64_t is_inside = (tokens_.groups_of(id) & ~groups) == 0 ? 1 : 0;
    bits[static_cast<size_t>(id) / 64] |= is_inside << (static_cast<size_t>(id) % 64);
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
  bits.assign(tokens_.all_bits().size(), 0);
  if (filter_characters_ > 0) {
    const auto inside = tokens_of(filter_groups_);
    const auto short_enough = tokens_.bits_up_to(filter_characters_);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = inside[i] & short_enough[i];
  }
  if (filter_characters_ > 0 || allowed * 2 < tokens_.token_count()) {
    for (const auto& range : ranges_) {
      for (uint32_t i = range.begin; i < range.end; ++i) word(i) |= bit(i);
    }
    return;
  }
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
  const bool is_done = walk(state);
  forget_frames(frames);
  if (!is_done) return too_ambiguous();
  if (masks_.size() >= kMasksMax) {
    known_.erase(masks_.back().state);
    masks_.splice(masks_.begin(), masks_, std::prev(masks_.end()));
  } else {
    masks_.emplace_front();
  }
  masks_.front().state = state;
  write_bits(masks_.front().bits);
  known_.emplace(state, masks_.begin());
  return std::span<const uint64_t>(masks_.front().bits);
}

}  // namespace penstock
