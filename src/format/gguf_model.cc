// Shards of a split GGUF file: one set of keys, one list of tensors.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "format/corrupt.h"
#include "format/gguf.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr int64_t kShardsMax = 9999;

// Five digits.
bool parse_number(std::string_view text, int64_t& number) {
  if (text.size() != 5) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// The key when it is there, else -1.
Result<int64_t> split_key(const GgufMetadata& metadata, std::string_view key) {
  if (!metadata.has(key)) return int64_t{-1};
  return metadata.integer(key, 0, INT32_MAX);
}

}  // namespace

bool parse_shard_name(std::string_view path, ShardName& name) {
  constexpr std::string_view kEnd = ".gguf";
  constexpr size_t kTailBytes = 1 + 5 + 4 + 5;  // -00001-of-00003
  if (!path.ends_with(kEnd)) return false;
  path.remove_suffix(kEnd.size());
  if (path.size() <= kTailBytes) return false;
  const std::string_view tail = path.substr(path.size() - kTailBytes);
  name.stem = path.substr(0, path.size() - kTailBytes);
  return tail[0] == '-' && tail.substr(6, 4) == "-of-" &&
         parse_number(tail.substr(1, 5), name.index) &&
         parse_number(tail.substr(10, 5), name.count) && name.index >= 1 &&
         name.index <= name.count && name.count <= kShardsMax;
}

std::string shard_path(const ShardName& name) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", name.stem, name.index, name.count);
}

Result<void> GgufModel::add_shard(Storage& storage, const std::string& path) {
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  const FileStat stat = PENSTOCK_TRY(file->stat());
  GgufHeader header = PENSTOCK_TRY(read_gguf_header(*file, stat.bytes));
  for (GgufTensor& tensor : header.tensors) {
    tensor.shard = shards_.size();
    tensors_.push_back(std::move(tensor));
  }
  shards_.push_back({path, stat, header.sum});
  if (shards_.size() == 1) {
    metadata_ = std::move(header.metadata);
    return {};
  }
  for (const std::string_view key : {"split.no", "split.count", "split.tensors.count"}) {
    const auto expected = key == "split.no" ? static_cast<int64_t>(shards_.size()) - 1
                                            : PENSTOCK_TRY(split_key(metadata_, key));
    const int64_t found = PENSTOCK_TRY(split_key(header.metadata, key));
    if (found != expected) {
      return corrupt(path, fmt::format("key {} is {}, expected {}: a shard of another model?", key,
                                       found, expected));
    }
  }
  return {};
}

Result<void> GgufModel::open_rest(Storage& storage, const std::string& path) {
  const int64_t count = PENSTOCK_TRY(split_key(metadata_, "split.count"));
  const int64_t index = PENSTOCK_TRY(split_key(metadata_, "split.no"));
  ShardName name;
  const bool is_named = parse_shard_name(path, name);
  if (index > 0) {
    ShardName first = name;
    first.index = 1;
    return corrupt(path, fmt::format("is shard {} of a split model; open its first shard{}",
                                     index + 1, is_named ? ", " + shard_path(first) : ""));
  }
  const int64_t stated = std::max<int64_t>(count, 1);
  if (is_named ? name.count != stated || name.index != 1 : stated != 1) {
    return corrupt(path, fmt::format("key split.count is {}, which does not fit the name of the "
                                     "file; shards are named NAME-00001-of-0000N.gguf",
                                     stated));
  }
  if (stated == 1) return {};
  std::string missing;
  for (name.index = 2; name.index <= stated; ++name.index) {
    const Result<FileStat> stat = storage.stat(shard_path(name));
    if (stat) continue;
    if (stat.error().code != ErrorCode::kNotFound) return stat.error();
    missing += (missing.empty() ? "" : ", ") + shard_path(name);
  }
  if (!missing.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: these shards of it are not there: {}", path, missing)};
  }
  for (name.index = 2; name.index <= stated; ++name.index) {
    PENSTOCK_TRY(add_shard(storage, shard_path(name)));
  }
  const int64_t total = PENSTOCK_TRY(split_key(metadata_, "split.tensors.count"));
  if (total >= 0 && total != static_cast<int64_t>(tensors_.size())) {
    return corrupt(path, fmt::format("key split.tensors.count is {}, the shards hold {} tensors",
                                     total, tensors_.size()));
  }
  return {};
}

Result<void> GgufModel::index_tensors() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const GgufTensor& a, const GgufTensor& b) { return a.name < b.name; });
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (by_name_.emplace(tensors_[i].name, i).second) continue;
    return corrupt(shards_[tensors_[i].shard].path,
                   fmt::format("tensor {} is in another shard too", escaped(tensors_[i].name)));
  }
  return {};
}

Result<GgufModel> GgufModel::open(Storage& storage, const std::string& path) {
  GgufModel model;
  PENSTOCK_TRY(model.add_shard(storage, path));
  PENSTOCK_TRY(model.open_rest(storage, path));
  PENSTOCK_TRY(model.index_tensors());
  return model;
}

const GgufTensor* GgufModel::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace penstock
