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

namespace {

size_t heap_bytes(const std::string& text) {
  constexpr size_t kInside = 15;  // characters that need no memory of their own
  return text.capacity() > kInside ? text.capacity() + 16 : 0;
}

template <typename T>
size_t heap_bytes(const std::vector<T>& items) {
  return items.capacity() > 0 ? items.capacity() * sizeof(T) + 16 : 0;
}

}  // namespace

size_t Template::memory_bytes() const {
  size_t bytes = heap_bytes(tree_.body);
  for (const Expression& node : tree_.expressions) {
    bytes += sizeof node + heap_bytes(node.name) + heap_bytes(node.children) +
             heap_bytes(node.keywords) + heap_bytes(node.comparisons);
  }
  for (const Statement& node : tree_.statements) {
    bytes += sizeof node + heap_bytes(node.text) + heap_bytes(node.bindings) +
             heap_bytes(node.branches) + heap_bytes(node.body) + heap_bytes(node.otherwise) +
             heap_bytes(node.target.name) + heap_bytes(node.target.parts) +
             heap_bytes(node.macro.name) + heap_bytes(node.macro.parameters) +
             heap_bytes(node.macro.body);
    for (const auto& branch : node.branches) bytes += heap_bytes(branch.second);
  }
  for (const Text& text : tree_.texts) bytes += sizeof text + heap_bytes(text.bytes);
  return bytes;
}

}  // namespace penstock::jinja
