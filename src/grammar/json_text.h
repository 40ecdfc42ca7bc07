// JSON as expressions: blanks, strings, numbers, values of any kind, given values.
//
// Texts are read the way models write them. Where JSON has several spellings of one value, all
// usual ones are offered: blanks between any two marks (kBlanksMax of them at once, so that a model
// cannot drown in them), characters beyond ASCII as they are or as \uXXXX, "/" with and without a
// backslash. Not offered are \u escapes of printable ASCII in texts that a schema gives or limits,
// numbers that a double cannot hold, and lone surrogates.
//
// Threads  plain data over a GrammarSource, which must outlive it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "grammar/expression.h"

namespace penstock {

inline constexpr uint32_t kBlanksMax = 200;

class JsonText {
 public:
  explicit JsonText(GrammarSource& source) : source_(source) {}

  // Shared rules, made when first asked for.
  RuleId blanks();
  RuleId string();   // any
  RuleId number();   // any that a double holds
  RuleId integer();  // any of 64 bits
  RuleId object();   // any
  RuleId array();    // any
  RuleId value();    // any

  ExpressionId blank() { return source_.rule(blanks()); }
  // One character of the ranges as it stands inside the quotes; a unit.
  ExpressionId character(std::vector<CodePointRange> ranges);
  ExpressionId any_character();
  // A text inside the quotes, in its usual spellings.
  ExpressionId inside_quotes(std::string_view text);
  // Exactly this value; members in any order.
  ExpressionId literal(const Json& value);
  // Exactly one of these.
  ExpressionId one_of(const std::vector<const Json*>& values);
  // What stands between the name of a member and its value: blanks and a colon.
  ExpressionId quoted_name(std::string_view name);
  // A name that is none of these.
  ExpressionId other_name(const std::vector<std::string>& names);
  // Rules with the marks of objects and arrays; members, items and limits are the caller's.
  Rule object_frame(std::string name);
  Rule array_frame(std::string name);

 private:
  ExpressionId unicode_escape(char32_t code_point);
  ExpressionId escapes_beyond_ascii();

  GrammarSource& source_;
  RuleId blanks_ = kNoId;
  RuleId string_ = kNoId;
  RuleId number_ = kNoId;
  RuleId integer_ = kNoId;
  RuleId object_ = kNoId;
  RuleId array_ = kNoId;
  RuleId value_ = kNoId;
  ExpressionId any_character_ = kNoId;
};

}  // namespace penstock
