// A JSON text that may end at any moment and can then still be closed.
//
// Takes a text byte by byte and gives back the longest beginning of it that a few closing marks
// make whole: a name without its value, a comma without what it announces, half an escape, a
// number that may go on are held back until they are decided. What is given is exactly the text.
//
// Invariants  (1) given so far + closing() is valid JSON, once anything was given
//             (2) the sum of what is given does not depend on where the text is cut
// Threads     one at a time.
// Limits      kJsonDepthMax levels; texts are whole UTF-8 characters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"

namespace penstock {

class JsonStream {
 public:
  enum class Status : uint8_t { kOpen, kWhole, kBroken };

  // Takes bytes until the value is whole or broken; `taken` of them were part of it.
  Status push(std::string_view text, std::string& given, size_t& taken);

  // What makes the text that was given whole.
  const std::string& closing() const { return closing_; }
  // What was taken and not given.
  const std::string& held() const { return held_; }

 private:
  enum class State : uint8_t {
    kValue,       // a value must come
    kValueOrEnd,  // or the end of the array
    kNameOrEnd,   // behind {
    kName,        // behind a comma in an object
    kColon,
    kNext,  // behind a value: a comma or an end
    kString,
    kEscape,
    kHex,
    kScalar  // a number, true, false, null
  };

  bool take(char c);  // false: not JSON
  bool take_in_string(char c);
  bool take_escape(char c);
  bool take_hex(char c);
  bool begin_value(char c);
  bool end_scalar();
  void end_value();
  // All that is held may be given.
  void settle();

  State state_ = State::kValue;
  std::string stack_;         // of { and [
  std::string held_;          // not yet given
  size_t certain_bytes_ = 0;  // of it: may be given
  std::string closing_;       // of what may be given
  std::string scalar_;
  bool is_name_ = false;  // the string is a member's name
  int hex_left_ = 0;
  uint32_t hex_ = 0;
  bool needs_low_surrogate_ = false;
  bool is_whole_ = false;
};

}  // namespace penstock
