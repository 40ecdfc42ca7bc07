// Fields of a request's JSON object: asked for by name, type and range; the first fault is kept.
//
// Absent and null are the same: nothing, and so the default. After a fault every getter gives
// nothing, so a reader can go through all fields in plain order and look at error() once.
//
//   Fields fields(body);
//   options.temperature = fields.number("temperature", 0, 5).value_or(1);
//   if (fields.error()) return *fields.error();
//   ignored = fields.unknown();                // what nobody asked for
//
// Threads  one; the object outlives the reader
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api/api_error.h"

namespace penstock {

// A member that is a text; empty when it is none or not there.
std::string text_of(const Json& object, std::string_view member);

class Fields {
 public:
  // `path` stands before the names in errors: "messages[2].".
  explicit Fields(const Json& object, std::string path = "");

  std::optional<bool> boolean(std::string_view name);
  std::optional<int64_t> integer(std::string_view name, int64_t low, int64_t high);
  std::optional<double> number(std::string_view name, double low, double high);
  std::optional<std::string> text(std::string_view name, size_t bytes_max = SIZE_MAX);
  std::optional<std::string> choice(std::string_view name,
                                    std::initializer_list<std::string_view> choices);
  const Json* object(std::string_view name);
  const Json* array(std::string_view name, size_t length_max);
  const Json* any(std::string_view name);  // of whatever type
  bool has(std::string_view name) const;   // and is not null

  // Known, accepted, and without effect here.
  void pass_over(std::initializer_list<std::string_view> names);

  void refuse(std::string_view name, std::string message, int status = 400);
  void refuse(ApiError error);
  const std::optional<ApiError>& error() const { return error_; }
  bool is_good() const { return !error_; }

  std::vector<std::string> unknown() const;  // and not null

 private:
  const Json* find(std::string_view name);
  void expect(std::string_view name, std::string_view what);

  const Json* object_;
  std::string path_;
  std::set<std::string, std::less<>> asked_;
  std::optional<ApiError> error_;
};

}  // namespace penstock
