#include "grammar/matcher.h"

#include <algorithm>

namespace penstock {
namespace {

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

}  // namespace

Error GrammarMatcher::too_ambiguous() {
  return {ErrorCode::kUnsupported,
          "the grammar is too ambiguous here: too many readings of the same text, or calls nested "
          "too often"};
}

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

}  // namespace penstock
