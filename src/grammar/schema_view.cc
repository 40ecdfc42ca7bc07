#include "grammar/schema_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "grammar/schema_keywords.h"

namespace penstock {
namespace {

// The property that tells two kinds of objects apart has given values in both.
const Json* given_values(const Json& object_schema, const std::string& name) {
  const Json* required = json_find(object_schema, "required");
  const Json* properties = json_find(object_schema, "properties");
  if (required == nullptr || properties == nullptr || !required->is_array()) return nullptr;
  if (std::ranges::find(*required, Json(name)) == required->end()) return nullptr;
  const Json* property = json_find(*properties, name);
  if (property == nullptr || !property->is_object()) return nullptr;
  const auto constant = property->find("const");
  if (constant != property->end()) return &*constant;
  return json_find(*property, "enum");
}

// Where it would take too many steps to find out, there is one.
bool have_common_value(const Json& a, const Json& b, GrammarWork& work) {
  if (!work.take(1 + uint64_t{a.size()} * b.size())) return true;
  const Json list_a = a.is_array() ? a : Json::array({a});
  const Json list_b = b.is_array() ? b : Json::array({b});
  return std::ranges::any_of(
      list_a, [&](const Json& x) { return std::ranges::find(list_b, x) != list_b.end(); });
}

bool are_told_apart(const SchemaAlternative& a, const SchemaAlternative& b, GrammarWork& work) {
  if (!work.take(1 + uint64_t{a.values.size()} * b.values.size())) return false;
  const auto given = [](const SchemaAlternative& x) { return !x.values.empty(); };
  if (given(a) && given(b)) {
    for (const Json* x : a.values) {
      for (const Json* y : b.values) {
        if (*x == *y) return false;
      }
    }
    return true;
  }
  if (given(a) != given(b)) {
    const auto& values = given(a) ? a.values : b.values;
    const SchemaType type = given(a) ? b.type : a.type;
    if (type == SchemaType::kAny) return false;
    return std::ranges::none_of(values, [&](const Json* x) { return is_value_of(*x, type); });
  }
  const auto is_number = [](SchemaType type) {
    return type == SchemaType::kNumber || type == SchemaType::kInteger;
  };
  if (a.type == SchemaType::kAny || b.type == SchemaType::kAny) return false;
  if (is_number(a.type) && is_number(b.type)) return false;
  if (a.type != b.type) return true;
  if (a.type != SchemaType::kObject) return false;
  const Json* properties = json_find(*a.schema, "properties");
  if (properties == nullptr || !properties->is_object()) return false;
  for (const auto& [name, unused] : properties->items()) {
    if (!work.take(1 + a.schema->size() + b.schema->size() + properties->size())) return false;
    const Json* in_a = given_values(*a.schema, name);
    const Json* in_b = given_values(*b.schema, name);
    if (in_a != nullptr && in_b != nullptr && !have_common_value(*in_a, *in_b, work)) return true;
  }
  return false;
}

}  // namespace

Result<void> SchemaView::leave_out(std::string_view keyword, const std::string& where,
                                   std::string_view reason) {
  if (!is_lenient_) {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: \"{}\" {}", where, keyword, reason)};
  }
  if (std::ranges::find(left_out_, keyword) == left_out_.end()) {
    left_out_.emplace_back(keyword);
  }
  return {};
}

