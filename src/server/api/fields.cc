#include "server/api/fields.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {

std::string text_of(const Json& object, std::string_view member) {
  const Json* text = json_find(object, member);
  return text != nullptr && text->is_string() ? text->get<std::string>() : "";
}

Fields::Fields(const Json& object, std::string path) : object_(&object), path_(std::move(path)) {
  if (!object.is_object()) {
    const bool is_body = path_.empty();
    refuse(ApiError{.message = is_body ? "the body must be a JSON object"
                                       : fmt::format("\"{}\" must be an object",
                                                     path_.substr(0, path_.size() - 1)),
                    .param = is_body ? "" : path_.substr(0, path_.size() - 1)});
  }
}

const Json* Fields::find(std::string_view name) {
  asked_.emplace(name);
  return error_ ? nullptr : json_find(*object_, name);
}

bool Fields::has(std::string_view name) const {
  return json_find(*object_, name) != nullptr;
}

void Fields::refuse(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void Fields::refuse(std::string_view name, std::string message, int status) {
  refuse(ApiError{
      .status = status, .message = std::move(message), .param = path_ + std::string(name)});
}

void Fields::expect(std::string_view name, std::string_view what) {
  refuse(name, fmt::format("\"{}{}\" must be {}", path_, name, what));
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (value->is_boolean()) return value->get<bool>();
  expect(name, "true or false");
  return {};
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t low, int64_t high) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  // 16.0 is what some languages write for 16.
  const bool is_whole =
      value->is_number_float() && value->get<double>() >= -0x1p53 &&
      value->get<double>() <= 0x1p53 &&
      value->get<double>() == static_cast<double>(static_cast<int64_t>(value->get<double>()));
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (fits || is_whole) {
    const int64_t number =
        fits ? value->get<int64_t>() : static_cast<int64_t>(value->get<double>());
    if (number >= low && number <= high) return number;
  }
  expect(name, fmt::format("a whole number from {} to {}", low, high));
  return {};
}

std::optional<double> Fields::number(std::string_view name, double low, double high) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (value->is_number()) {
    const double number = value->get<double>();
    if (number >= low && number <= high) return number;
  }
  expect(name, fmt::format("a number from {:.6g} to {:.6g}", low, high));
  return {};
}

std::optional<std::string> Fields::text(std::string_view name, size_t bytes_max) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_string()) {
    expect(name, "a string");
    return {};
  }
  if (value->get_ref<const std::string&>().size() > bytes_max) {
    expect(name, fmt::format("at most {} bytes", bytes_max));
    return {};
  }
  return value->get<std::string>();
}

std::optional<std::string> Fields::choice(std::string_view name,
                                          std::initializer_list<std::string_view> choices) {
  std::optional<std::string> value = text(name);
  if (!value || std::ranges::find(choices, *value) != choices.end()) return value;
  expect(name, fmt::format("one of {}", fmt::join(choices, ", ")));
  return {};
}

const Json* Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  expect(name, "an object");
  return nullptr;
}

const Json* Fields::array(std::string_view name, size_t length_max) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (value->is_array() && value->size() <= length_max) return value;
  expect(name, fmt::format("a list of at most {}", length_max));
  return nullptr;
}

const Json* Fields::any(std::string_view name) {
  return find(name);
}

void Fields::pass_over(std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) asked_.emplace(name);
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> names;
  if (!object_->is_object()) return names;
  for (const auto& [name, value] : object_->items()) {
    if (!value.is_null() && !asked_.contains(name)) names.push_back(path_ + name);
  }
  return names;
}

}  // namespace penstock
