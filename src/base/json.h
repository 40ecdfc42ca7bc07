// The one door to nlohmann::ordered_json: no exceptions, a depth limit, errors that name the key.
//
// Key order is kept because tool schemas are rendered into prompts in the order in which they came.
// Duplicate keys, nesting deeper than kJsonDepthMax and text that is not UTF-8 are errors: the
// library alone would accept the first and die of the second.
//
// Errors  kCorrupt for text that is not acceptable JSON, kNotFound for a missing key, kCorrupt for
//         a key of the wrong type.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

using Json = nlohmann::ordered_json;

inline constexpr int kJsonDepthMax = 128;

// `what` names the text in errors: a file name, "request body".
Result<Json> parse_json(std::string_view text, std::string_view what);

// Compact text; invalid UTF-8 in strings is replaced by U+FFFD. indent < 0: one line.
std::string to_text(const Json& json, int indent = -1);

// Python's json.dumps(x, ensure_ascii=False): separators ", " and ": ". What chat templates print.
std::string to_python_text(const Json& json);

// Fields of an object. `what` names the object in errors.
Result<int64_t> json_int(const Json& object, std::string_view key, std::string_view what,
                         int64_t minimum, int64_t maximum);
Result<uint64_t> json_bytes(const Json& object, std::string_view key, std::string_view what);
Result<double> json_number(const Json& object, std::string_view key, std::string_view what);
Result<std::string> json_string(const Json& object, std::string_view key, std::string_view what);
Result<bool> json_bool(const Json& object, std::string_view key, std::string_view what);

// The member, or nullptr when absent (or when `object` is no object, or the value is null).
const Json* json_find(const Json& object, std::string_view key);

}  // namespace penstock
