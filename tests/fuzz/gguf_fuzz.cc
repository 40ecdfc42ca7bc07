// Any bytes as a GGUF file: refused with a sentence, or every tensor lies in the file, whole blocks
// in every row, and every key can be asked for as anything.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/check.h"
#include "format/gguf.h"

namespace {

using namespace penstock;

// The bytes themselves: a simulated disk would copy them for every run.
class SpanFile final : public StorageFile {
 public:
  explicit SpanFile(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  const std::string& path() const override { return path_; }
  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    if (offset >= bytes_.size()) return 0;
    const size_t count = std::min<uint64_t>(target.size(), bytes_.size() - offset);
    std::memcpy(target.data(), bytes_.data() + offset, count);
    return static_cast<int64_t>(count);
  }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return refused(); }
  Result<void> reserve(uint64_t) override { return refused(); }
  Result<void> sync() override { return refused(); }
  Result<FileStat> stat() const override { return FileStat{.bytes = bytes_.size()}; }
  void drop_cached(uint64_t, uint64_t) const override {}
  uint64_t alignment() const override { return 1; }
  int descriptor() const override { return -1; }

 private:
  static Error refused() { return {ErrorCode::kIo, "for reading only"}; }

  std::span<const uint8_t> bytes_;
  std::string path_ = "f.gguf";
};

void ask_everything(const GgufMetadata& keys) {
  for (const std::string_view key : keys.keys()) {
    const GgufValue* value = keys.find(key);
    PENSTOCK_CHECK(value != nullptr);
    const bool is_string = value->type == GgufType::kString;
    PENSTOCK_CHECK(keys.string(key).has_value() == (is_string && !value->is_list));
    const auto strings = keys.strings(key);
    PENSTOCK_CHECK(strings.has_value() == (is_string && value->is_list));
    if (strings) PENSTOCK_CHECK(strings->size() == value->count);
    const auto integers = keys.integers(key);
    if (integers) PENSTOCK_CHECK(integers->size() == value->count && value->is_list);
    const auto integer = keys.integer(key, -5, 5);
    if (integer) PENSTOCK_CHECK(*integer >= -5 && *integer <= 5);
    (void)keys.number(key).has_value();
    (void)keys.boolean(key).has_value();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const SpanFile file({data, size});
  const Result<GgufHeader> header = read_gguf_header(file, size);
  if (!header) {
    for (const char c : header.error().message) {
      PENSTOCK_CHECK(static_cast<unsigned char>(c) >= ' ');
    }
    return 0;
  }
  uint64_t end = 0;
  for (const GgufTensor& tensor : header->tensors) {
    const BlockLayout& layout = layout_of(tensor.type);
    PENSTOCK_CHECK(tensor.offset >= end && tensor.offset + tensor.bytes <= size);
    PENSTOCK_CHECK(tensor.columns() % layout.elements == 0);
    PENSTOCK_CHECK(tensor.bytes ==
                   static_cast<uint64_t>(tensor.rows() * bytes_of(layout, tensor.columns())));
    end = tensor.offset + tensor.bytes;
  }
  ask_everything(header->metadata);
  return 0;
}
