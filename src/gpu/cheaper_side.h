// Which of two sides does a kind of work sooner: the processors or a device, from how long each of them
// took for it. Bits are the same on both, so only time depends on what it says.
//
//   const Side side = cheaper.choose(kind);
//   ...                                        // the work
//   cheaper.note(kind, side, seconds);         // for each row of it
//
// Each side is asked once, and twice more where they are close; then the one that took less, and the
// other one now and then, since both change (what lies where, who else is at work, the clock of a device, which
// follows how busy it is): some calls in a row, the shortest of which counts, and so rarely that
// what it takes longer is a small part of all (kLookShare); of close ones soon after the first calls, too. A side
// keeps its place until the other one is clearly sooner (kLead), so that they do not take turns.
//
// Threads  one
// Memory   two times for each kind that was asked for
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

namespace penstock {

enum class Side : uint8_t { kProcessors, kDevice };

// Who computes calls of many rows: a side, or whichever is the sooner.
enum class SideRule : uint8_t { kCheaper, kProcessors, kDevice };

class CheaperSide {
 public:
  // Work that takes as long for a row each time: which matrices, and about how many rows.
  struct Kind {
    int64_t columns = 0, rows = 0;  // of the matrices
    int64_t row_class = 0;
    auto operator<=>(const Kind&) const = default;
  };
  // Numbers of rows that are taken for alike: up to a power of two.
  static int64_t row_class(int64_t rows);

  explicit CheaperSide(SideRule rule = SideRule::kCheaper) : rule_(rule) {}

  Side choose(const Kind& kind);
  // In any unit that is the same for all of a kind.
  void note(const Kind& kind, Side side, double cost);

 private:
  static constexpr int64_t kCloseTries = 3;  // of each side, where they are close
  static constexpr double kClose = 2;        // times as long
  static constexpr double kLead = 0.93;
  static constexpr double kLookShare = 0.015;  // of the time, at most, for what looks cost
  static constexpr int64_t kLookCalls = 3;     // of a look
  static constexpr int64_t kFirstLook =
      8;  // of close ones, after so many calls; then twice as many
  static constexpr int64_t kLastLook = int64_t{1} << 20;  // so far apart no early look is
  // Weight of the latest: of the side that is asked, and of the one that was not for long.
  static constexpr double kNew = 0.25, kNewOfLook = 0.7;

  struct Times {
    std::array<double, 2> cost = {};  // by side
    std::array<int64_t, 2> tries = {};
    Side best = Side::kDevice;
    int64_t calls = 0;  // since the other one was asked
    int64_t next_look = kFirstLook;
    int64_t looking = 0;  // calls that are left of a look
    double seen = 0;      // the shortest of these
  };
  static constexpr size_t at(Side side) { return static_cast<size_t>(side); }
  static constexpr Side other(Side side) {
    return side == Side::kDevice ? Side::kProcessors : Side::kDevice;
  }

  SideRule rule_;
  std::map<Kind, Times> times_;
};

}  // namespace penstock
