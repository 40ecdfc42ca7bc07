#include "grammar/schema_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

namespace penstock {
namespace {

// Obeyed by the readers of a view, or by the view itself.
const std::set<std::string, std::less<>> kObeyed = {"type",
                                                    "enum",
                                                    "const",
                                                    "anyOf",
                                                    "oneOf",
                                                    "allOf",
                                                    "$ref",
                                                    "$defs",
                                                    "definitions",
                                                    "properties",
                                                    "required",
                                                    "additionalProperties",
                                                    "items",
                                                    "prefixItems",
                                                    "additionalItems",
                                                    "minItems",
                                                    "maxItems",
                                                    "minLength",
                                                    "maxLength",
                                                    "pattern",
                                                    "format",
                                                    "minimum",
                                                    "maximum",
                                                    "exclusiveMinimum",
                                                    "exclusiveMaximum",
                                                    "nullable",
                                                    "minProperties",
                                                    "maxProperties"};

// Say nothing about which values are valid.
const std::set<std::string, std::less<>> kAnnotations = {
    "$schema",          "$id",       "$anchor",         "$comment",
    "$vocabulary",      "id",        "title",           "description",
    "default",          "examples",  "example",         "deprecated",
    "readOnly",         "writeOnly", "contentEncoding", "contentMediaType",
    "contentSchema",    "name",      "strict",          "additionalDescription",
    "enumDescriptions", "enumNames"};

const std::set<std::string, std::less<>> kOfObjects = {
    "properties", "required", "additionalProperties", "minProperties", "maxProperties"};
const std::set<std::string, std::less<>> kOfArrays = {"items", "prefixItems", "additionalItems",
                                                      "minItems", "maxItems"};
const std::set<std::string, std::less<>> kOfStrings = {"minLength", "maxLength", "pattern",
                                                       "format"};
const std::set<std::string, std::less<>> kOfNumbers = {"minimum", "maximum", "exclusiveMinimum",
                                                       "exclusiveMaximum"};

constexpr std::array<std::pair<std::string_view, SchemaType>, 7> kTypes = {
    {{"object", SchemaType::kObject},
     {"array", SchemaType::kArray},
     {"string", SchemaType::kString},
     {"number", SchemaType::kNumber},
     {"integer", SchemaType::kInteger},
     {"boolean", SchemaType::kBoolean},
     {"null", SchemaType::kNull}}};

bool is_annotation(std::string_view key) {
  return kAnnotations.contains(key) || key.starts_with("x-");
}

std::optional<SchemaType> type_named(const Json& name) {
  if (!name.is_string()) return std::nullopt;
  for (const auto& [text, type] : kTypes) {
    if (text == name.get_ref<const std::string&>()) return type;
  }
  return std::nullopt;
}

bool is_value_of(const Json& value, SchemaType type) {
  switch (type) {
    case SchemaType::kObject: return value.is_object();
    case SchemaType::kArray: return value.is_array();
    case SchemaType::kString: return value.is_string();
    case SchemaType::kNumber: return value.is_number();
    case SchemaType::kInteger: return value.is_number_integer();
    case SchemaType::kBoolean: return value.is_boolean();
    case SchemaType::kNull: return value.is_null();
    default: return true;
  }
}

// The types that "type" lists; without one, what the other keywords are about; none: any.
Result<std::vector<SchemaType>> types_of(const Json& schema, const std::string& where) {
  std::vector<SchemaType> types;
  const auto type = schema.find("type");
  if (type != schema.end()) {
    const Json list = type->is_array() ? *type : Json::array({*type});
    for (const Json& name : list) {
      const auto known = type_named(name);
      if (!known) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("{}: \"type\" {} is not a type", where, to_text(name))};
      }
      if (std::ranges::find(types, *known) == types.end()) types.push_back(*known);
    }
    const bool has_number = std::ranges::find(types, SchemaType::kNumber) != types.end();
    if (has_number) std::erase(types, SchemaType::kInteger);
    return types;
  }
  const auto add = [&](const auto& keywords, SchemaType implied) {
    for (const auto& [key, value] : schema.items()) {
      if (!keywords.contains(key)) continue;
      types.push_back(implied);
      return;
    }
  };
  add(kOfObjects, SchemaType::kObject);
  add(kOfArrays, SchemaType::kArray);
  add(kOfStrings, SchemaType::kString);
  add(kOfNumbers, SchemaType::kNumber);
  return types;
}

bool says_something(const Json& schema) {
  for (const auto& [key, value] : schema.items()) {
    if (!is_annotation(key) && key != "$defs" && key != "definitions") return true;
  }
  return false;
}

Json without(const Json& schema, std::initializer_list<std::string_view> keys) {
  Json rest = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (std::ranges::find(keys, key) == keys.end()) rest[key] = value;
  }
  return rest;
}

// a AND b of two "type"s.
Json common_types(const Json& a, const Json& b) {
  const Json list_a = a.is_array() ? a : Json::array({a});
  const Json list_b = b.is_array() ? b : Json::array({b});
  const auto has = [](const Json& list, const char* name) {
    return std::ranges::find(list, Json(name)) != list.end();
  };
  Json both = Json::array();
  for (const Json& type : list_a) {
    if (std::ranges::find(list_b, type) != list_b.end()) {
      both.push_back(type);
    } else if (type == "integer" && has(list_b, "number")) {
      both.push_back(type);
    } else if (type == "number" && has(list_b, "integer") && !has(list_a, "integer")) {
      both.push_back("integer");
    }
  }
  return both;
}

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

