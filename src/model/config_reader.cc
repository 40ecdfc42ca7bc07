#include "model/config_reader.h"

#include <fmt/format.h>

namespace penstock {

bool ConfigReader::has(std::string_view key) const {
  return json_find(*json_, key) != nullptr;
}

const Json* ConfigReader::find(std::string_view key) {
  seen_.emplace(key);
  return json_find(*json_, key);
}

Result<int64_t> ConfigReader::integer(std::string_view key, int64_t minimum, int64_t maximum) {
  seen_.emplace(key);
  return json_int(*json_, key, what_, minimum, maximum);
}

Result<int64_t> ConfigReader::integer_or(std::string_view key, int64_t otherwise, int64_t minimum,
                                         int64_t maximum) {
  if (find(key) == nullptr) return otherwise;
  return integer(key, minimum, maximum);
}

Result<double> ConfigReader::number(std::string_view key, double above, double maximum) {
  seen_.emplace(key);
  const double value = PENSTOCK_TRY(json_number(*json_, key, what_));
  if (value > above && value <= maximum) return value;
  return corrupt(fmt::format("\"{}\" is {}, expected more than {} and at most {}", key, value,
                             above, maximum));
}

Result<double> ConfigReader::number_or(std::string_view key, double otherwise, double above,
                                       double maximum) {
  if (find(key) == nullptr) return otherwise;
  return number(key, above, maximum);
}

Result<bool> ConfigReader::flag_or(std::string_view key, bool otherwise) {
  if (find(key) == nullptr) return otherwise;
  return json_bool(*json_, key, what_);
}

Result<std::string> ConfigReader::word(std::string_view key) {
  seen_.emplace(key);
  return json_string(*json_, key, what_);
}

Result<void> ConfigReader::require_word(std::string_view key,
                                        std::initializer_list<std::string_view> known) {
  if (find(key) == nullptr) return {};
  const std::string value = PENSTOCK_TRY(word(key));
  for (const std::string_view candidate : known) {
    if (value == candidate) return {};
  }
  return unsupported(fmt::format("\"{}\" {} is not supported, only \"{}\"", key,
                                 to_text(Json(value)), *known.begin()));
}

Result<void> ConfigReader::require_flag(std::string_view key, bool needed) {
  if (PENSTOCK_TRY(flag_or(key, needed)) == needed) return {};
  return unsupported(fmt::format("\"{}\" must be {}", key, needed));
}

void ConfigReader::ignore(std::initializer_list<std::string_view> keys) {
  seen_.insert(keys.begin(), keys.end());
}

std::vector<std::string> ConfigReader::unknown_keys() const {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : json_->items()) {
    if (!seen_.contains(key)) unknown.push_back(key);
  }
  return unknown;
}

Error ConfigReader::missing(const std::string& reason) const {
  return {ErrorCode::kNotFound, fmt::format("{}: {}", what_, reason)};
}
Error ConfigReader::corrupt(const std::string& reason) const {
  return {ErrorCode::kCorrupt, fmt::format("{}: {}", what_, reason)};
}
Error ConfigReader::unsupported(const std::string& reason) const {
  return {ErrorCode::kUnsupported, fmt::format("{}: {}", what_, reason)};
}

}  // namespace penstock
