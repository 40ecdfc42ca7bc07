#include "text/jinja/markup.h"

#include <vector>

#include "text/jinja/python_text.h"

namespace penstock::jinja {

bool is_markup(const Value& value) {
  return value.is_text() && value.text().is_markup;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

Result<Value> escaped(Arena& arena, const Value& value) {
  if (is_markup(value)) return value;
  const std::string text = PENSTOCK_TRY(python_str(value));
  PENSTOCK_TRY(arena.spend_bytes(text.size()));
  return arena.markup(escape_html(text));
}

Result<Value> marked(Arena& arena, const Value& value) {
  if (value.is_text()) return arena.markup(value.text().bytes);
  if (!value.is(Kind::kList)) return value;
  std::vector<Value> items;
  for (const Value& item : value.list().items) {
    items.push_back(item.is_text() ? PENSTOCK_TRY(arena.markup(item.text().bytes)) : item);
  }
  return arena.list(std::move(items), value.list().sort);
}

}  // namespace penstock::jinja
