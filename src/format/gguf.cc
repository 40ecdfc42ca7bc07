#include "format/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "base/byte_cursor.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint64_t kWindowBytes = 256 << 10;
constexpr uint64_t kKeyBytesMax = 1024;
constexpr uint64_t kStringBytesMax = 16 << 20;
constexpr uint64_t kListBytesMax = 512 << 20;
constexpr uint64_t kKeysMax = 1 << 16;
constexpr uint64_t kTensorsMax = 1 << 20;
constexpr uint32_t kGgufDimensionsMax = 4;
constexpr uint64_t kAlignmentMax = 1 << 20;
constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kStringLengthBytes = 8;
// The least that an entry can take: empty key, type, one byte; name, one dimension, type, offset.
constexpr uint64_t kKeyEntryBytesMin = kStringLengthBytes + 4 + 1;
constexpr uint64_t kTensorEntryBytesMin = kStringLengthBytes + 4 + 8 + 4 + 8;

// The header's bytes in order, through a window. Every length is compared with what is left of the
// file before it is used.
class HeaderReader {
 public:
  HeaderReader(const StorageFile& file, uint64_t file_bytes)
      : file_(file), file_bytes_(file_bytes), window_(std::min(kWindowBytes, file_bytes)) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_bytes_ - position_; }
  Hash128 sum() const { return sum_.value(); }

  Error corrupt(const std::string& reason) const {
    return {ErrorCode::kCorrupt, fmt::format("{}: {}", file_.path(), reason)};
  }
  Error cut_short(const std::string& what, uint64_t needed) const {
    return corrupt(
        fmt::format("{} at {} takes {} bytes, the file ends {} after it: cut short? "
                    "fetch it again",
                    what, position_, needed, remaining()));
  }

  Result<void> take(std::span<std::byte> target, const std::string& what) {
    if (target.size() > remaining()) return cut_short(what, target.size());
    while (!target.empty()) {
      if (position_ == window_end_) PENSTOCK_TRY(refill());
      const size_t at = window_.size() - (window_end_ - position_);
      const size_t count = std::min<uint64_t>(target.size(), window_end_ - position_);
      const std::span<const std::byte> source(window_.data() + at, count);
      std::memcpy(target.data(), source.data(), count);
      sum_.update(source);
      position_ += count;
      target = target.subspan(count);
    }
    return {};
  }

  template <class T>
  Result<T> number(const std::string& what) {
    T value{};
    PENSTOCK_TRY(take(std::as_writable_bytes(std::span(&value, 1)), what));
    return value;
  }

  // Appends `count` bytes, as they come: a length that lies allocates no more than the file has.
  Result<void> append(uint64_t count, std::vector<std::byte>& target, const std::string& what) {
    if (count > remaining()) return cut_short(what, count);
    const size_t before = target.size();
    target.resize(before + count);
    return take(std::span(target).subspan(before), what);
  }

  Result<std::string> text(uint64_t bytes_max, const std::string& what) {
    const uint64_t length = PENSTOCK_TRY(number<uint64_t>("the length of " + what));
    PENSTOCK_TRY(check_length(length, bytes_max, what));
    std::string text(length, '\0');
    PENSTOCK_TRY(take(std::as_writable_bytes(std::span(text)), what));
    return text;
  }

  Result<void> check_length(uint64_t length, uint64_t bytes_max, const std::string& what) const {
    if (length > bytes_max) {
      return corrupt(
          fmt::format("{} states {} bytes, at most {} are read", what, length, bytes_max));
    }
    if (length > remaining()) return cut_short(what, length);
    return {};
  }

 private:
  Result<void> refill() {
    const uint64_t count = std::min<uint64_t>(window_.size(), remaining());
    window_.resize(count);
    PENSTOCK_TRY(read_exactly(file_, position_, window_));
    window_end_ = position_ + count;
    return {};
  }

  const StorageFile& file_;
  uint64_t file_bytes_;
  std::vector<std::byte> window_;  // the file's bytes up to window_end_
  uint64_t window_end_ = 0;
  uint64_t position_ = 0;
  RunningChecksum sum_;
};

Result<std::string> read_name(HeaderReader& reader, uint64_t bytes_max, const std::string& what) {
  std::string name = PENSTOCK_TRY(reader.text(bytes_max, what));
  if (name.empty() || has_control_characters(name)) {
    return reader.corrupt(fmt::format("{} is {}, expected 1 to {} bytes without control characters",
                                      what, escaped(name), bytes_max));
  }
  return name;
}