Result<const Json*> SchemaView::target(const Json& schema, const std::string& where) {
  const auto bad = [&](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: \"$ref\" {}", where, what)};
  };
  const Json& reference = schema["$ref"];
  if (!reference.is_string()) return bad("must be a text");
  const std::string& text = reference.get_ref<const std::string&>();
  if (!text.starts_with('#')) {
    return bad(fmt::format("\"{}\" points out of the schema", text));
  }
  const Json* at = &document_;
  std::string_view rest = std::string_view(text).substr(1);
  while (!rest.empty()) {
    if (!rest.starts_with('/')) return bad(fmt::format("\"{}\" is no JSON pointer", text));
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    std::string name;
    for (size_t i = 0; i < end; ++i) {
      const bool is_escape = rest[i] == '~' && i + 1 < end;
      name += is_escape ? (rest[i + 1] == '1' ? '/' : '~') : rest[i];
      i += is_escape ? 1 : 0;
    }
    rest.remove_prefix(end);
    PENSTOCK_TRY(take(1 + name.size() / 32 + at->size() / 4, where));
    const Json* next = nullptr;
    if (at->is_object() && at->contains(name)) next = &(*at)[name];
    if (at->is_array() && name.size() < 6 && !name.empty() &&
        name.find_first_not_of("0123456789") == std::string::npos &&
        static_cast<size_t>(std::stoi(name)) < at->size()) {
      next = &(*at)[static_cast<size_t>(std::stoi(name))];
    }
    if (next == nullptr) return bad(fmt::format("\"{}\" points to nothing", text));
    at = next;
  }
  return at;
}

Result<void> SchemaView::check_keywords(const Json& schema, const std::string& where) {
  for (const auto& [key, value] : schema.items()) {
    if (is_obeyed_keyword(key) || is_annotation(key)) continue;
    PENSTOCK_TRY(leave_out(key, where));
  }
  return {};
}

Result<void> SchemaView::add_values(const Json& schema, const std::string& where,
                                    Alternatives& out) {
  std::vector<const Json*> values;
  const auto constant = schema.find("const");
  const auto list = schema.find("enum");
  if (list != schema.end()) {
    if (!list->is_array()) {
      return Error{ErrorCode::kInvalidArgument, where + ": \"enum\" must be an array"};
    }
    for (const Json& value : *list) values.push_back(&value);
  }
  if (constant != schema.end()) {
    if (list != schema.end()) std::erase_if(values, [&](const Json* v) { return *v != *constant; });
    if (list == schema.end()) values.push_back(&*constant);
  }
  if (schema.contains("type")) {
    const std::vector<SchemaType> types = PENSTOCK_TRY(types_of(schema, where));
    std::erase_if(values, [&](const Json* value) {
      return std::ranges::none_of(types, [&](SchemaType t) { return is_value_of(*value, t); });
    });
  }
  for (const auto& [key, value] : schema.items()) {
    if (is_limit(key))
      PENSTOCK_TRY(leave_out(key, where, "beside \"enum\" or \"const\" is not supported"));
  }
  SchemaAlternative texts{.type = SchemaType::kString, .schema = &schema};
  SchemaAlternative others{.type = SchemaType::kGiven, .schema = &schema};
  for (const Json* value : values) {
    (value->is_string() ? texts : others).values.push_back(value);
  }
  if (!texts.values.empty()) out.push_back(std::move(texts));
  if (!others.values.empty()) out.push_back(std::move(others));
  return {};
}

Result<void> SchemaView::add_types(const Json& schema, const std::string& where,
                                   Alternatives& out) {
  const std::vector<SchemaType> types = PENSTOCK_TRY(types_of(schema, where));
  const bool is_any = types.empty() && !schema.contains("type");
  if (is_any) out.push_back({.type = SchemaType::kAny, .schema = &schema});
  for (const SchemaType type : types) out.push_back({.type = type, .schema = &schema});
  const auto nullable = schema.find("nullable");
  const bool adds_null = nullable != schema.end() && *nullable == Json(true) && !is_any &&
                         std::ranges::find(types, SchemaType::kNull) == types.end();
  if (adds_null) out.push_back({.type = SchemaType::kNull, .schema = &schema});
  return {};
}

bool SchemaView::are_disjoint(const Alternatives& a, const Alternatives& b) {
  return std::ranges::all_of(a, [&](const SchemaAlternative& x) {
    return std::ranges::all_of(
        b, [&](const SchemaAlternative& y) { return are_told_apart(x, y, work_); });
  });
}

