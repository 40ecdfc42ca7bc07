// Where a text stands in a grammar, and which tokens may come next.
//
//   GrammarMatcher matcher(grammar, tokens);
//   GrammarState state = matcher.start();
//   const auto allowed = PENSTOCK_TRY(matcher.mask(state));   // bit per token id
//   PENSTOCK_TRY(matcher.accept(state, bytes));                // what was chosen
//   if (matcher.can_end(state)) ...                            // the end token is allowed
//
// A state is a small set of readings, each a position and the frame it returns to. Frames are kept
// once however many readings share them, so a state is copied like a short vector: keep an older
// copy to go back, keep two to fork. Byte by byte every reading goes on or dies; several live only
// while the grammar really leaves it open which one is meant.
//
// Masks walk the vocabulary's tree with the state. They are remembered for states that return, and
// for every position in a text what tokens stay inside it: then a string costs the same wherever it
// stands, and only tokens that leave it or begin something new are looked at again.
//
// Invariants  (1) an accepted text is a beginning of a text of the grammar, and it can be ended
//             (2) mask(s) allows exactly the tokens whose bytes accept(s) would take
// Threads     one at a time; the grammar and the tree may be shared.
// Memory      frames: 40 bytes for each call that a text ever made, kFramesMax of them; masks:
//             kMasksMax bitmaps, 31 KB each at a vocabulary of 248,000, and half as many of
//             positions.
// Errors      kUnsupported when a grammar is too ambiguous at this place (kReadingsMax,
//             kStepsPerByteMax) or the text has made too many calls. The state is then unchanged.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <list>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "grammar/grammar.h"
#include "grammar/token_trie.h"

namespace penstock {

inline constexpr size_t kReadingsMax = 64;
inline constexpr uint32_t kStepsPerByteMax = 4096;
inline constexpr size_t kFramesMax = 1 << 20;
inline constexpr size_t kMasksMax = 64;

struct GrammarReading {
  uint32_t below = 0;  // the frame to return to; 0: none
  uint32_t state = 0;
  Marks marks = {};
  friend bool operator==(const GrammarReading&, const GrammarReading&) = default;
};

// A value. Empty: the text does not fit.
struct GrammarState {
  std::vector<GrammarReading> readings;
  friend bool operator==(const GrammarState&, const GrammarState&) = default;
};

class GrammarMatcher {
 public:
  // Both must outlive the matcher.
  GrammarMatcher(const Grammar& grammar, const TokenTrie& tokens);

  GrammarState start() const;

  // False, and the state is unchanged, if the text cannot go on like this.
  Result<bool> accept(GrammarState& state, std::string_view bytes);

  // Bit id % 64 of word id / 64. Valid until the next call. The end of the text is no token here:
  // see can_end().
  Result<std::span<const uint64_t>> mask(const GrammarState& state);

  bool can_end(const GrammarState& state) const;

  size_t frame_count() const { return frames_.size(); }

 private:
  struct Frame {
    uint32_t below = 0;
    uint32_t state = 0;
    Marks marks = {};
    uint16_t depth = 0;
  };
  using Readings = std::vector<GrammarReading>;
  struct StateHash {
    size_t operator()(const GrammarState& state) const;
  };
  struct KnownMask {
    GrammarState state;
    std::vector<uint64_t> bits;
  };

  // The tokens that keep a single reading inside its rule, wherever its frame stands.
  struct Leaving {  // a node behind which that is to be found out
    uint32_t node = 0;
    uint32_t depth = 0;
    uint32_t state = 0;  // before its byte
    uint32_t units = 0;  // since the root
  };
  struct InsideMask {
    uint32_t state = 0;
    uint32_t depth_left = 0;
    bool uses_after = false;  // it is of use only for the same bytes behind the frame
    std::bitset<256> after;
    std::vector<uint64_t> bits;
    std::vector<Leaving> leaving;
  };

  static Error too_ambiguous();

