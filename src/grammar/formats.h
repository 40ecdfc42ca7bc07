// The values of "format" as patterns.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Nothing for formats that are not known. Source: RFC 3339, 4122, 5321, 1123, 4291, 3986; the
// duration of RFC 3339 appendix A.
std::optional<std::string> pattern_of_format(std::string_view format);

// Formats that say how a number is stored, not which numbers are valid texts.
bool is_number_format(std::string_view format);

}  // namespace penstock
