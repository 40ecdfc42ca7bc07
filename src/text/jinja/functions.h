// The functions that every template can call.
//
// raise_exception is how a chat template refuses messages; its text becomes the Error's. lipsum,
// which Jinja2 has too, makes random text and is not there.
//
// Errors  kInvalidArgument, for the template's author: arguments, and raise_exception's text
#pragma once

#include <array>
#include <string_view>

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/strftime.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

inline constexpr std::array<std::string_view, 7> kGlobalFunctions = {
    "range", "namespace", "dict", "cycler", "joiner", "raise_exception", "strftime_now"};

// range() gives no more than the reference's sandbox allows.
inline constexpr int64_t kRangeMax = 100'000;

// `name` is one of kGlobalFunctions; `now` is for strftime_now.
Result<Value> call_function(Arena& arena, const LocalTime& now, std::string_view name,
                            const Arguments& arguments);

// Calls what joiner() made: nothing the first time, then the separator.
Result<Value> call_joiner(const Callable& joiner, const Arguments& arguments);

}  // namespace penstock::jinja