Result<void> SchemaView::add_branches(const Json& schema, const char* keyword, bool follows,
                                      int depth, const std::string& where, Alternatives& out) {
  const Json& list = schema[keyword];
  const std::string below = fmt::format("{}.{}", where, keyword);
  if (!list.is_array() || list.empty()) {
    return Error{ErrorCode::kInvalidArgument, below + ": must be an array that is not empty"};
  }
  const Json* rest = PENSTOCK_TRY(keep(without(schema, {keyword}), where));
  const bool has_rest = says_something(*rest);
  std::vector<const Json*> branches;
  for (const Json& branch : list) {
    branches.push_back(has_rest ? PENSTOCK_TRY(merged(*rest, branch, depth + 1, below)) : &branch);
  }
  if (std::string_view(keyword) == "oneOf") {
    std::vector<Alternatives> seen;
    for (const Json* branch : branches) {
      Alternatives mine;
      PENSTOCK_TRY(add(*branch, true, depth + 1, below, mine));
      bool is_apart = true;
      for (const Alternatives& other : seen) {
        is_apart = is_apart && are_disjoint(mine, other);
      }
      if (!is_apart) {
        PENSTOCK_TRY(leave_out("oneOf", where,
                               "is supported where no value can satisfy two of its branches"));
      }
      seen.push_back(std::move(mine));
    }
  }
  for (const Json* branch : branches) PENSTOCK_TRY(add(*branch, follows, depth + 1, below, out));
  return {};
}

Result<void> SchemaView::add(const Json& schema, bool follows, int depth, const std::string& where,
                             Alternatives& out) {
  if (depth > kSchemaDepthMax || ++visited_ > 4 * kSchemasMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: nested deeper than {}, or too large", where, kSchemaDepthMax)};
  }
  if (schema.is_boolean()) {
    if (schema.get<bool>()) out.push_back({.type = SchemaType::kAny, .schema = &schema});
    return {};
  }
  if (!schema.is_object()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: a schema must be an object or a boolean", where)};
  }
  PENSTOCK_TRY(take(4 + schema.size(), where));
  PENSTOCK_TRY(check_keywords(schema, where));
  if (schema.contains("$ref")) {
    const Json* rest = PENSTOCK_TRY(keep(without(schema, {"$ref"}), where));
    const bool has_rest = says_something(*rest);
    if (!follows && !has_rest) {
      out.push_back({.type = SchemaType::kReference, .schema = &schema});
      return {};
    }
    const Json* pointed = PENSTOCK_TRY(target(schema, where));
    if (has_rest) pointed = PENSTOCK_TRY(merged(*pointed, *rest, depth + 1, where));
    return add(*pointed, follows, depth + 1, where, out);
  }
  if (schema.contains("allOf")) {
    const Json& list = schema["allOf"];
    if (!list.is_array() || list.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   where + ".allOf: must be an array that is not empty"};
    }
    const Json* whole = PENSTOCK_TRY(keep(without(schema, {"allOf"}), where));
    for (const Json& part : list) {
      whole = PENSTOCK_TRY(merged(*whole, part, depth + 1, where + ".allOf"));
    }
    return add(*whole, follows, depth + 1, where, out);
  }
  if (schema.contains("anyOf")) return add_branches(schema, "anyOf", follows, depth, where, out);
  if (schema.contains("oneOf")) return add_branches(schema, "oneOf", follows, depth, where, out);
  if (schema.contains("enum") || schema.contains("const")) return add_values(schema, where, out);
  return add_types(schema, where, out);
}

Result<std::vector<SchemaAlternative>> SchemaView::alternatives(const Json& schema,
                                                                bool follows_references,
                                                                const std::string& where) {
  Alternatives out;
  PENSTOCK_TRY(add(schema, follows_references, 0, where, out));
  return out;
}

}  // namespace penstock
