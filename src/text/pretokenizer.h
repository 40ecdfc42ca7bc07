// Cuts text into the pieces within which byte pairs are merged.
//
// A tokenizer.json says how with a regular expression. The two expressions of the Qwen families are
// recognised by their text and matched by hand: no regex engine, no backtracking, one look at each
// character. In both a piece is, at each position the first that fits of
//
//   1  an apostrophe and one of s t m d re ve ll, in any case (long s counts as s)
//   2  any one character but CR, LF, letter, number; if there is one; then letters
//   3  one number character
//   4  a space, if there is one; then characters that are no space, letter or number; then CR, LF
//   5  white space up to and including the last CR or LF of its run
//   6  white space not followed by anything else: the whole run at the end of the text, otherwise
//      the run without its last character, which 2 or 4 may want
//   7  white space
//
// "Letters" in 2 and 4 are \p{L}, and with kLettersAndMarks also \p{M}.
//
// Source  the pre_tokenizer of Qwen2's, Qwen3-Next's (same as Qwen2's) and Qwen3.5's
// tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

enum class SplitPattern : uint8_t {
  kLetters,          // Qwen2, Qwen3, Qwen3-Next, Qwen3-Coder-Next
  kLettersAndMarks,  // Qwen3.5 and later
};

// The pattern with this source text, if it is one of ours.
std::optional<SplitPattern> find_split_pattern(std::string_view regex);

// The source text of a pattern, as a tokenizer.json has it.
std::string_view regex_of(SplitPattern pattern);

// Where the piece that begins at `begin` ends. `text` is valid UTF-8, begin < text.size(); the
// result is greater than begin.
size_t piece_end(std::string_view text, size_t begin, SplitPattern pattern);

}  // namespace penstock
