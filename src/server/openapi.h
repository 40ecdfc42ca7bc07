// /openapi.json: the table of routes in OpenAPI's words, and for the bodies the fields whose types
// are the same for all of them.
#pragma once

#include <string>

#include "base/json.h"

namespace penstock {

Json openapi_json(const std::string& version);

}  // namespace penstock
