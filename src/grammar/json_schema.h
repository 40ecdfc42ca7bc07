// JSON schemas as grammars: what a model writes under one of them is valid by construction.
//
//   const GrammarSource source = PENSTOCK_TRY(json_schema_grammar(schema));
//
// Obeyed are: type (also lists), enum, const, properties, required, additionalProperties, items,
// prefixItems, additionalItems, min/maxItems, min/maxLength, pattern (regex.h), format (date,
// time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri), minimum, maximum and their
// exclusive forms, anyOf, allOf, oneOf where its branches cannot overlap, $ref within the document
// (also recursive), $defs, nullable. Annotations are read over. Everything else is refused by its
// name, or, in the schema of a tool, left out and named.
//
// Members come in any order, each once; blanks as in json_text.h. A schema without "type" is about
// the type that its keywords speak of. Integers have no fraction and 64 bits; numbers between
// limits have no exponent.
//
// Threads  plain functions.
// Limits   the work that is left (work.h); kSchemaBytesMax, kSchemaDepthMax, kNestingMax levels of objects and arrays in an answer.
// Errors   kUnsupported and kInvalidArgument with the place ("schema.properties.age") and keyword.
// See also schema_view.h, tool_grammar.h
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "grammar/expression.h"
#include "grammar/json_text.h"
#include "grammar/schema_view.h"

namespace penstock {

inline constexpr size_t kSchemaBytesMax = 256 * 1024;
inline constexpr uint32_t kNestingMax = 100;

// An answer that is one JSON value of the schema, blanks around it allowed.
Result<GrammarSource> json_schema_grammar(const Json& schema, GrammarWork& work);
inline Result<GrammarSource> json_schema_grammar(const Json& schema) {
  GrammarWork work;
  return json_schema_grammar(schema, work);
}

// An answer that is any JSON object.
GrammarSource json_object_grammar();

// The schemas of one document as rules of a grammar that may have others.
class SchemaRules {
 public:
  SchemaRules(GrammarSource& source, JsonText& text, SchemaView& view)
      : source_(source), text_(text), view_(view) {}

  // The JSON text of a value. `where` names the schema in errors.
  Result<ExpressionId> json(const Json& schema, const std::string& where);
  Result<ExpressionId> json(const SchemaAlternative& alternative, const std::string& where);

  // A string as it is, not in quotes. `marker` does not occur in it, `excluded` (or kNoId) is not
  // all of it.
  struct Raw {
    ExpressionId marker = kNoId;
    ExpressionId excluded = kNoId;
  };
  Result<ExpressionId> raw_string(const SchemaAlternative& alternative, const Raw& raw,
                                  const std::string& where);

  // The value as a rule, once per schema.
  Result<RuleId> json_rule(const Json& schema, const std::string& where);

  // An object without its frame: who may be a member. `lists_all`: without
  // "additionalProperties" there are no others.
  struct Properties {
    struct Property {
      std::string name;
      const Json* schema = nullptr;
      bool is_required = false;
    };
    std::vector<Property> listed;
    const Json* others = nullptr;  // nullptr: none
  };
  Result<Properties> properties(const Json& schema, bool lists_all, const std::string& where);

 private:
  Result<ExpressionId> object(const Json& schema, const std::string& where);
  Result<ExpressionId> reference(const Json& schema, const std::string& where);
  Result<ExpressionId> array(const Json& schema, const std::string& where);
  Result<ExpressionId> number(const Json& schema, bool is_integer, const std::string& where);
  // raw.marker: kNoId for a string in quotes.
  Result<ExpressionId> string(const Json& schema, const Raw& raw, const std::string& where);
  Result<ExpressionId> pattern(const Json& schema, const Raw& raw, const std::string& where);
  // Whether a text under this schema is within the limits, which only compiling tells.
  Result<bool> can_compile(const Json& schema, bool is_quoted);
  Result<bool> try_pattern(const Json& schema, bool is_quoted, GrammarWork& work) const;

  GrammarSource& source_;
  JsonText& text_;
  SchemaView& view_;
  std::map<const Json*, RuleId> rules_;
  int depth_ = 0;
};

}  // namespace penstock
