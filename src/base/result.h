// Result<T>: a value, or an Error that says what the world did to us.
//
// Spelled like std::expected, so that a later standard can replace it by search and replace.
//
//   Result<File> open(const std::string& path);
//   File file = PENSTOCK_TRY(open(path));     // the value, or return the Error to our caller
//
// Errors carry a sentence for a person: it names the file, tensor, layer, offset or flag and, where
// we know it, what to do. It is enriched where knowledge is (Error::with_context) and printed once,
// at the top. Threads: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace penstock {

enum class ErrorCode : uint8_t {
  kInvalidArgument,  // a flag or a request: exit code 2
  kNotFound,         // no such file, tensor, key: 3 for model files
  kCorrupt,          // bytes that are not what they should be: 3
  kUnsupported,      // well-formed, but not for this program: 3
  kIo,               // the disk or the system refused: 5
  kOutOfMemory,      // the budget, the cgroup or the disk is too small: 4
  kCancelled,        // asked to stop: 130
};

struct Error {
  ErrorCode code;
  std::string message;

  // The same error with `context: ` in front, for the caller that knows more.
  [[nodiscard]] Error with_context(const std::string& context) const {
    return {code, context + ": " + message};
  }
};

// Of a request, a flag or a file that a person wrote.
inline Error invalid_argument(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : content_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return content_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    PENSTOCK_CHECK(has_value());
    return std::get<0>(content_);
  }
  const T& value() const& {
    PENSTOCK_CHECK(has_value());
    return std::get<0>(content_);
  }
  T&& value() && {
    PENSTOCK_CHECK(has_value());
    return std::get<0>(std::move(content_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    PENSTOCK_CHECK(!has_value());
    return std::get<1>(content_);
  }

 private:
  std::variant<T, Error> content_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  void value() const { PENSTOCK_CHECK(has_value()); }
  const Error& error() const {
    PENSTOCK_CHECK(error_.has_value());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace penstock

// The value of a Result, or return its Error from the enclosing function.
// (-Wpedantic objects to the statement expression; __extension__ says it is meant.)
#define PENSTOCK_TRY(expression)                                  \
  __extension__({                                                 \
    auto penstock_try_result = (expression);                      \
    if (!penstock_try_result) return penstock_try_result.error(); \
    std::move(penstock_try_result).value();                       \
  })
