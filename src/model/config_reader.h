// ConfigReader: one object of a config.json, read key by key within declared ranges.
//
// Remembers which keys were asked for. What remains at the end is what we do not know: it is told
// (ModelConfig::unknown_keys), so that a switch nobody noticed cannot change an answer in silence.
// Keys that are known to change nothing here (training, bookkeeping) are named by ignore().
//
// Threads  one
// Memory   refers to the Json, which must outlive it
// Errors   kNotFound: a key is missing. kCorrupt: another type or out of range. kUnsupported: a
//          value that would be another computation. All name file and key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

// Far above every published model, far below what could wrap a product of three of them.
inline constexpr int64_t kWidthMax = 1 << 17;
inline constexpr int64_t kHeadsMax = 1 << 12;
inline constexpr int64_t kHeadWidthMax = 1 << 12;
inline constexpr int64_t kVocabMax = 1 << 24;
inline constexpr int64_t kPositionsMax = 1 << 30;
inline constexpr int64_t kLayersMax = 1024;
inline constexpr int64_t kExpertsMax = 65536;

class ConfigReader {
 public:
  // `what` names the object in errors: "model/config.json: \"text_config\"".
  ConfigReader(const Json& object, std::string what) : json_(&object), what_(std::move(what)) {}

  const std::string& what() const { return what_; }
  // Present and not null: an explicit null says "not given".
  bool has(std::string_view key) const;
  const Json* find(std::string_view key);

  Result<int64_t> integer(std::string_view key, int64_t minimum, int64_t maximum);
  Result<int64_t> integer_or(std::string_view key, int64_t otherwise, int64_t minimum,
                             int64_t maximum);
  // More than `above`, at most `maximum`.
  Result<double> number(std::string_view key, double above, double maximum);
  Result<double> number_or(std::string_view key, double otherwise, double above, double maximum);
  Result<bool> flag_or(std::string_view key, bool otherwise);
  Result<std::string> word(std::string_view key);

  // Where the key is there, it has one of these values; the first is the one to name.
  Result<void> require_word(std::string_view key, std::initializer_list<std::string_view> known);
  Result<void> require_flag(std::string_view key, bool needed);

  // Known, and without effect on what we compute.
  void ignore(std::initializer_list<std::string_view> keys);
  // Keys of the object that nobody asked for and nobody ignored.
  std::vector<std::string> unknown_keys() const;

  Error missing(const std::string& reason) const;
  Error corrupt(const std::string& reason) const;
  Error unsupported(const std::string& reason) const;

 private:
  const Json* json_;
  std::string what_;
  std::set<std::string, std::less<>> seen_;
};

}  // namespace penstock
