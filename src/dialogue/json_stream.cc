#include "dialogue/json_stream.h"

#include <utility>

namespace penstock {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool is_scalar_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '+' || c == '.';
}

}  // namespace

void JsonStream::settle() {
  certain_bytes_ = held_.size();
  closing_ = state_ == State::kString ? "\"" : "";
  for (size_t i = stack_.size(); i-- > 0;) closing_ += stack_[i] == '{' ? '}' : ']';
}

void JsonStream::end_value() {
  state_ = State::kNext;
  is_whole_ = stack_.empty();
}

bool JsonStream::end_scalar() {
  const auto value = parse_json(scalar_, "");
  if (!value) return false;
  end_value();
  settle();
  return true;
}

bool JsonStream::begin_value(char c) {
  if (c == '{' || c == '[') {
    if (stack_.size() + 1 >= static_cast<size_t>(kJsonDepthMax)) return false;
    stack_ += c;
    state_ = c == '{' ? State::kNameOrEnd : State::kValueOrEnd;
  } else if (c == '"') {
    is_name_ = false;
    state_ = State::kString;
  } else if (is_scalar_char(c)) {
    scalar_.assign(1, c);
    state_ = State::kScalar;
    held_ += c;
    return true;  // not certain before it ends
  } else {
    return false;
  }
  held_ += c;
  settle();
  return true;
}

bool JsonStream::take_hex(char c) {
  const char lower = static_cast<char>(c | 0x20);
  uint32_t digit = 0;
  if (c >= '0' && c <= '9') {
    digit = static_cast<uint32_t>(c - '0');
  } else if (lower >= 'a' && lower <= 'f') {
    digit = static_cast<uint32_t>(lower - 'a' + 10);
  } else {
    return false;
  }
  hex_ = hex_ * 16 + digit;
  held_ += c;
  if (--hex_left_ > 0) return true;
  const bool is_high = hex_ >= 0xD800 && hex_ < 0xDC00;
  const bool is_low = hex_ >= 0xDC00 && hex_ < 0xE000;
  if (is_low != needs_low_surrogate_) return false;
  needs_low_surrogate_ = is_high;
  state_ = State::kString;
  if (!is_name_ && !needs_low_surrogate_) settle();
  return true;
}

bool JsonStream::take_escape(char c) {
  held_ += c;
  if (c == 'u') {
    hex_ = 0;
    hex_left_ = 4;
    state_ = State::kHex;
    return true;
  }
  if (needs_low_surrogate_ || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) {
    return false;
  }
  state_ = State::kString;
  if (!is_name_) settle();
  return true;
}

bool JsonStream::take_in_string(char c) {
  if (static_cast<uint8_t>(c) < 0x20 || (needs_low_surrogate_ && c != '\\')) return false;
  held_ += c;
  if (c == '\\') {
    state_ = State::kEscape;
  } else if (c == '"') {
    if (is_name_) {
      state_ = State::kColon;
    } else {
      end_value();
      settle();
    }
  } else if (!is_name_) {
    settle();
  }
  return true;
}

bool JsonStream::take(char c) {
  switch (state_) {
    case State::kString: return take_in_string(c);
    case State::kEscape: return take_escape(c);
    case State::kHex: return take_hex(c);
    case State::kScalar:
      if (is_scalar_char(c)) {
        scalar_ += c;
        held_ += c;
        return scalar_.size() < 400;
      }
      return end_scalar() && (is_whole_ || take(c));
    default: break;
  }
  if (is_blank(c)) {
    const bool is_certain = certain_bytes_ == held_.size();
    held_ += c;
    if (is_certain) certain_bytes_ = held_.size();
    return true;
  }
  const bool closes_object = c == '}' && !stack_.empty() && stack_.back() == '{';
  const bool closes_array = c == ']' && !stack_.empty() && stack_.back() == '[';
  const bool may_close = state_ == State::kNext || (state_ == State::kNameOrEnd && closes_object) ||
                         (state_ == State::kValueOrEnd && closes_array);
  if ((closes_object || closes_array) && may_close) {
    held_ += c;
    stack_.pop_back();
    end_value();
    settle();
    return true;
  }
  switch (state_) {
    case State::kValue:
    case State::kValueOrEnd: return begin_value(c);
    case State::kNameOrEnd:
    case State::kName:
      if (c != '"') return false;
      is_name_ = true;
      state_ = State::kString;
      break;
    case State::kColon:
      if (c != ':') return false;
      state_ = State::kValue;
      break;
    case State::kNext:
      if (c != ',' || stack_.empty()) return false;
      state_ = stack_.back() == '{' ? State::kName : State::kValue;
      break;
    default: return false;
  }
  held_ += c;
  return true;
}

JsonStream::Status JsonStream::push(std::string_view text, std::string& given, size_t& taken) {
  Status status = Status::kOpen;
  taken = 0;
  while (taken < text.size() && !is_whole_) {
    const size_t held_bytes = held_.size();
    if (!take(text[taken])) {
      held_.resize(held_bytes);  // the byte that broke it was not taken
      status = Status::kBroken;
      break;
    }
    ++taken;
  }
  if (is_whole_) status = Status::kWhole;
  given.append(held_, 0, certain_bytes_);
  held_.erase(0, certain_bytes_);
  certain_bytes_ = 0;
  return status;
}

}  // namespace penstock
