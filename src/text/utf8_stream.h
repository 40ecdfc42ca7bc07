// Releases text only in whole characters, however its bytes arrive.
//
// A token may end inside a character; a terminal or an HTTP client must never see half of one.
//
// Invariants  (1) what push() and finish() returned so far is valid UTF-8
//             (2) push(a) + push(b) + finish() does not depend on where a ends
// Threads     one at a time.
// Memory      keeps at most three bytes.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

class Utf8Stream {
 public:
  // The characters that are whole now. Invalid sequences come out as U+FFFD, as in utf8.h.
  std::string push(std::string_view bytes);

  // What is left at the end of the text: nothing, or U+FFFD for an unfinished character.
  // The stream is then empty and can be used for another text.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace penstock
