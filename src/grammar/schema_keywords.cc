#include "grammar/schema_keywords.h"

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

std::optional<SchemaType> type_named(const Json& name) {
  if (!name.is_string()) return std::nullopt;
  for (const auto& [text, type] : kTypes) {
    if (text == name.get_ref<const std::string&>()) return type;
  }
  return std::nullopt;
}

}  // namespace

bool is_obeyed_keyword(std::string_view key) {
  return kObeyed.contains(key);
}

bool is_annotation(std::string_view key) {
  return kAnnotations.contains(key) || key.starts_with("x-");
}

bool is_limit(std::string_view key) {
  return kOfObjects.contains(key) || kOfArrays.contains(key) || kOfStrings.contains(key) ||
         kOfNumbers.contains(key);
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

}  // namespace penstock
