// Text that is marked as HTML: what the filters `safe` and `escape` give.
//
// Chat templates escape nothing by themselves, but the mark has an effect all the same, also in the
// reference: a text that is joined to a marked one with + or %, or is an argument of one of its
// methods, is escaped, and the result is marked. ~ and the filter `join` give plain text.
//
// Errors  kInvalidArgument: a limit of the arena
// Source  MarkupSafe's Markup.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

bool is_markup(const Value& value);

// & < > ' " as entities.
std::string escape_html(std::string_view text);

// str(value) as marked text; what is marked already stays as it is.
Result<Value> escaped(Arena& arena, const Value& value);

// The value with its texts marked: of a text, or of a list or tuple of texts.
Result<Value> marked(Arena& arena, const Value& value);

}  // namespace penstock::jinja
