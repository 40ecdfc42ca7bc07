#include "server/openapi.h"

#include <algorithm>

#include "server/api/messages.h"
#include "server/api/sampling_fields.h"
#include "server/routes.h"

namespace penstock {
namespace {

Json number(double low, double high) {
  return Json{{"type", "number"}, {"minimum", low}, {"maximum", high}};
}

Json integer(int64_t low, int64_t high) {
  return Json{{"type", "integer"}, {"minimum", low}, {"maximum", high}};
}

Json sampling_properties() {
  return Json{{"model", {{"type", "string"}}},
              {"stream", {{"type", "boolean"}}},
              {"temperature", number(0, 5)},
              {"top_p", number(1e-6, 1)},
              {"min_p", number(0, 1)},
              {"top_k", integer(-1, 1 << 24)},
              {"presence_penalty", number(-2, 2)},
              {"frequency_penalty", number(-2, 2)},
              {"seed", {{"type", "integer"}}},
              {"max_tokens", integer(0, INT32_MAX)}};
}

Json message_schema() {
  return Json{{"type", "object"},
              {"required", Json::array({"role"})},
              {"properties",
               {{"role", {{"type", "string"}, {"enum", {"user", "assistant"}}}},
                {"content", {{"type", {"string", "null"}}}}}}};
}

// What may be left out may also be null.
Json object_schema(Json properties, std::vector<std::string> required) {
  for (auto& [name, property] : properties.items()) {
    if (std::ranges::find(required, name) != required.end()) continue;
    property["type"] = Json::array({property["type"], "null"});
  }
  return Json{{"type", "object"}, {"properties", std::move(properties)}, {"required", required}};
}

// Passed over and named in a header where they are sent.
constexpr const char* kNotOfAnthropic[] = {"min_p", "presence_penalty", "frequency_penalty",
                                           "seed"};

// What the body of a route is, as far as a description can say it.
Json body_schema(std::string_view path) {
  Json properties = sampling_properties();
  const Json messages{
      {"type", "array"}, {"items", message_schema()}, {"minItems", 1}, {"maxItems", kMessagesMax}};
  if (path == "/v1/messages/count_tokens") {
    return object_schema(Json{{"messages", messages}}, {"messages"});
  }
  if (path == "/apply-template") return object_schema(Json{{"messages", messages}}, {"messages"});
  if (path == "/v1/chat/completions") {
    properties["messages"] = messages;
    properties["n"] = integer(1, kChoicesMax);
    return object_schema(std::move(properties), {"messages"});
  }
  if (path == "/v1/messages") {
    for (const char* unknown : kNotOfAnthropic) properties.erase(unknown);
    properties["messages"] = messages;
    return object_schema(std::move(properties), {"messages", "max_tokens"});
  }
  if (path == "/v1/completions") {
    properties["prompt"] = Json{{"type", "string"}};
    return object_schema(std::move(properties), {"prompt"});
  }
  if (path == "/v1/responses") {
    for (const char* unknown : kNotOfAnthropic) properties.erase(unknown);
    properties.erase("max_tokens");
    properties.erase("top_k");
    properties["input"] = Json{{"type", "string"}};
    return object_schema(std::move(properties), {"input"});
  }
  if (path == "/tokenize") {
    return object_schema(Json{{"content", {{"type", "string"}}},
                              {"with_pieces", {{"type", "boolean"}}},
                              {"parse_special", {{"type", "boolean"}}}},
                         {"content"});
  }
  if (path == "/detokenize") {
    return object_schema(
        Json{{"tokens", {{"type", "array"}, {"items", {{"type", "integer"}, {"minimum", 0}}}}}},
        {"tokens"});
  }
  return Json{{"type", "object"}};
}

Json answers_json(const Route& route) {
  const Json any{{"description", "an answer"}};
  Json answers{{"200", any}};
  const Json wrong{{"description", "what was wrong, as the protocol has it"}};
  for (const char* status : {"401", "403"}) answers[status] = wrong;
  if (route.method == "POST") {
    for (const char* status : {"400", "413", "415", "429", "501"}) answers[status] = wrong;
  }
  if (route.path.find('*') != std::string_view::npos) answers["404"] = wrong;
  answers["503"] = wrong;
  return answers;
}

}  // namespace

Json openapi_json(const std::string& version) {
  Json paths = Json::object();
  for (const Route& route : all_routes()) {
    if (route.summary == "not here") continue;
    std::string path(route.path);
    Json operation{{"summary", route.summary}, {"responses", answers_json(route)}};
    if (path.ends_with('*')) {
      path.replace(path.size() - 1, 1, "{name}");
      operation["parameters"] = Json::array({Json{
          {"name", "name"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
    }
    if (route.method == "POST") {
      operation["requestBody"] = Json{
          {"required", true}, {"content", {{"application/json", {{"schema", body_schema(path)}}}}}};
    }
    if (route.is_public) operation["security"] = Json::array();
    paths[path][route.method == "POST" ? "post" : "get"] = std::move(operation);
  }
  return Json{
      {"openapi", "3.1.0"},
      {"info", {{"title", "penstock"}, {"version", version}}},
      {"security", Json::array({Json{{"key", Json::array()}}, Json::object()})},
      {"components", {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
      {"paths", std::move(paths)}};
}

}  // namespace penstock
