#include "server/api/api_error.h"

namespace penstock {
namespace {

std::string openai_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 500: return "server_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    default: return "invalid_request_error";
  }
}

std::string anthropic_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 500: return "api_error";
    case 503: return "api_error";
    case 529: return "overloaded_error";
    default: return "invalid_request_error";
  }
}

}  // namespace

ApiError api_error(const HttpError& error) {
  return {.status = error.status, .message = error.message};
}

ApiError api_error(const SubmitError& error) {
  ApiError result{.message = error.message, .retry_after_s = error.retry_after_s};
  switch (error.kind) {
    case SubmitError::Kind::kFull: result.status = 429; break;
    case SubmitError::Kind::kTooLong:
      result.status = 400;
      result.type = "exceed_context_size_error";
      break;
    case SubmitError::Kind::kDraining:
    case SubmitError::Kind::kStorage: result.status = 503; break;
    case SubmitError::Kind::kUnsupported: result.status = 501; break;
    case SubmitError::Kind::kInvalid: result.status = 400; break;
  }
  return result;
}

ApiError api_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument: return {.status = 400, .message = error.message};
    case ErrorCode::kUnsupported: return {.status = 501, .message = error.message};
    case ErrorCode::kCancelled:
    case ErrorCode::kOutOfMemory: return {.status = 503, .message = error.message};
    default: return {.status = 500, .message = error.message};
  }
}

Json error_json(Protocol protocol, const ApiError& error) {
  if (protocol == Protocol::kOllama) return Json{{"error", error.message}};
  if (protocol == Protocol::kAnthropic) {
    return Json{{"type", "error"},
                {"error", {{"type", anthropic_type(error.status)}, {"message", error.message}}}};
  }
  Json body{{"message", error.message},
            {"type", error.type.empty() ? openai_type(error.status) : error.type},
            {"param", error.param.empty() ? Json() : Json(error.param)},
            {"code", error.status}};
  body.update(error.more);
  return Json{{"error", std::move(body)}};
}

HttpResponse error_response(Protocol protocol, const ApiError& given) {
  ApiError error = given;
  // Anthropic's word for a server that is too busy.
  if (protocol == Protocol::kAnthropic && error.status == 429) error.status = 529;
  HttpResponse response;
  response.status = error.status;
  response.body = to_text(error_json(protocol, error));
  if (error.retry_after_s > 0) {
    response.headers.push_back({"Retry-After", std::to_string(error.retry_after_s)});
  }
  if (error.status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

Protocol protocol_of(std::string_view path) {
  if (path.starts_with("/v1/messages")) return Protocol::kAnthropic;
  return path.starts_with("/api/") ? Protocol::kOllama : Protocol::kOpenAi;
}

}  // namespace penstock
