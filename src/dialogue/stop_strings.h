// Ends a text before the first stop string, wherever its bytes are cut.
//
// What might still become a stop string is held back until that is certain; no part of one is ever
// delivered. When two could match, the one that is complete first does.
//
// Invariants  push(a) + push(b) + finish() is push(a + b) + finish()
// Threads     one at a time.
// Memory      holds less than the longest stop string; tables of four bytes for each of their bytes
// Limits      texts and stop strings are whole UTF-8 characters; kStopStringsMax of them, of
//             kStopBytesMax bytes
// Errors      check(): kInvalidArgument naming the limit
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock {

inline constexpr size_t kStopStringsMax = 16;
inline constexpr size_t kStopBytesMax = 1024;

class StopStrings {
 public:
  // kInvalidArgument naming the field "stop".
  static Result<void> check(const std::vector<std::string>& stops);
  explicit StopStrings(std::vector<std::string> stops);

  // What is certain now. After a match nothing more.
  std::string push(std::string_view text);
  // What was held back; the text goes on elsewhere or ends.
  std::string flush();

  // The stop string that was met; empty: none.
  const std::string& matched() const { return matched_; }
  bool is_stopped() const { return !matched_.empty(); }

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t> borders;  // of each beginning: its longest border
    uint32_t length = 0;            // how much of it the text ends with
  };

  std::vector<Pattern> patterns_;
  std::string held_;
  std::string matched_;
};

}  // namespace penstock