bool have_common_value(const Json& a, const Json& b) {
  const Json list_a = a.is_array() ? a : Json::array({a});
  const Json list_b = b.is_array() ? b : Json::array({b});
  return std::ranges::any_of(
      list_a, [&](const Json& x) { return std::ranges::find(list_b, x) != list_b.end(); });
}

bool are_told_apart(const SchemaAlternative& a, const SchemaAlternative& b) {
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
    const Json* in_a = given_values(*a.schema, name);
    const Json* in_b = given_values(*b.schema, name);
    if (in_a != nullptr && in_b != nullptr && !have_common_value(*in_a, *in_b)) return true;
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

Result<const Json*> SchemaView::keep(Json schema, const std::string& where) {
  if (kept_.size() >= kSchemasMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: the schema is too large when its parts are put together", where)};
  }
  kept_.push_back(std::move(schema));
  return &kept_.back();
}

Result<const Json*> SchemaView::target(const Json& schema, const std::string& where) const {
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
    if (kObeyed.contains(key) || is_annotation(key)) continue;
    PENSTOCK_TRY(leave_out(key, where));
  }
  return {};
}

// One schema that says what both say. Both are without references.
Result<const Json*> SchemaView::merged(const Json& a, const Json& b, int depth,
                                       const std::string& where) {
  if (depth > kSchemaDepthMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: nested deeper than {}", where, kSchemaDepthMax)};
  }
  if (a.is_boolean()) return a.get<bool>() ? &b : &a;
  if (b.is_boolean()) return b.get<bool>() ? &a : &b;
  if (!a.is_object() || !b.is_object()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: a schema must be an object or a boolean", where)};
  }
  if (a.contains("$ref")) {
    const Json* pointed = PENSTOCK_TRY(target(a, where));
    const Json* rest = PENSTOCK_TRY(keep(without(a, {"$ref"}), where));
    const Json* whole = PENSTOCK_TRY(merged(*pointed, *rest, depth + 1, where));
    return merged(*whole, b, depth + 1, where);
  }
  if (b.contains("$ref")) {
    const Json* pointed = PENSTOCK_TRY(target(b, where));
    const Json* rest = PENSTOCK_TRY(keep(without(b, {"$ref"}), where));
    const Json* whole = PENSTOCK_TRY(merged(*pointed, *rest, depth + 1, where));
    return merged(a, *whole, depth + 1, where);
  }
  Json both = a;
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key) || key == "$defs" || key == "definitions") continue;
    if (!both.contains(key)) {
      both[key] = value;
      continue;
    }
    Json& mine = both[key];
    if (mine == value) continue;
    const bool is_upper = key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" ||
                          key == "maxItems" || key == "maxProperties";
    const bool is_lower = key == "minimum" || key == "exclusiveMinimum" || key == "minLength" ||
                          key == "minItems" || key == "minProperties";
    if ((is_upper || is_lower) && mine.is_number() && value.is_number()) {
      if ((value < mine) == is_upper) mine = value;
    } else if (key == "type") {
      mine = common_types(mine, value);
    } else if (key == "required" && mine.is_array() && value.is_array()) {
      for (const Json& name : value) {
        if (std::ranges::find(mine, name) == mine.end()) mine.push_back(name);
      }
    } else if (key == "properties" && mine.is_object() && value.is_object()) {
      for (const auto& [name, property] : value.items()) {
        mine[name] =
            mine.contains(name) ? Json{{"allOf", Json::array({mine[name], property})}} : property;
      }
    } else if (key == "items") {
      mine = Json{{"allOf", Json::array({mine, value})}};
    } else if (key == "allOf" && mine.is_array() && value.is_array()) {
      for (const Json& part : value) mine.push_back(part);
    } else if (key == "enum" && mine.is_array() && value.is_array()) {
      Json kept = Json::array();
      for (const Json& item : mine) {
        if (std::ranges::find(value, item) != value.end()) kept.push_back(item);
      }
      mine = std::move(kept);
    } else if (key == "additionalProperties") {
      if (mine == Json(true)) {
        mine = value;
      } else if (value != Json(true) && mine != Json(false) && value != Json(false)) {
        PENSTOCK_TRY(leave_out("allOf", where, "has two schemas for additionalProperties"));
      } else if (value == Json(false)) {
        mine = false;
      }
    } else if (key == "anyOf" || key == "oneOf") {
      // Both must hold: the second becomes a part of its own.
      Json part = Json::object();
      part[key] = value;
      if (!both.contains("allOf")) both["allOf"] = Json::array();
      both["allOf"].push_back(std::move(part));
    } else {
      PENSTOCK_TRY(leave_out(key, where, "is given twice and differs"));
    }
  }
  // What one side closes is closed: only the properties that it lists itself remain.
  for (const Json* side : {&a, &b}) {
    const auto additional = side->find("additionalProperties");
    if (additional == side->end() || *additional != Json(false)) continue;
    const auto listed = side->find("properties");
    Json properties = Json::object();
    if (both.contains("properties") && listed != side->end()) {
      for (const auto& [name, property] : both["properties"].items()) {
        if (listed->contains(name)) properties[name] = property;
      }
    }
    both["properties"] = std::move(properties);
  }
  return keep(std::move(both), where);
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
    const bool limits = kOfObjects.contains(key) || kOfArrays.contains(key) ||
                        kOfStrings.contains(key) || kOfNumbers.contains(key);
    if (limits)
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

Result<bool> SchemaView::are_disjoint(const Alternatives& a, const Alternatives& b,
                                      const std::string&) {
  for (const SchemaAlternative& x : a) {
    for (const SchemaAlternative& y : b) {
      if (!are_told_apart(x, y)) return false;
    }
  }
  return true;
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
        is_apart = is_apart && PENSTOCK_TRY(are_disjoint(mine, other, below));
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