Result<GgufType> read_type(HeaderReader& reader, const std::string& what) {
  const auto type = PENSTOCK_TRY(reader.number<uint32_t>("the type of " + what));
  if (type >= kNumGgufTypes) {
    return reader.corrupt(
        fmt::format("{} has type {}, of which GGUF knows 0 to {}", what, type, kNumGgufTypes - 1));
  }
  return static_cast<GgufType>(type);
}

Result<void> check_bools(const HeaderReader& reader, const GgufValue& value,
                         const std::string& what) {
  if (value.type != GgufType::kBool) return {};
  for (const std::byte byte : value.bytes) {
    if (byte > std::byte{1}) {
      return reader.corrupt(
          fmt::format("{} has the bool {}, expected 0 or 1", what, std::to_integer<int>(byte)));
    }
  }
  return {};
}

Result<void> read_strings(HeaderReader& reader, GgufValue& value, const std::string& what) {
  for (uint64_t i = 0; i < value.count; ++i) {
    const auto length = PENSTOCK_TRY(reader.number<uint64_t>("the length of a string of " + what));
    PENSTOCK_TRY(reader.check_length(length, kStringBytesMax, "a string of " + what));
    if (value.bytes.size() + kStringLengthBytes + length > kListBytesMax) {
      return reader.corrupt(
          fmt::format("{} has more than {} bytes of strings", what, kListBytesMax));
    }
    const auto prefix = std::as_bytes(std::span(&length, 1));
    value.bytes.insert(value.bytes.end(), prefix.begin(), prefix.end());
    PENSTOCK_TRY(reader.append(length, value.bytes, "a string of " + what));
  }
  return {};
}

Result<void> read_list(HeaderReader& reader, GgufValue& value, const std::string& what) {
  value.is_list = true;
  value.type = PENSTOCK_TRY(read_type(reader, "the elements of " + what));
  if (value.type == GgufType::kArray) {
    return Error{ErrorCode::kUnsupported,
                 reader.corrupt(what + " is a list of lists").message + ", which no model needs"};
  }
  value.count = PENSTOCK_TRY(reader.number<uint64_t>("the length of " + what));
  const bool is_strings = value.type == GgufType::kString;
  const uint64_t element = is_strings ? kStringLengthBytes : gguf_type_bytes(value.type);
  const std::optional<uint64_t> bytes = checked_multiply(value.count, element);
  if (!bytes || *bytes > kListBytesMax) {
    return reader.corrupt(fmt::format("{} states {} elements, at most {} bytes are read", what,
                                      value.count, kListBytesMax));
  }
  if (*bytes > reader.remaining()) return reader.cut_short(what, *bytes);
  if (is_strings) return read_strings(reader, value, what);
  return reader.append(*bytes, value.bytes, what);
}

Result<GgufValue> read_value(HeaderReader& reader, const std::string& what) {
  GgufValue value;
  value.type = PENSTOCK_TRY(read_type(reader, what));
  if (value.type == GgufType::kArray) {
    PENSTOCK_TRY(read_list(reader, value, what));
  } else if (value.type == GgufType::kString) {
    const auto length = PENSTOCK_TRY(reader.number<uint64_t>("the length of " + what));
    PENSTOCK_TRY(reader.check_length(length, kStringBytesMax, what));
    PENSTOCK_TRY(reader.append(length, value.bytes, what));
  } else {
    PENSTOCK_TRY(reader.append(gguf_type_bytes(value.type), value.bytes, what));
  }
  PENSTOCK_TRY(check_bools(reader, value, what));
  return value;
}

Result<void> read_metadata(HeaderReader& reader, uint64_t count, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = PENSTOCK_TRY(read_name(reader, kKeyBytesMax, fmt::format("key {}", i)));
    const std::string what = "key " + escaped(key);
    GgufValue value = PENSTOCK_TRY(read_value(reader, what));
    if (!metadata.add(std::move(key), std::move(value))) {
      return reader.corrupt(what + " is there twice");
    }
  }
  return {};
}

