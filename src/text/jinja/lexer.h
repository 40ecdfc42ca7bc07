// Cuts a template into its text, its tags, and the words inside the tags.
//
// White space around tags is settled here, as Jinja2 does with trim_blocks and lstrip_blocks: the
// line end after a block tag goes, blanks before one at the beginning of a line go, and `-` beside
// a tag takes all white space on that side. One line end at the end of the source goes, too.
//
// Limits  kTokensMax: a node of the tree takes a hundred times the bytes of its word
// Errors  kCorrupt: not UTF-8, an unfinished tag or text, a character that fits nowhere; kUnsupported:
//         too many words. With line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock::jinja {

inline constexpr size_t kTokensMax = 32'768;  // published templates have 6,000

struct Token {
  enum class Kind : uint8_t {
    kText,         // text outside of tags
    kOutputBegin,  // {{
    kOutputEnd,    // }}
    kBlockBegin,   // {%
    kBlockEnd,     // %}
    kName,
    kString,  // text: without quotes and escapes
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };

  Kind kind = Kind::kEnd;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};

// Ends with one kEnd. Errors begin with "line N: ".
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace penstock::jinja