  // One byte for all of `from`; false when a limit was met.
  bool step(const Readings& from, uint8_t byte, Readings& to);
  void step_one(const GrammarReading& from, uint8_t byte, bool has_just_begun);
  void take_calls(const GrammarReading& from, uint8_t byte);
  void arrive(uint32_t below, uint32_t state, Marks marks);
  bool may_enter(uint32_t below, uint32_t state, Marks marks) const;
  bool accepts(const GrammarReading& reading) const;
  Marks counted(Marks marks, uint32_t rule, uint32_t add) const;

  uint32_t frame(uint32_t below, uint32_t state, Marks marks);
  size_t slot_of(uint32_t below, uint32_t state, Marks marks) const;
  void grow_slots();
  void forget_frames(size_t count);

  // The walk over the tree fills ranges_. Most of it meets one reading in one automaton, which
  // walk_one does with a table lookup a node; walk_all does what is left.
  bool walk(const GrammarState& state);
  bool is_free(const GrammarReading& reading) const;
  const InsideMask& inside_of(const GrammarReading& reading);
  bool mask_one(const GrammarReading& reading, std::vector<uint64_t>& bits);
  struct OneFrame {  // what is the same for all that walk_one meets
    std::bitset<256> after;
    uint32_t depth_left = 0;
    uint64_t first_count = 0;
    ByteGroups live_after = 0;  // the groups of `after`
  };
  struct Before {  // the beginning of a token that a walk has followed from the root
    ByteGroups groups = 0;
    uint64_t characters = 0;
    uint8_t utf8 = 0;  // where in a character it ends; kUtf8Broken: not known
  };
  void filter_for(const GrammarReading& reading);
  bool walk_all(const TokenTrie::Node& node, size_t depth);
  bool walk_one(const TokenTrie::Node& node, size_t depth, const GrammarReading& from);
  bool walk_one(const TokenTrie::Node& node, size_t depth, const GrammarReading& from,
                const OneFrame& frame, bool is_filtered, const Before& before);
  void add_plain(const TokenTrie::Node& node, ByteGroups groups, uint64_t characters);
  bool walk_below(const TokenTrie::Node& node, size_t depth);
  // Everything below the node keeps this reading alive, but perhaps for its length.
  bool is_plain_below(const GrammarReading& reading, const TokenTrie::Node& node) const {
    return (node.groups & ~grammar_.states_[reading.state].stays) == 0;
  }
  uint64_t units_left(const GrammarReading& reading) const;
  bool takes_all_below(const GrammarReading& reading, const TokenTrie::Node& node) const {
    return is_plain_below(reading, node) && node.characters_max() <= units_left(reading);
  }
  std::span<const uint64_t> tokens_of(ByteGroups groups);
  const uint32_t* row(uint32_t state);
  std::bitset<256> bytes_after(uint32_t frame) const;
  void add_range(TokenTrie::Range range);
  void write_bits(std::vector<uint64_t>& bits);

  const Grammar& grammar_;
  const TokenTrie& tokens_;
  std::vector<Frame> frames_;    // 0 is "none"
  std::vector<uint32_t> slots_;  // open addressing; 0 is free
  Readings* out_ = nullptr;      // of the step that runs
  uint32_t steps_left_ = 0;
  bool is_over_limit_ = false;

  std::vector<Readings> levels_;  // by depth of the walk
  // Where one reading comes to and stays in a text on many bytes, tokens of these groups, beginning
  // with these bytes and of at most so many characters are taken from bitmaps, and the walk looks
  // at the others only. No groups: not so.
  ByteGroups filter_groups_ = 0;
  std::bitset<256> filter_first_;
  uint64_t filter_characters_ = 0;
  std::unordered_map<ByteGroups, std::vector<uint64_t>> of_groups_;
  // Next state by byte, with kIsSpecial where calls may begin; made when first walked through.
  std::vector<std::array<uint32_t, 256>> rows_;
  std::vector<uint32_t> row_of_;  // by state; 0: none yet
  std::vector<TokenTrie::Range> ranges_;
  InsideMask* recording_ = nullptr;  // of the walk that runs
  std::list<InsideMask> insides_;    // the last used first
  std::list<KnownMask> masks_;       // the last used first
  std::unordered_map<GrammarState, std::list<KnownMask>::iterator, StateHash> known_;
};

}  // namespace penstock
