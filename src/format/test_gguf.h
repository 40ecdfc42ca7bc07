// Writes GGUF files for tests: well-formed ones, and with every field open to be wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "format/gguf.h"
#include "support/sim_storage.h"

namespace penstock::test {

class GgufBytes {
 public:
  template <class T>
  GgufBytes& number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  GgufBytes& raw(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }
  GgufBytes& string(std::string_view text) {
    number<uint64_t>(text.size());
    return raw(text);
  }
  std::string& text() { return text_; }

 private:
  std::string text_;
};

struct GgufTensorSpec {
  std::string name;
  uint32_t type = 0;
  std::vector<uint64_t> dimensions;  // fastest first
  std::string data;
  int64_t offset = -1;  // -1: where it belongs
};

// Fields may be set to anything; what is left alone is right.
struct GgufSpec {
  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t num_tensors = -1;  // -1: as many as there are
  int64_t num_keys = -1;
  std::vector<std::string> keys = {};  // each as gguf_key() makes it
  std::vector<GgufTensorSpec> tensors = {};
  uint64_t alignment = 32;  // of the layout; the key is the writer's business
  bool pads_end = true;

  std::string bytes() const {
    GgufBytes out;
    out.raw(magic).number(version);
    out.number<int64_t>(num_tensors < 0 ? static_cast<int64_t>(tensors.size()) : num_tensors);
    out.number<int64_t>(num_keys < 0 ? static_cast<int64_t>(keys.size()) : num_keys);
    for (const std::string& key : keys) out.raw(key);
    std::string data;
    for (const GgufTensorSpec& tensor : tensors) {
      out.string(tensor.name).number<uint32_t>(static_cast<uint32_t>(tensor.dimensions.size()));
      for (const uint64_t dimension : tensor.dimensions) out.number(dimension);
      out.number(tensor.type);
      const auto place = static_cast<int64_t>(data.size());
      out.number<int64_t>(tensor.offset < 0 ? place : tensor.offset);
      data += tensor.data;
      pad(data);
    }
    if (!pads_end && !tensors.empty()) {
      const size_t padded = (tensors.back().data.size() + alignment - 1) / alignment * alignment;
      data.resize(data.size() - (padded - tensors.back().data.size()));
    }
    pad(out.text());
    return out.text() + data;
  }

 private:
  void pad(std::string& text) const {
    text.resize((text.size() + alignment - 1) / alignment * alignment, '\0');
  }
};

template <class T>
std::string gguf_key(std::string_view key, GgufType type, T value) {
  GgufBytes out;
  out.string(key).number(static_cast<uint32_t>(type)).number(value);
  return out.text();
}
inline std::string gguf_u32(std::string_view key, uint32_t value) {
  return gguf_key(key, GgufType::kU32, value);
}
inline std::string gguf_f32(std::string_view key, float value) {
  return gguf_key(key, GgufType::kF32, value);
}
inline std::string gguf_string(std::string_view key, std::string_view value) {
  GgufBytes out;
  out.string(key).number(static_cast<uint32_t>(GgufType::kString)).string(value);
  return out.text();
}
inline std::string gguf_strings(std::string_view key, const std::vector<std::string>& values) {
  GgufBytes out;
  out.string(key).number(static_cast<uint32_t>(GgufType::kArray));
  out.number(static_cast<uint32_t>(GgufType::kString)).number<uint64_t>(values.size());
  for (const std::string& value : values) out.string(value);
  return out.text();
}
template <class T>
std::string gguf_list(std::string_view key, GgufType type, const std::vector<T>& values) {
  GgufBytes out;
  out.string(key).number(static_cast<uint32_t>(GgufType::kArray));
  out.number(static_cast<uint32_t>(type)).number<uint64_t>(values.size());
  for (const T value : values) out.number(value);
  return out.text();
}

inline void store(Storage& disk, const std::string& path, std::string_view bytes) {
  auto file = disk.open(path, OpenMode::kCreate).value();
  std::move(file)->write(0, std::as_bytes(std::span(bytes))).value();
}

}  // namespace penstock::test
