// The key-value part of a GGUF file: typed access with errors that name the key.
//
// Values stay the bytes they are in the file; the parser (gguf.h) has walked them, so lengths and
// counts can be believed, while types and ranges are checked by whoever asks. Writers differ in the
// width of their integers, so an integer is asked for by its range and not by its type.
//
// Threads  const functions from any thread.
// Errors   kNotFound: no such key. kCorrupt: another type, or out of range.
// Source   The published description of GGUF, version 3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace penstock {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
inline constexpr uint32_t kNumGgufTypes = 13;

// Of one element; 0 for strings and arrays.
uint64_t gguf_type_bytes(GgufType type);
std::string_view name_of(GgufType type);

struct GgufValue {
  GgufType type = GgufType::kU8;  // of the element, for a list
  bool is_list = false;
  uint64_t count = 1;  // elements of a list
  // Little-endian elements one after the other. A string without its length; in a list of strings
  // each with its length (u64) before it.
  std::vector<std::byte> bytes;
};

class GgufMetadata {
 public:
  explicit GgufMetadata(std::string what = "") : what_(std::move(what)) {}

  // False when the key is there already.
  bool add(std::string key, GgufValue value);

  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  size_t size() const { return values_.size(); }
  std::vector<std::string_view> keys() const;  // sorted

  Result<int64_t> integer(std::string_view key, int64_t minimum, int64_t maximum) const;
  Result<double> number(std::string_view key) const;  // f32, f64 or an integer
  Result<bool> boolean(std::string_view key) const;
  Result<std::string> string(std::string_view key) const;
  // Lists; booleans count as 0 and 1. The views live as long as this object.
  Result<std::vector<int64_t>> integers(std::string_view key) const;
  Result<std::vector<std::string_view>> strings(std::string_view key) const;

 private:
  Result<const GgufValue*> get(std::string_view key, bool is_list) const;
  Error wrong(std::string_view key, const GgufValue& value, std::string_view expected) const;

  std::string what_;  // the file, for errors
  std::unordered_map<std::string, GgufValue> values_;
};

}  // namespace penstock
