// What typed bytes mean for an editor of one line: characters, keys in one spelling each, and pasted
// text as text.
//
// A paste that the terminal marks (bracketed paste) gives one kPastedNewline for each of its ends of
// lines, so that it stays one message; its other control characters do nothing. Keys that mean nothing
// here (function keys, mice, a window that comes to the front) give nothing.
//
// Source   ECMA-48 5.4; XTerm Control Sequences, "Bracketed Paste Mode", "PC-Style Function Keys"
// Threads  one
#pragma once

#include <deque>

#include "cli/typed_bytes.h"

namespace penstock {

// Stands for the end of a line inside of pasted text while that is edited: the editor knows one line.
inline constexpr wchar_t kPastedNewline = 0x23ce;

class TypedCharacters {
 public:
  // `bytes` must live as long.
  explicit TypedCharacters(TypedBytes& bytes) : bytes_(bytes) {}

  // kByte: there is a character.
  Arrived next(wchar_t& character);

  bool is_pasting() const { return is_pasting_; }

  // A line is over: what was begun is forgotten.
  void end_line();

 private:
  void read_key();
  Arrived read_character(wchar_t& character);
  void paste(wchar_t character);

  TypedBytes& bytes_;
  bool is_pasting_ = false;
  wchar_t last_ = 0;             // the character before, for the LF of a CR LF
  std::deque<wchar_t> waiting_;  // before what comes next
};

}  // namespace penstock
