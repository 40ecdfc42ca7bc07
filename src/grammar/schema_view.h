// A JSON schema taken apart into alternatives of one type each.
//
// "anyOf", "oneOf", "allOf", references and lists of types all say the same thing in the end: one
// of these simple schemas. Two readers want it in that form: the grammar, and whoever has to turn
// the text of a parameter into a value.
//
// Threads  one at a time. The document must outlive the view; schemas that had to be merged are
//          kept by the view.
// Limits   kSchemaDepthMax, kSchemasMax, and the work that is left (work.h).
// Errors   kUnsupported naming the keyword and where it stands, kInvalidArgument for what is no
//          schema. When lenient, an unsupported keyword is left out and its name kept.
// Source   JSON Schema 2020-12 and draft 7, the parts that json_schema.h lists.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "grammar/work.h"

namespace penstock {

inline constexpr int kSchemaDepthMax = 64;
inline constexpr size_t kSchemasMax = 20'000;

enum class SchemaType : uint8_t {
  kAny,
  kObject,
  kArray,
  kString,
  kNumber,
  kInteger,
  kBoolean,
  kNull,
  kGiven,      // one of the values of "enum", none of them a string
  kReference,  // only where references are not followed
};

struct SchemaAlternative {
  SchemaType type = SchemaType::kAny;
  const Json* schema = nullptr;          // with all that is to be said about that type
  std::vector<const Json*> values = {};  // of "enum" or "const"; then nothing else counts
};

class SchemaView {
 public:
  SchemaView(const Json& document, bool is_lenient, GrammarWork& work)
      : document_(document), is_lenient_(is_lenient), work_(work) {}

  // No alternative: nothing satisfies the schema. `where` names it in errors.
  Result<std::vector<SchemaAlternative>> alternatives(const Json& schema, bool follows_references,
                                                      const std::string& where);

  // What a "$ref" points to.
  Result<const Json*> target(const Json& schema, const std::string& where);

  // The error, or nothing where it is only to be noted.
  Result<void> leave_out(std::string_view keyword, const std::string& where,
                         std::string_view reason = "is not supported");

  GrammarWork& work() { return work_; }
  Result<void> take(uint64_t steps, const std::string& where);
  bool is_lenient() const { return is_lenient_; }
  const std::vector<std::string>& left_out() const { return left_out_; }

 private:
  using Alternatives = std::vector<SchemaAlternative>;
  Result<void> add(const Json& schema, bool follows, int depth, const std::string& where,
                   Alternatives& out);
  Result<void> add_branches(const Json& schema, const char* keyword, bool follows, int depth,
                            const std::string& where, Alternatives& out);
  Result<void> add_values(const Json& schema, const std::string& where, Alternatives& out);
  Result<void> add_types(const Json& schema, const std::string& where, Alternatives& out);
  Result<void> check_keywords(const Json& schema, const std::string& where);
  // schema_merge.cc: one schema that says what both say.
  Result<const Json*> merged(const Json& a, const Json& b, int depth, const std::string& where);
  Result<const Json*> without_reference(const Json& schema, int depth, const std::string& where);
  Result<void> merge_keyword(const std::string& key, const Json& value, Json& both,
                             const std::string& where);
  Result<const Json*> keep(Json schema, const std::string& where);
  bool are_disjoint(const Alternatives& a, const Alternatives& b);

  const Json& document_;
  bool is_lenient_;
  GrammarWork& work_;
  size_t visited_ = 0;
  std::deque<Json> kept_;
  std::vector<std::string> left_out_;
};

}  // namespace penstock
