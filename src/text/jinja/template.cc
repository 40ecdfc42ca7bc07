#include "text/jinja/template.h"

#include <fmt/format.h>

#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace penstock::jinja {

Result<Template> Template::compile(std::string_view source) {
  if (source.size() > kSourceBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("line 1: the template has {} bytes; at most {} are read",
                             source.size(), kSourceBytesMax)};
  }
  return Template(PENSTOCK_TRY(parse(source)));
}

Result<std::string> Template::render(const Variables& variables,
                                     const std::optional<LocalTime>& now) const {
  Interpreter interpreter(now ? *now : local_time_now());
  Result<std::string> text = interpreter.run(tree_, variables);
  if (!text) return text.error().with_context(fmt::format("line {}", interpreter.line()));
  return text;
}

}  // namespace penstock::jinja
