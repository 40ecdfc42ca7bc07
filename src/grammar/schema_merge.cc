// Two schemas as one that says what both say.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "grammar/schema_keywords.h"
#include "grammar/schema_view.h"

namespace penstock {
namespace {

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

// Objects here are lists, so to look one list up in another takes the product of their sizes.
uint64_t lookups(const Json& a, const Json& b) {
  return uint64_t{a.size()} * b.size() / 4;
}

uint64_t nodes_of(const Json& json) {
  if (json.is_string()) return 1 + json.get_ref<const std::string&>().size() / 32;
  uint64_t nodes = 1;
  if (json.is_structured()) {
    for (const auto& [key, value] : json.items()) nodes += 1 + key.size() / 32 + nodes_of(value);
  }
  return nodes;
}

bool is_upper_limit(std::string_view key) {
  return key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" || key == "maxItems" ||
         key == "maxProperties";
}

bool is_lower_limit(std::string_view key) {
  return key == "minimum" || key == "exclusiveMinimum" || key == "minLength" || key == "minItems" ||
         key == "minProperties";
}

// What one side closes is closed: only the properties that it lists itself remain.
void close_properties(const Json& side, Json& both) {
  const auto additional = side.find("additionalProperties");
  if (additional == side.end() || *additional != Json(false)) return;
  const auto listed = side.find("properties");
  Json properties = Json::object();
  if (both.contains("properties") && listed != side.end()) {
    for (const auto& [name, property] : both["properties"].items()) {
      if (listed->contains(name)) properties[name] = property;
    }
  }
  both["properties"] = std::move(properties);
}

}  // namespace

Result<void> SchemaView::take(uint64_t steps, const std::string& where) {
  if (work_.take(steps)) return {};
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: the schema is too complex: to put its parts together takes too "
                           "many steps",
                           where)};
}

Result<const Json*> SchemaView::keep(Json schema, const std::string& where) {
  PENSTOCK_TRY(take(nodes_of(schema), where));
  if (kept_.size() >= kSchemasMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: the schema is too large when its parts are put together", where)};
  }
  kept_.push_back(std::move(schema));
  return &kept_.back();
}

// What "$ref" points to and what stands beside it, as one schema.
Result<const Json*> SchemaView::without_reference(const Json& schema, int depth,
                                                  const std::string& where) {
  const Json* pointed = PENSTOCK_TRY(target(schema, where));
  const Json* rest = PENSTOCK_TRY(keep(without(schema, {"$ref"}), where));
  return merged(*pointed, *rest, depth + 1, where);
}

// Both have the keyword, and differ.
Result<void> SchemaView::merge_keyword(const std::string& key, const Json& value, Json& both,
                                       const std::string& where) {
  Json& mine = both[key];
  PENSTOCK_TRY(take(lookups(mine, value), where));
  if ((is_upper_limit(key) || is_lower_limit(key)) && mine.is_number() && value.is_number()) {
    if ((value < mine) == is_upper_limit(key)) mine = value;
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
      return leave_out("allOf", where, "has two schemas for additionalProperties");
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
    return leave_out(key, where, "is given twice and differs");
  }
  return {};
}

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
    const Json* whole = PENSTOCK_TRY(without_reference(a, depth, where));
    return merged(*whole, b, depth + 1, where);
  }
  if (b.contains("$ref")) {
    const Json* whole = PENSTOCK_TRY(without_reference(b, depth, where));
    return merged(a, *whole, depth + 1, where);
  }
  PENSTOCK_TRY(take(nodes_of(a) + nodes_of(b) + lookups(a, b), where));
  Json both = a;
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key) || key == "$defs" || key == "definitions") continue;
    if (!both.contains(key)) {
      both[key] = value;
    } else if (both[key] != value) {
      PENSTOCK_TRY(merge_keyword(key, value, both, where));
    }
  }
  const Json* properties = json_find(both, "properties");
  if (properties != nullptr) PENSTOCK_TRY(take(lookups(*properties, *properties), where));
  close_properties(a, both);
  close_properties(b, both);
  return keep(std::move(both), where);
}

}  // namespace penstock
