// Template source to a tree: the grammar of Jinja2, as far as chat templates use it.
//
// Tags: if, for (with a condition, with else), set (also as a block), macro, break, continue,
// generation (whose body is rendered as it stands). Not: inheritance, includes, imports, call,
// filter and with blocks, recursive loops, line statements; they are refused when the template is
// loaded.
//
// Errors  kCorrupt and kUnsupported, beginning with "line N: ".
// Source  Jinja2's template designer documentation; precedence measured against Jinja2 3.1.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/ast.h"

namespace penstock::jinja {

Result<Tree> parse(std::string_view source);

}  // namespace penstock::jinja
