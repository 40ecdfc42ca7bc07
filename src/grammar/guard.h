// What a frame remembers beside its state, and what must hold of it where a state is entered.
//
// A frame of a counting rule keeps a number, a frame of a members rule the set of members it has
// seen. Both are the same 128 bits, so that stepping need not ask which.
#pragma once

#include <cstdint>

namespace penstock {

struct Marks {
  uint64_t low = 0;  // also the count
  uint64_t high = 0;

  static Marks bit(uint32_t index) {
    return index < 64 ? Marks{uint64_t{1} << index, 0} : Marks{0, uint64_t{1} << (index - 64)};
  }
  bool any() const { return (low | high) != 0; }
  friend Marks operator|(Marks a, Marks b) { return {a.low | b.low, a.high | b.high}; }
  friend Marks without(Marks a, Marks b) { return {a.low & ~b.low, a.high & ~b.high}; }
  friend bool operator==(const Marks&, const Marks&) = default;
};

// Alternatives: a guard holds if one of them does. The default has none and holds always.
struct Guard {
  Marks unseen = {};  // one of these is not yet seen
  bool has_needs = false;
  Marks needs = {};  // all of these are seen
  bool has_range = false;
  uint32_t count_min = 0;  // the count is in this range
  uint32_t count_max = UINT32_MAX;

  bool is_open() const { return !unseen.any() && !has_needs && !has_range; }
  bool holds(Marks marks) const {
    if (is_open()) return true;
    if (without(unseen, marks).any()) return true;
    if (has_needs && !without(needs, marks).any()) return true;
    return has_range && marks.low >= count_min && marks.low <= count_max;
  }
  // Either this or that. Ranges of one rule that meet here are nested or next to each other.
  void join(const Guard& other) {
    unseen = unseen | other.unseen;
    if (other.has_needs) {
      needs = has_needs ? Marks{needs.low & other.needs.low, needs.high & other.needs.high}
                        : other.needs;
      has_needs = true;
    }
    if (other.has_range) {
      count_min =
          has_range ? (count_min < other.count_min ? count_min : other.count_min) : other.count_min;
      count_max =
          has_range ? (count_max > other.count_max ? count_max : other.count_max) : other.count_max;
      has_range = true;
    }
  }
  friend bool operator==(const Guard&, const Guard&) = default;
};

}  // namespace penstock
