// GBNF, the notation of grammars in llama.cpp's API, as a GrammarSource.
//
//   root ::= "yes" | "no" [.!]{0,3}      # from a comment to the end of the line
//
// Read are: names, "texts", [classes] and [^others], . for any character, ( ), |, * + ? {n} {n,}
// {n,m}, escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH. A rule may go on behind a | or
// inside ( ). The text begins with the rule called root. Tokens (<...>) are not supported.
//
// Threads  a plain function.
// Limits   kGbnfBytesMax, kGbnfNestingMax; then those of expression.h.
// Errors   kInvalidArgument and kUnsupported with the line.
// Source   grammars/README.md of llama.cpp (the notation only).
#pragma once

#include <string_view>

#include "base/result.h"
#include "grammar/expression.h"

namespace penstock {

inline constexpr size_t kGbnfBytesMax = 256 * 1024;
inline constexpr int kGbnfNestingMax = 64;

Result<GrammarSource> parse_gbnf(std::string_view text);

// `child` from min to max times, in the form that costs least: copies where they are few, a count
// where they are many. child_size: about how many states it is; grows to the result's.
ExpressionId repeated(GrammarSource& source, ExpressionId child, uint32_t min, uint32_t max,
                      uint64_t& child_size);

}  // namespace penstock
