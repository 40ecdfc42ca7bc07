#include "server/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "server/api/anthropic.h"
#include "server/api/body.h"
#include "server/api/fields.h"
#include "server/api/info.h"
#include "server/api/ollama.h"
#include "server/api/openai_chat.h"
#include "server/api/openai_completions.h"
#include "server/api/openai_responses.h"
#include "server/api/tokens.h"
#include "server/openapi.h"
#include "server/page.h"

namespace penstock {

// The door through which routes look into the server.
struct Routes {
  static HttpResponse health(const Server& server) { return server.health(); }
  static std::string metrics(const Server& server) { return server.metrics(); }
  static bool has_page(const Server& server) { return server.options_.has_page; }
  static const std::string& version(const Server& server) { return server.options_.version; }
};

namespace {

void respond_json(RouteContext& context, const Json& json) {
  HttpResponse response;
  response.body = to_text(json);
  context.exchange.respond(std::move(response));
}

void respond_error(RouteContext& context, const ApiError& error) {
  const Protocol protocol = protocol_of(context.exchange.request().path);
  context.exchange.respond(error_response(protocol, error));
}

// The body; nothing when it was refused, which is answered then.
std::optional<Json> body_of(RouteContext& context) {
  auto body = parse_body(context.exchange.request().body);
  if (Json* json = std::get_if<Json>(&body)) return std::move(*json);
  respond_error(context, std::get<ApiError>(body));
  return {};
}

template <std::variant<Json, ApiError> (*compute)(const Json&, const ServedModel&)>
void answer_json(RouteContext& context) {
  const auto body = body_of(context);
  if (!body) return;
  const auto result = compute(*body, *context.model);
  if (const ApiError* error = std::get_if<ApiError>(&result)) return respond_error(context, *error);
  respond_json(context, std::get<Json>(result));
}

template <Json (*tell)(const ServedModel&)>
void answer_info(RouteContext& context) {
  respond_json(context, tell(*context.model));
}

// What other servers have and this one has not.
void answer_not_here(RouteContext& context) {
  respond_error(context, {.status = 501,
                          .message = "this server makes text only: no embeddings, "
                                     "rankings, images, audio, and no models managed "
                                     "over HTTP"});
}

using ReadChat = std::variant<ChatCall, ApiError> (*)(const Json&, const ServedModel&);

template <ReadChat read, class ProtocolReplier>
void answer_chat(RouteContext& context) {
  const auto body = body_of(context);
  if (!body) return;
  auto read_call = read(*body, *context.model);
  if (const ApiError* error = std::get_if<ApiError>(&read_call)) {
    return respond_error(context, *error);
  }
  auto& call = std::get<ChatCall>(read_call);
  if (call.generation.prompt.empty()) {  // else it came as it is
    if (const auto error = prepare(*context.model, call)) return respond_error(context, *error);
  }
  ProtocolReplier replier;
  answer_call(context.exchange, *context.generator, *context.model, call, replier);
}

void answer_health(RouteContext& context) {
  context.exchange.respond(Routes::health(context.server));
}

void answer_metrics(RouteContext& context) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = Routes::metrics(context.server);
  context.exchange.respond(std::move(response));
}

void answer_version(RouteContext& context) {
  respond_json(context, Json{{"version", Routes::version(context.server)}});
}

void answer_model(RouteContext& context) {
  std::string id;
  const std::string& path = context.exchange.request().path;
  percent_decode(std::string_view(path).substr(std::string_view("/v1/models/").size()), id);
  if (!answers_to(*context.model, id)) {
    return respond_error(context, {.status = 404, .message = "there is no such model here"});
  }
  respond_json(context, model_json(*context.model, context.model->id));
}

void answer_props(RouteContext& context) {
  respond_json(context, props_json(*context.model, context.generator->figures()));
}

void answer_slots(RouteContext& context) {
  respond_json(context, slots_json(context.generator->figures()));
}

std::optional<SlotAction::Kind> action_named(std::string_view query) {
  if (query == "action=save") return SlotAction::Kind::kSave;
  if (query == "action=restore") return SlotAction::Kind::kRestore;
  if (query == "action=erase") return SlotAction::Kind::kErase;
  return {};
}

// POST /slots/ID?action=save|restore|erase, as llama-server has it.
void answer_slot_action(RouteContext& context) {
  const HttpRequest& request = context.exchange.request();
  const auto body = body_of(context);
  if (!body) return;
  const auto bad = [&](std::string message, std::string param = "", int status = 400) {
    respond_error(context, {.status = status, .message = std::move(message), .param = param});
  };
  SlotAction action;
  const std::string id = request.path.substr(std::string_view("/slots/").size());
  const auto [end, failure] = std::from_chars(id.data(), id.data() + id.size(), action.slot);
  if (failure != std::errc{} || end != id.data() + id.size() || action.slot < 0) {
    return bad("a slot has a number: /slots/0?action=save", "id_slot", 404);
  }
  const auto kind = action_named(request.query);
  if (!kind) return bad("\"action\" must be save, restore or erase", "action");
  action.kind = *kind;
  Fields fields(*body);
  if (const auto name = fields.text("filename", 1024)) action.name = *name;
  if (fields.error()) return respond_error(context, *fields.error());
  const SlotOutcome outcome = context.generator->act(action);
  if (outcome.is_busy) return bad("the slot is at work; try again later", "id_slot", 503);
  if (outcome.error) return respond_error(context, slot_error(*outcome.error));
  respond_json(context, slot_action_json(action, outcome));
}

void answer_figures(RouteContext& context) {
  respond_json(context, figures_json(context.generator->figures()));
}

void answer_page(RouteContext& context) {
  auto response = Routes::has_page(context.server) ? page_response(context.exchange.request().path)
                                                   : std::nullopt;
  if (!response && context.exchange.request().path == "/") {
    response = HttpResponse{};
    response->content_type = "text/plain; charset=utf-8";
    response->body = "penstock is running\n";
  }
  if (!response) return respond_error(context, {.status = 404, .message = "there is no such file"});
  context.exchange.respond(std::move(*response));
}

void answer_openapi(RouteContext& context) {
  respond_json(context, openapi_json(Routes::version(context.server)));
}

constexpr Route kRoutes[] = {
    {"GET", "/", true, true, false, answer_page, "the web page"},
    {"GET", "/page/*", true, true, false, answer_page, "its parts"},
    {"GET", "/openapi.json", false, true, false, answer_openapi, "this list, for machines"},
    {"GET", "/figures", false, true, true, answer_figures, "what the engine does, for the page"},
    {"GET", "/health", true, true, false, answer_health, "whether the server can answer"},
    {"GET", "/v1/health", true, true, false, answer_health, "the same"},
    {"GET", "/metrics", false, true, false, answer_metrics, "figures for Prometheus"},
    {"GET", "/version", false, true, false, answer_version, "the version of penstock"},
    {"GET", "/api/version", false, true, false, answer_version,
     "the version, for Ollama's clients"},
    {"GET", "/v1/models", false, true, true, answer_info<models_json>, "the model that is served"},
    {"GET", "/v1/models/*", false, true, true, answer_model, "one model"},
    {"GET", "/props", false, false, true, answer_props, "defaults and facts of the model"},
    {"GET", "/slots", false, true, true, answer_slots, "sequences and what they hold"},
    {"POST", "/slots/*", false, false, true, answer_slot_action,
     "save, restore or empty a slot, with ?action= and a filename below --kv-dir"},
    {"POST", "/v1/chat/completions", false, false, true,
     answer_chat<read_openai_chat, OpenAiChatReplier>, "answer a conversation (OpenAI)"},
    {"POST", "/v1/completions", false, false, true,
     answer_chat<read_openai_completion, OpenAiCompletionReplier>, "continue a text (OpenAI)"},
    {"POST", "/v1/responses", false, false, true,
     answer_chat<read_openai_response, OpenAiResponseReplier>, "answer a conversation (Responses)"},
    {"POST", "/v1/messages", false, false, true, answer_chat<read_anthropic, AnthropicReplier>,
     "answer a conversation (Anthropic)"},
    {"POST", "/v1/messages/count_tokens", false, false, true, answer_json<count_anthropic_tokens>,
     "the tokens of a conversation (Anthropic)"},
    {"GET", "/api/tags", false, true, true, answer_info<ollama_tags>, "the model (Ollama)"},
    {"GET", "/api/ps", false, true, true, answer_info<ollama_running>, "the same, as running"},
    {"POST", "/api/show", false, false, true, answer_json<ollama_show>,
     "facts of the model (Ollama)"},
    {"POST", "/api/chat", false, false, true, answer_chat<read_ollama_chat, OllamaReplier>,
     "answer a conversation (Ollama)"},
    {"POST", "/api/generate", false, false, true,
     answer_chat<read_ollama_generate, OllamaGenerateReplier>, "answer a prompt (Ollama)"},
    {"POST", "/tokenize", false, false, true, answer_json<tokenize>, "text to token ids"},
    {"POST", "/detokenize", false, false, true, answer_json<detokenize>, "token ids to text"},
    {"POST", "/apply-template", false, false, true, answer_json<apply_template>,
     "the prompt that a conversation becomes"},
    {"POST", "/v1/embeddings", false, false, false, answer_not_here, "not here"},
    {"POST", "/v1/rerank", false, false, false, answer_not_here, "not here"},
    {"POST", "/v1/images/*", false, false, false, answer_not_here, "not here"},
    {"POST", "/v1/audio/*", false, false, false, answer_not_here, "not here"},
    {"POST", "/v1/files", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/embed", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/embeddings", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/pull", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/push", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/create", false, false, false, answer_not_here, "not here"},
    {"POST", "/api/copy", false, false, false, answer_not_here, "not here"},
};

bool matches(const Route& route, std::string_view path) {
  if (!route.path.ends_with('*')) return route.path == path;
  const std::string_view begin = route.path.substr(0, route.path.size() - 1);
  return path.size() > begin.size() && path.starts_with(begin);
}

}  // namespace

std::span<const Route> all_routes() {
  return kRoutes;
}

std::string allowed_methods(std::string_view path) {
  std::string methods = "OPTIONS";
  for (const Route& route : kRoutes) {
    if (!matches(route, path)) continue;
    methods += route.method == "GET" ? ", GET, HEAD" : ", " + std::string(route.method);
  }
  return methods;
}

const Route* find_route(std::string_view method, std::string_view path, bool& knows_path) {
  knows_path = false;
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : kRoutes) {
    if (!matches(route, path)) continue;
    if (route.method == wanted) return &route;
    knows_path = true;
  }
  return nullptr;
}

}  // namespace penstock