Result<std::vector<int64_t>> read_shape(HeaderReader& reader, const std::string& what) {
  const auto count = PENSTOCK_TRY(reader.number<uint32_t>("the dimensions of " + what));
  if (count == 0 || count > kGgufDimensionsMax) {
    return reader.corrupt(
        fmt::format("{} has {} dimensions, expected 1 to {}", what, count, kGgufDimensionsMax));
  }
  std::vector<int64_t> shape(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto dimension = PENSTOCK_TRY(reader.number<uint64_t>("the dimensions of " + what));
    if (dimension == 0 || dimension > static_cast<uint64_t>(INT64_MAX)) {
      return reader.corrupt(fmt::format("{} has a dimension of {}", what, dimension));
    }
    shape[count - 1 - i] = static_cast<int64_t>(dimension);
  }
  return shape;
}

Result<BlockType> read_block_type(HeaderReader& reader, const std::string& what) {
  const auto id = PENSTOCK_TRY(reader.number<uint32_t>("the type of " + what));
  const std::optional<BlockType> type = block_type_of_gguf(id);
  if (type) return *type;
  const std::string_view old = withdrawn_gguf_type(id);
  return Error{
      ErrorCode::kUnsupported,
      reader.corrupt(what).message +
          (old.empty() ? fmt::format(" is of type {}, which is not known", id)
                       : fmt::format(" is of type {} ({}), which the format has withdrawn; "
                                     "fetch a newer file of the model",
                                     id, old))};
}

// Bytes of a tensor, or nothing when they wrap.
std::optional<uint64_t> tensor_bytes(const GgufTensor& tensor, const BlockLayout& layout) {
  auto blocks = std::optional(static_cast<uint64_t>(tensor.columns() / layout.elements));
  for (size_t i = 0; i + 1 < tensor.shape.size() && blocks; ++i) {
    blocks = checked_multiply(*blocks, static_cast<uint64_t>(tensor.shape[i]));
  }
  if (!blocks) return std::nullopt;
  const auto elements = checked_multiply(*blocks, static_cast<uint64_t>(layout.elements));
  if (!elements || *elements > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return checked_multiply(*blocks, static_cast<uint64_t>(layout.bytes));
}

// The offset is still relative to the data here.
Result<GgufTensor> read_tensor(HeaderReader& reader, uint64_t index) {
  GgufTensor tensor;
  tensor.name = PENSTOCK_TRY(
      read_name(reader, kTensorNameBytesMax, fmt::format("the name of tensor {}", index)));
  const std::string what = "tensor " + escaped(tensor.name);
  tensor.shape = PENSTOCK_TRY(read_shape(reader, what));
  tensor.type = PENSTOCK_TRY(read_block_type(reader, what));
  tensor.offset = PENSTOCK_TRY(reader.number<uint64_t>("the offset of " + what));
  const BlockLayout& layout = layout_of(tensor.type);
  if (tensor.columns() % layout.elements != 0) {
    return reader.corrupt(fmt::format("{} has rows of {} elements, {} needs multiples of {}", what,
                                      tensor.columns(), layout.name, layout.elements));
  }
  const std::optional<uint64_t> bytes = tensor_bytes(tensor, layout);
  if (!bytes) return reader.corrupt(what + " has more elements than can be counted");
  tensor.bytes = *bytes;
  return tensor;
}

Result<uint64_t> read_alignment(const HeaderReader& reader, const GgufMetadata& metadata) {
  constexpr std::string_view kKey = "general.alignment";
  if (!metadata.has(kKey)) return kAlignmentDefault;
  const auto alignment = static_cast<uint64_t>(
      PENSTOCK_TRY(metadata.integer(kKey, 1, static_cast<int64_t>(kAlignmentMax))));
  if (!std::has_single_bit(alignment)) {
    return reader.corrupt(fmt::format("{} is {}, expected a power of two", kKey, alignment));
  }
  return alignment;
}

uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// From here on offsets are of the file. Each tensor starts at the first aligned byte after the one
// before it; the padding after the last may be missing, as some writers leave it away.
Result<void> place_tensors(const HeaderReader& reader, uint64_t file_bytes, GgufHeader& header) {
  std::vector<GgufTensor>& tensors = header.tensors;
  std::sort(tensors.begin(), tensors.end(),
            [](const GgufTensor& a, const GgufTensor& b) { return a.offset < b.offset; });
  const uint64_t data_start = align_up(reader.position(), header.alignment);
  if (data_start > file_bytes && !tensors.empty()) {
    return reader.corrupt("ends before its first tensor: cut short? fetch it again");
  }
  const uint64_t data_bytes = file_bytes - std::min(data_start, file_bytes);
  uint64_t end = 0;
  for (GgufTensor& tensor : tensors) {
    const std::string what = "tensor " + escaped(tensor.name);
    if (tensor.offset % header.alignment != 0) {
      return reader.corrupt(fmt::format("{} starts at {} of the data, which is no multiple of {}",
                                        what, tensor.offset, header.alignment));
    }
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
      return reader.corrupt(
          fmt::format("{} takes {} bytes at {} of the data, the file has {}: cut "
                      "short? fetch it again",
                      what, tensor.bytes, tensor.offset, data_bytes));
    }
    if (tensor.offset != align_up(end, header.alignment)) {
      return reader.corrupt(
          fmt::format("{} starts at {} of the data, the one before ends at {}: a "
                      "hole or an overlap",
                      what, tensor.offset, end));
    }
    end = tensor.offset + tensor.bytes;  // at most data_bytes
    tensor.offset += data_start;
  }
  if (data_bytes > align_up(end, header.alignment)) {
    return reader.corrupt(fmt::format("{} bytes follow the last tensor",
                                      data_bytes - align_up(end, header.alignment)));
  }
  return {};
}

