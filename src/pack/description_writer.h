// What descriptions of models share: facts written as JSON and as lines of text side by side.
//
// Threads  One.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/byte_text.h"
#include "base/json.h"
#include "model/config.h"
#include "pack/describe.h"

namespace penstock {

// 34.7 billion.
std::string count_text(int64_t count);

// Facts go into the JSON and the text side by side.
class DescriptionWriter {
 public:
  void fact(const char* key, const char* label, Json value, const std::string& text) {
    json_[key] = std::move(value);
    line(label, text);
  }
  void line(const char* label, const std::string& text) {
    text_ += fmt::format("{:<18}{}\n", label, text);
  }
  void bytes(const char* key, const char* label, uint64_t value) {
    fact(key, label, value, format_bytes(value));
  }
  Json& json() { return json_; }
  std::string& text() { return text_; }
  Description finish() { return {std::move(json_), std::move(text_)}; }

 private:
  Json json_ = Json::object();
  std::string text_;
};

void write_config(DescriptionWriter& out, const ModelConfig& config);

// more_prediction: elements of tensors that belong to a prediction block that is not whole.
void write_parameters(DescriptionWriter& out, const ModelConfig& config, int64_t more_prediction);

}  // namespace penstock
