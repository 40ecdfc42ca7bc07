#include "format/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "base/byte_cursor.h"
#include "format/corrupt.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;
constexpr size_t kSafetensorsDimensionsMax = 8;
constexpr uint64_t kLengthBytes = 8;

struct TypeBits {
  std::string_view name;
  uint64_t bits;
};

constexpr std::array<TypeBits, 20> kTypeBits = {{
    {"BOOL", 8},    {"U8", 8},          {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8},
    {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F4", 4},      {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"I16", 16},        {"U16", 16},        {"F16", 16},    {"BF16", 16},
    {"I32", 32},    {"U32", 32},        {"F32", 32},        {"F64", 64},    {"I64", 64},
}};

std::optional<uint64_t> bits_of_type(std::string_view type) {
  if (type == "U64" || type == "C64") return 64;
  for (const TypeBits& entry : kTypeBits) {
    if (entry.name == type) return entry.bits;
  }
  return std::nullopt;
}

// Bytes of a tensor, or nothing when they wrap or end within a byte.
std::optional<uint64_t> tensor_bytes(uint64_t bits, std::span<const int64_t> shape) {
  uint64_t elements = 1;
  for (const int64_t dimension : shape) {
    const auto product = checked_multiply(elements, static_cast<uint64_t>(dimension));
    if (!product || *product > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    elements = *product;
  }
  const auto all_bits = checked_multiply(elements, bits);
  if (!all_bits || *all_bits % 8 != 0) return std::nullopt;
  return *all_bits / 8;
}

bool is_natural(const Json& json) {
  return json.is_number_unsigned() && json.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

Result<std::vector<int64_t>> parse_shape(const Json& json, const std::string& what) {
  const Json* shape = json_find(json, "shape");
  if (shape == nullptr || !shape->is_array()) return corrupt(what, "\"shape\" is not a list");
  if (shape->size() > kSafetensorsDimensionsMax) {
    return corrupt(what, fmt::format("has {} dimensions, at most {} are read", shape->size(),
                                     kSafetensorsDimensionsMax));
  }
  std::vector<int64_t> dimensions;
  for (const Json& dimension : *shape) {
    if (!is_natural(dimension)) {
      return corrupt(what, fmt::format("{} is not a dimension", to_text(dimension)));
    }
    dimensions.push_back(dimension.get<int64_t>());
  }
  return dimensions;
}

// Offsets are still relative to the data here.
Result<TensorInfo> parse_tensor(const std::string& name, const Json& json,
                                const std::string& what) {
  TensorInfo info;
  info.name = name;
  if (!json.is_object()) return corrupt(what, "is not described by an object");
  info.type = PENSTOCK_TRY(json_string(json, "dtype", what));
  const std::optional<uint64_t> bits = bits_of_type(info.type);
  if (!bits) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: unknown dtype {}", what, escaped(info.type))};
  }
  info.shape = PENSTOCK_TRY(parse_shape(json, what));
  const Json* offsets = json_find(json, "data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 ||
      !is_natural((*offsets)[0]) || !is_natural((*offsets)[1])) {
    return corrupt(what, "\"data_offsets\" is not a pair of byte offsets");
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  const std::optional<uint64_t> bytes = tensor_bytes(*bits, info.shape);
  if (end < begin || bytes != end - begin) {
    return corrupt(what, fmt::format("{} {} does not take bytes {} to {}", info.type,
                                     shape_text(info.shape), begin, end));
  }
  info.offset = begin;
  info.bytes = *bytes;
  return info;
}

Result<void> parse_metadata(const Json& json, const std::string& what, SafetensorsHeader& header) {
  if (json.is_null()) return {};  // as mlx writes it when there is none
  if (!json.is_object()) return corrupt(what, "\"__metadata__\" is not an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return corrupt(what, fmt::format("\"__metadata__\" {} is not a string", escaped(key)));
    }
    header.metadata.emplace_back(key, value.get<std::string>());
  }
  return {};
}

