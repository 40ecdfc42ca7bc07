// The functions that every template can call: range, namespace, dict, raise_exception.
//
// raise_exception is how a chat template refuses messages; its text becomes the Error's.
#pragma once

#include <array>
#include <string_view>

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

inline constexpr std::array<std::string_view, 4> kGlobalFunctions = {"range", "namespace", "dict",
                                                                     "raise_exception"};

// range() gives no more than the reference's sandbox allows.
inline constexpr int64_t kRangeMax = 100'000;

// `name` is one of kGlobalFunctions.
Result<Value> call_function(Arena& arena, std::string_view name, const Arguments& arguments);

}  // namespace penstock::jinja
