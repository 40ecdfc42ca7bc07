// What is wrong with a request, and how each protocol says it.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "server/generator.h"
#include "server/http/message.h"

namespace penstock {

enum class Protocol { kOpenAi, kAnthropic, kOllama };

struct ApiError {
  int status = 400;
  std::string message = {};
  std::string param = {};  // the field, where one is to blame
  std::string type = {};   // of OpenAI; empty: the usual one of the status
  int retry_after_s = 0;
  Json more = Json::object();  // further members of the error
};

ApiError api_error(const HttpError& error);
ApiError api_error(const SubmitError& error);
// Of a generation that failed: kInvalidArgument is the request's fault, kCancelled a shutdown.
ApiError api_error(const Error& error);

// {"error": ...} as the protocol shapes it, also inside of a stream.
Json error_json(Protocol protocol, const ApiError& error);
HttpResponse error_response(Protocol protocol, const ApiError& error);

// By the path that was asked for.
Protocol protocol_of(std::string_view path);

}  // namespace penstock