Result<void> check_name(const std::string& name, const std::string& what) {
  if (name.empty() || name.size() > kTensorNameBytesMax || has_control_characters(name)) {
    return corrupt(what, fmt::format("{} is not a tensor name (1 to {} bytes, no control "
                                     "characters)",
                                     escaped(name), kTensorNameBytesMax));
  }
  return {};
}

// Back to back from the first byte of the data to the end of the file.
Result<void> check_offsets(std::vector<TensorInfo>& tensors, uint64_t data_start,
                           uint64_t file_bytes, const std::string& what) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  const uint64_t data_bytes = file_bytes - data_start;
  uint64_t end = 0;
  for (TensorInfo& info : tensors) {
    if (info.offset != end) {
      return corrupt(what, fmt::format("tensor {} starts at {} of the data, the one before ends at "
                                       "{}: a hole or an overlap",
                                       escaped(info.name), info.offset, end));
    }
    end += info.bytes;  // cannot wrap: both are below 2^63, and end <= data_bytes is checked next
    if (end > data_bytes) {
      return corrupt(what, fmt::format("tensor {} ends at {} of the data, the file has {}: cut "
                                       "short? fetch it again",
                                       escaped(info.name), end, data_bytes));
    }
    info.offset += data_start;
  }
  if (end != data_bytes) {
    return corrupt(what, fmt::format("{} bytes follow the last tensor", data_bytes - end));
  }
  return {};
}

Error not_safetensors(const std::string& path, std::span<const std::byte> first_bytes) {
  const std::string guess =
      looks_like({reinterpret_cast<const char*>(first_bytes.data()), first_bytes.size()});
  return corrupt(path, guess.empty() ? "not a safetensors file" : "this is " + guess);
}

// The length of the header, from the file's first bytes.
Result<uint64_t> header_length(const std::string& path, std::span<const std::byte> first_bytes,
                               uint64_t file_bytes) {
  ByteCursor cursor(first_bytes);
  const auto length = cursor.read<uint64_t>();
  const bool starts_as_object =
      first_bytes.size() > kLengthBytes && first_bytes[kLengthBytes] == static_cast<std::byte>('{');
  if (!cursor.ok() || !starts_as_object) return not_safetensors(path, first_bytes);
  if (length > kHeaderBytesMax) {
    return corrupt(path, fmt::format("states a header of {} bytes, at most {} are read", length,
                                     kHeaderBytesMax));
  }
  if (length > file_bytes - kLengthBytes) {
    return corrupt(path, fmt::format("states a header of {} bytes, the file has {}: cut short? "
                                     "fetch it again",
                                     length, file_bytes));
  }
  return length;
}

}  // namespace

std::optional<DType> TensorInfo::float_dtype() const {
  for (const DTypeTraits& traits : kDTypes) {
    if (!traits.safetensors.empty() && traits.safetensors == type) return traits.dtype;
  }
  return std::nullopt;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t file_bytes,
                                                   const std::string& what) {
  const uint64_t data_start = kLengthBytes + header.size();
  if (data_start > file_bytes) return corrupt(what, "the header is longer than the file");
  const Json json = PENSTOCK_TRY(parse_json(header, what));
  if (!json.is_object()) return corrupt(what, "the header is not an object");
  SafetensorsHeader result;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      PENSTOCK_TRY(parse_metadata(value, what, result));
      continue;
    }
    PENSTOCK_TRY(check_name(name, what));
    const std::string place = fmt::format("{}: tensor {}", what, escaped(name));
    result.tensors.push_back(PENSTOCK_TRY(parse_tensor(name, value, place)));
  }
  PENSTOCK_TRY(check_offsets(result.tensors, data_start, file_bytes, what));
  return result;
}

