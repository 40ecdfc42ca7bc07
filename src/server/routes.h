// The table of routes: method, path, who may use it, and what answers it. Also read by /openapi.json
// and by tests, so that none is forgotten.
#pragma once

#include <span>
#include <string_view>

#include "server/server.h"

namespace penstock {

struct RouteContext {
  Server& server;
  Exchange& exchange;
  const ServedModel* model;  // nullptr only where needs_model is false
  Generator* generator;
};

struct Route {
  std::string_view method;
  std::string_view path;   // one that ends with * stands for all that begin so
  bool is_public = false;  // without a key
  bool is_quick = false;   // answered by the sockets' thread
  bool needs_model = true;
  void (*answer)(RouteContext& context) = nullptr;
  std::string_view summary;
};

std::span<const Route> all_routes();

// For the header "Allow".
std::string allowed_methods(std::string_view path);
// nullptr when there is none; `knows_path`: it has another method.
const Route* find_route(std::string_view method, std::string_view path, bool& knows_path);

}  // namespace penstock
