#include "dialogue/tool_types.h"

#include "grammar/schema_view.h"
#include "grammar/tool_grammar.h"

namespace penstock {

Result<ToolTypes> ToolTypes::create(const Json& tools) {
  ToolTypes all;
  for (const ToolFunction& function : PENSTOCK_TRY(tool_functions(tools))) {
    Tool& tool = all.tools_[function.name];
    const Json* properties = json_find(function.parameters, "properties");
    if (properties == nullptr || !properties->is_object()) continue;
    GrammarWork work;
    SchemaView view(function.parameters, true, work);
    for (const auto& [name, schema] : properties->items()) {
      Types types;
      const auto alternatives = view.alternatives(schema, true, name);
      if (!alternatives || alternatives->empty()) {
        types.any = true;
      } else {
        for (const SchemaAlternative& alternative : *alternatives) {
          using Type = SchemaType;
          const auto allow = [&](Type type, bool is_value) {
            types.string |= type == Type::kString;
            types.number |= type == Type::kNumber || type == Type::kInteger;
            types.boolean |= type == Type::kBoolean;
            types.null |= type == Type::kNull;
            types.object |= type == Type::kObject;
            types.array |= type == Type::kArray;
            types.any |= type == Type::kAny || (type == Type::kGiven && !is_value);
          };
          if (alternative.type != Type::kGiven) allow(alternative.type, false);
          for (const Json* value : alternative.values) {
            allow(value->is_string()    ? Type::kString
                  : value->is_number()  ? Type::kNumber
                  : value->is_boolean() ? Type::kBoolean
                  : value->is_null()    ? Type::kNull
                  : value->is_object()  ? Type::kObject
                                        : Type::kArray,
                  true);
          }
        }
      }
      tool.parameters[name] = types;
    }
  }
  return all;
}

ToolTypes::Types ToolTypes::types_of(std::string_view tool, std::string_view parameter) const {
  const Types unknown{.any = true};
  const auto known = tools_.find(tool);
  if (known == tools_.end()) return unknown;
  const auto types = known->second.parameters.find(parameter);
  return types == known->second.parameters.end() ? unknown : types->second;
}

bool ToolTypes::is_text(std::string_view tool, std::string_view parameter) const {
  const Types types = types_of(tool, parameter);
  return types.string && !types.any && !types.number && !types.boolean && !types.null &&
         !types.object && !types.array;
}

Json ToolTypes::value(std::string_view tool, std::string_view parameter, std::string_view text,
                      bool& has_type) const {
  const Types types = types_of(tool, parameter);
  has_type = true;
  const auto is_allowed = [&](const Json& value) {
    return types.any || (value.is_string() && types.string) ||
           (value.is_number() && types.number) || (value.is_boolean() && types.boolean) ||
           (value.is_null() && types.null) || (value.is_object() && types.object) ||
           (value.is_array() && types.array);
  };
  if (is_text(tool, parameter)) return text;
  const auto json = parse_json(text, "");
  // Where texts are meant, quotes are part of them.
  const bool is_quoted_text = json && json->is_string() && types.string && !types.any;
  if (json && is_allowed(*json) && !is_quoted_text) return *json;
  if (types.string || types.any) return text;
  if (text == "True" || text == "False") {
    const Json value = text == "True";
    if (is_allowed(value)) return value;
  }
  if (text == "None" && types.null) return nullptr;
  has_type = false;
  return text;
}

}  // namespace penstock
