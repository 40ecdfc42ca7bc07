#include "format/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>

#include "base/byte_cursor.h"
#include "base/check.h"
#include "format/text.h"

namespace penstock {
namespace {

struct TypeRow {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array<TypeRow, kNumGgufTypes> kTypes = {{{"u8", 1},
                                                        {"i8", 1},
                                                        {"u16", 2},
                                                        {"i16", 2},
                                                        {"u32", 4},
                                                        {"i32", 4},
                                                        {"f32", 4},
                                                        {"bool", 1},
                                                        {"string", 0},
                                                        {"list", 0},
                                                        {"u64", 8},
                                                        {"i64", 8},
                                                        {"f64", 8}}};

template <class T>
T load(const std::byte* bytes) {
  T value{};
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Nothing for types that are no integers and for what 63 bits do not hold.
std::optional<int64_t> integer_at(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::kU8: return load<uint8_t>(bytes);
    case GgufType::kI8: return load<int8_t>(bytes);
    case GgufType::kU16: return load<uint16_t>(bytes);
    case GgufType::kI16: return load<int16_t>(bytes);
    case GgufType::kU32: return load<uint32_t>(bytes);
    case GgufType::kI32: return load<int32_t>(bytes);
    case GgufType::kI64: return load<int64_t>(bytes);
    case GgufType::kU64: {
      const auto value = load<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default: return std::nullopt;
  }
}

std::string type_text(const GgufValue& value) {
  return value.is_list ? fmt::format("a list of {}", name_of(value.type))
                       : std::string(name_of(value.type));
}

}  // namespace

uint64_t gguf_type_bytes(GgufType type) {
  return kTypes[static_cast<size_t>(type)].bytes;
}
std::string_view name_of(GgufType type) {
  return kTypes[static_cast<size_t>(type)].name;
}

bool GgufMetadata::add(std::string key, GgufValue value) {
  return values_.emplace(std::move(key), std::move(value)).second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(std::string(key));
  return found == values_.end() ? nullptr : &found->second;
}

std::vector<std::string_view> GgufMetadata::keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(values_.size());
  for (const auto& [key, value] : values_) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  return keys;
}

Error GgufMetadata::wrong(std::string_view key, const GgufValue& value,
                          std::string_view expected) const {
  return {ErrorCode::kCorrupt, fmt::format("{}: key {} is {}, expected {}", what_, escaped(key),
                                           type_text(value), expected)};
}

Result<const GgufValue*> GgufMetadata::get(std::string_view key, bool is_list) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: key {} is missing", what_, escaped(key))};
  }
  if (value->is_list != is_list) return wrong(key, *value, is_list ? "a list" : "a single value");
  return value;
}

Result<int64_t> GgufMetadata::integer(std::string_view key, int64_t minimum,
                                      int64_t maximum) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, false));
  if (value->type == GgufType::kString || value->type == GgufType::kBool ||
      value->type == GgufType::kF32 || value->type == GgufType::kF64) {
    return wrong(key, *value, "an integer");
  }
  const std::optional<int64_t> number = integer_at(value->type, value->bytes.data());
  if (!number || *number < minimum || *number > maximum) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: key {} is {}, expected {} to {}", what_, escaped(key),
                             number ? std::to_string(*number) : "beyond 2^63", minimum, maximum)};
  }
  return *number;
}

Result<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, false));
  if (value->type == GgufType::kF32) return static_cast<double>(load<float>(value->bytes.data()));
  if (value->type == GgufType::kF64) return load<double>(value->bytes.data());
  const std::optional<int64_t> number = value->type == GgufType::kString
                                            ? std::nullopt
                                            : integer_at(value->type, value->bytes.data());
  if (!number) return wrong(key, *value, "a number");
  return static_cast<double>(*number);
}

Result<bool> GgufMetadata::boolean(std::string_view key) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, false));
  if (value->type != GgufType::kBool) return wrong(key, *value, "a bool");
  return value->bytes[0] != std::byte{0};
}

Result<std::string> GgufMetadata::string(std::string_view key) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, false));
  if (value->type != GgufType::kString) return wrong(key, *value, "a string");
  return std::string(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

Result<std::vector<int64_t>> GgufMetadata::integers(std::string_view key) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, true));
  const uint64_t width = gguf_type_bytes(value->type);
  std::vector<int64_t> numbers;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::byte* at = value->bytes.data() + i * width;
    std::optional<int64_t> number;
    if (value->type == GgufType::kBool) number = load<uint8_t>(at);
    if (value->type != GgufType::kString && !number) number = integer_at(value->type, at);
    if (!number) return wrong(key, *value, "a list of integers");
    numbers.push_back(*number);
  }
  return numbers;
}

Result<std::vector<std::string_view>> GgufMetadata::strings(std::string_view key) const {
  const GgufValue* value = PENSTOCK_TRY(get(key, true));
  if (value->type != GgufType::kString) return wrong(key, *value, "a list of strings");
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  ByteCursor cursor(value->bytes);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto text = cursor.take(cursor.read<uint64_t>());
    strings.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
  }
  PENSTOCK_CHECK(cursor.ok() && cursor.remaining() == 0);  // the parser has walked them
  return strings;
}

}  // namespace penstock
