// A part of ECMA-262's regular expressions, the one that has regular languages, as an expression.
//
// Read are: characters, ., classes, \d \w \s and their opposites, escapes, ( ), (?: ), |,
// * + ? {n} {n,} {n,m} (also lazy: the same texts), ^ at the beginning and $ at the end. As in JSON
// schemas a pattern may match anywhere in the text unless it is anchored. Not read: looking
// around, back references, \b, \p.
//
// Threads  a plain function.
// Limits   kPatternBytesMax, kPatternNestingMax; then those of expression.h.
// Errors   kUnsupported naming the construct, kInvalidArgument for what is no pattern.
// Source   ECMA-262, 22.2; JSON Schema validation, 6.3.3.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/expression.h"

namespace penstock {

inline constexpr size_t kPatternBytesMax = 4096;
inline constexpr int kPatternNestingMax = 64;

// How one character of the ranges is written: as itself, or with the escapes of JSON.
using CharacterWriter = std::function<ExpressionId(std::vector<CodePointRange>)>;

Result<ExpressionId> parse_pattern(GrammarSource& source, std::string_view pattern,
                                   const CharacterWriter& character);

}  // namespace penstock