Result<SafetensorsFile> SafetensorsFile::open(Storage& storage, const std::string& path) {
  SafetensorsFile result;
  result.storage_ = &storage;
  result.path_ = path;
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  result.stat_ = PENSTOCK_TRY(file->stat());
  const uint64_t file_bytes = result.stat_.bytes;

  std::array<std::byte, 64> first{};
  const std::span<std::byte> first_bytes =
      std::span(first).first(std::min<uint64_t>(64, file_bytes));
  PENSTOCK_TRY(read_exactly(*file, 0, first_bytes));
  const uint64_t length = PENSTOCK_TRY(header_length(path, first_bytes, file_bytes));
  std::string header(length, '\0');
  const std::span<std::byte> header_bytes = std::as_writable_bytes(std::span(header));
  PENSTOCK_TRY(read_exactly(*file, kLengthBytes, header_bytes));
  result.header_sum_ = checksum(header_bytes, 0);
  result.header_ = PENSTOCK_TRY(parse_safetensors_header(header, file_bytes, path));
  for (size_t i = 0; i < result.header_.tensors.size(); ++i) {
    result.by_name_[result.header_.tensors[i].name] = i;
  }
  return result;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.tensors[found->second];
}

Result<std::pair<const TensorInfo*, std::unique_ptr<StorageFile>>> SafetensorsFile::locate(
    std::string_view name, std::string_view type) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: no tensor {}", path_, escaped(name))};
  }
  if (info->type != type) {
    return corrupt(path_,
                   fmt::format("tensor {} is {}, expected {}", escaped(name), info->type, type));
  }
  return std::pair(info, PENSTOCK_TRY(storage_->open(path_, OpenMode::kRead)));
}

template <class T>
Result<std::vector<T>> SafetensorsFile::read(std::string_view name) const {
  constexpr std::string_view kType = std::is_same_v<T, float>     ? "F32"
                                     : std::is_same_v<T, int32_t> ? "I32"
                                                                  : "U8";
  const auto [info, file] = PENSTOCK_TRY(locate(name, kType));
  std::vector<T> values(info->bytes / sizeof(T));
  PENSTOCK_TRY(read_exactly(*file, info->offset, std::as_writable_bytes(std::span(values))));
  return values;
}

template Result<std::vector<float>> SafetensorsFile::read(std::string_view) const;
template Result<std::vector<int32_t>> SafetensorsFile::read(std::string_view) const;
template Result<std::vector<uint8_t>> SafetensorsFile::read(std::string_view) const;

Result<SafetensorsWriter> SafetensorsWriter::create(
    Storage& storage, const std::string& path, const std::vector<Plan>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    Json entries = Json::object();
    for (const auto& [key, value] : metadata) entries[key] = value;
    header["__metadata__"] = std::move(entries);
  }
  uint64_t data_bytes = 0;
  auto& members = header.get_ref<Json::object_t&>();
  std::unordered_set<std::string_view> names;
  for (const Plan& tensor : tensors) {
    PENSTOCK_CHECK(names.insert(tensor.name).second);
    const std::optional<uint64_t> bits = bits_of_type(tensor.type);
    PENSTOCK_CHECK(bits.has_value());
    const std::optional<uint64_t> bytes = tensor_bytes(*bits, tensor.shape);
    PENSTOCK_CHECK(bytes.has_value());
    members.emplace_back(tensor.name, Json{{"dtype", tensor.type},
                                           {"shape", tensor.shape},
                                           {"data_offsets", {data_bytes, data_bytes + *bytes}}});
    data_bytes += *bytes;
  }
  std::string text = to_text(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');

  SafetensorsWriter writer(PENSTOCK_TRY(OutputFile::create(storage, path)));
  writer.end_ = kLengthBytes + text.size() + data_bytes;
  const uint64_t length = text.size();
  PENSTOCK_TRY(writer.append(std::as_bytes(std::span(&length, 1))));
  PENSTOCK_TRY(writer.append(std::as_bytes(std::span(text))));
  return writer;
}

Result<void> SafetensorsWriter::append(std::span<const std::byte> bytes) {
  PENSTOCK_CHECK(bytes.size() <= end_ - position_);
  PENSTOCK_TRY(file_.append(bytes));
  sum_.update(bytes);
  position_ += bytes.size();
  return {};
}

Result<void> SafetensorsWriter::finish() {
  PENSTOCK_CHECK(position_ == end_);
  return file_.finish();
}

}  // namespace penstock