Result<void> check_start(const StorageFile& file, uint64_t file_bytes) {
  std::array<std::byte, 64> first{};
  const std::span<std::byte> bytes = std::span(first).first(std::min<uint64_t>(64, file_bytes));
  PENSTOCK_TRY(read_exactly(file, 0, bytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("GGUF")) return {};
  if (text.starts_with("FUGG")) {
    return Error{ErrorCode::kUnsupported, file.path() + ": a GGUF file for big-endian machines"};
  }
  const std::string guess = looks_like(text);
  return Error{
      ErrorCode::kCorrupt,
      fmt::format("{}: {}", file.path(), guess.empty() ? "not a GGUF file" : "this is " + guess)};
}

Result<void> check_version(HeaderReader& reader, const std::string& path) {
  const auto version = PENSTOCK_TRY(reader.number<uint32_t>("the version"));
  if (version == kVersion) return {};
  std::string message =
      fmt::format("{}: GGUF version {}, only {} is read", path, version, kVersion);
  if ((version & 0xffffu) == 0) message += "; it may be a file for big-endian machines";
  return Error{ErrorCode::kUnsupported, message};
}

Result<uint64_t> read_count(HeaderReader& reader, const std::string& what, uint64_t maximum,
                            uint64_t entry_bytes_min) {
  const auto count = PENSTOCK_TRY(reader.number<uint64_t>("the number of " + what));
  if (count > maximum || count * entry_bytes_min > reader.remaining()) {
    return reader.corrupt(
        fmt::format("states {} {}; at most {} are read, and the file has {} bytes "
                    "left",
                    count, what, maximum, reader.remaining()));
  }
  return count;
}

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

Result<GgufHeader> read_gguf_header(const StorageFile& file, uint64_t file_bytes) {
  PENSTOCK_TRY(check_start(file, file_bytes));
  HeaderReader reader(file, file_bytes);
  GgufHeader header{GgufMetadata(file.path()), {}, kAlignmentDefault, {}};
  PENSTOCK_TRY(reader.number<uint32_t>("the magic"));
  PENSTOCK_TRY(check_version(reader, file.path()));
  const uint64_t num_tensors =
      PENSTOCK_TRY(read_count(reader, "tensors", kTensorsMax, kTensorEntryBytesMin));
  const uint64_t num_keys = PENSTOCK_TRY(read_count(reader, "keys", kKeysMax, kKeyEntryBytesMin));
  PENSTOCK_TRY(read_metadata(reader, num_keys, header.metadata));
  header.alignment = PENSTOCK_TRY(read_alignment(reader, header.metadata));
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    header.tensors.push_back(PENSTOCK_TRY(read_tensor(reader, i)));
    if (!names.insert(header.tensors.back().name).second) {
      return reader.corrupt(
          fmt::format("tensor {} is there twice", escaped(header.tensors.back().name)));
    }
  }
  PENSTOCK_TRY(place_tensors(reader, file_bytes, header));
  header.sum = reader.sum();
  return header;
}

}  // namespace penstock
