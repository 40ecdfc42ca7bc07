// A place in a text that is read from left to right: what the readers of GBNF and of patterns share.
//
// Threads  a value
#pragma once

#include <cstddef>
#include <string_view>

namespace penstock {

class TextCursor {
 public:
  explicit TextCursor(std::string_view text) : text_(text) {}

 protected:
  bool at_end() const { return position_ >= text_.size(); }
  // NUL behind the end.
  char peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  bool take(std::string_view expected) {
    if (!text_.substr(position_).starts_with(expected)) return false;
    position_ += expected.size();
    return true;
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace penstock
