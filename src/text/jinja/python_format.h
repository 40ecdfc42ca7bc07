// Python's two ways to format: "%s: %5.2f" % (a, b) and "{}: {:5.2f}".format(a, b).
//
// Known to differ: widths and precisions above 16 MiB and 4096 digits are refused, %c and {:c} of
// lone surrogates are, and {:n} is not known.
//
// Limits  Nothing is allocated for a width before it is compared with kTextBytesMax.
// Errors  kInvalidArgument: a value that does not fit its place, too few or too many values, a
//         format that Python refuses.
// Source  Python's documentation of printf-style formatting and of the format specification
//         mini-language; str.format as Jinja2's sandbox has it.
#pragma once

#include <string>

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

// format % values. What is put into a marked format is escaped (markup.h).
Result<std::string> percent_format(Arena& arena, const Text& format, const Value& values);

// format.format(*positional, **keywords). As above.
Result<std::string> brace_format(Arena& arena, const Text& format, const Arguments& arguments);

// `body` in a field of `width` code points; `before_fill` (a sign, 0x) stands before the filling
// if that goes between.
struct Padding {
  int64_t width = 0;
  std::string fill = " ";
  char align = '<';  // < > ^ and =: between sign and digits
};
Result<std::string> pad(std::string_view sign, std::string_view body, const Padding& padding);

// repr(value) with non-ASCII characters as escapes.
Result<std::string> python_ascii(const Value& value);

}  // namespace penstock::jinja
