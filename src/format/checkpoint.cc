#include "format/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "format/corrupt.h"
#include "format/manifest.h"
#include "format/text.h"
#include "io/paths.h"

namespace penstock {
namespace {

constexpr uint64_t kConfigBytesMax = 1 << 20;
constexpr uint64_t kIndexBytesMax = 128 << 20;
constexpr size_t kOpenShardsMax = 16;  // a 400 GB model has a hundred shards, a limit of files 1024
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";

// weight_map, turned around: shard -> its tensors.
Result<std::map<std::string, std::set<std::string, std::less<>>>> parse_index(
    Storage& storage, const std::string& path) {
  const std::string text = PENSTOCK_TRY(read_text(storage, path, kIndexBytesMax));
  if (text.empty() || text.front() != '{') {
    const std::string guess = looks_like(text);
    return corrupt(path, guess.empty() ? "not an index of shards" : "this is " + guess);
  }
  const Json index = PENSTOCK_TRY(parse_json(text, path));
  const Json* weight_map = json_find(index, "weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->empty()) {
    return corrupt(path, "\"weight_map\" is missing or empty");
  }
  std::map<std::string, std::set<std::string, std::less<>>> shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>())) {
      return corrupt(path, fmt::format("tensor {} is mapped to {}, which is not a file name",
                                       escaped(tensor), escaped(to_text(shard))));
    }
    shards[shard.get<std::string>()].insert(tensor);
  }
  return shards;
}

// What to tell someone whose folder has no safetensors.
Error no_weights(const std::string& directory, const std::vector<std::string>& names) {
  const auto any_ends_with = [&](std::string_view end) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.ends_with(end); });
  };
  if (std::ranges::find(names, kManifestName) != names.end()) {
    return {
        ErrorCode::kInvalidArgument,
        fmt::format("{}: is a penstock model already; pack takes the folder that it was made of",
                    directory)};
  }
  if (any_ends_with(".gguf")) {
    return {ErrorCode::kUnsupported,
            fmt::format("{}: holds GGUF files; penstock packs from safetensors, fetch the "
                        "original repository",
                        directory)};
  }
  if (any_ends_with(".bin") || any_ends_with(".pt") || any_ends_with(".pth")) {
    return {ErrorCode::kUnsupported,
            fmt::format("{}: no safetensors in it, perhaps PyTorch files; penstock packs from "
                        "safetensors",
                        directory)};
  }
  if (any_ends_with(".safetensors")) {
    return {ErrorCode::kNotFound,
            fmt::format("{}: safetensors in it, but neither {} nor {}, which says what they hold; "
                        "fetch it from the same repository",
                        directory, kSingleName, kIndexName)};
  }
  return {ErrorCode::kNotFound,
          fmt::format("{}: neither {} nor {} in it", directory, kSingleName, kIndexName)};
}

}  // namespace

int64_t CheckpointTensor::columns() const {
  return info.shape.empty() ? 1 : info.shape.back();
}

int64_t CheckpointTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < info.shape.size(); ++i) rows *= info.shape[i];
  return rows;
}

void widen(DType dtype, std::span<const std::byte> bytes, std::span<float> floats) {
  PENSTOCK_CHECK(!is_quantised(dtype));
  PENSTOCK_CHECK(bytes.size() == floats.size() * static_cast<size_t>(bits_of(dtype)) / 8);
  if (dtype == DType::kF32) {
    if (!bytes.empty()) std::memcpy(floats.data(), bytes.data(), bytes.size());
    return;
  }
  for (size_t i = 0; i < floats.size(); ++i) {
    floats[i] = load_float(dtype, bytes.data(), i);
  }
}

Result<Checkpoint> Checkpoint::open(Storage& storage, const std::string& directory) {
  Checkpoint result;
  result.storage_ = &storage;
  result.directory_ = directory;
  if (!PENSTOCK_TRY(storage.is_directory(directory))) {
    PENSTOCK_TRY(storage.stat(directory));
    return corrupt(directory, "a checkpoint is a folder with config.json, this is a file");
  }
  const std::string config_path = result.path_of("config.json");
  result.config_stat_ = PENSTOCK_TRY(storage.stat(config_path));
  result.config_text_ = PENSTOCK_TRY(read_text(storage, config_path, kConfigBytesMax));
  result.config_ = PENSTOCK_TRY(parse_json(result.config_text_, config_path));

  if (PENSTOCK_TRY(exists(storage, result.path_of(kIndexName)))) {
    PENSTOCK_TRY(result.open_sharded());
  } else if (PENSTOCK_TRY(exists(storage, result.path_of(kSingleName)))) {
    PENSTOCK_TRY(result.add_shard(std::string(kSingleName)));
  } else {
    return no_weights(directory, PENSTOCK_TRY(storage.list(directory)));
  }
  PENSTOCK_TRY(result.note_other_files());
  result.index_tensors();
  return result;
}

Result<void> Checkpoint::open_sharded() {
  const std::string index_path = path_of(kIndexName);
  const auto index = PENSTOCK_TRY(parse_index(*storage_, index_path));
  std::string missing;
  for (const auto& [shard, names] : index) {
    if (PENSTOCK_TRY(exists(*storage_, path_of(shard)))) continue;
    missing += (missing.empty() ? "" : ", ") + shard;
  }
  if (!missing.empty()) {
    const bool has_single = PENSTOCK_TRY(exists(*storage_, path_of(kSingleName)));
    return Error{
        ErrorCode::kNotFound,
        fmt::format(
            "{}: shards that {} names are not there: {}{}", directory_, kIndexName, missing,
            has_single ? fmt::format("; if {} is the model, remove the index", kSingleName) : "")};
  }
  for (const auto& [shard, names] : index) PENSTOCK_TRY(add_indexed_shard(shard, names));
  return check_absent();
}

Result<void> Checkpoint::add_indexed_shard(const std::string& name, const TensorNames& names) {
  const SafetensorsFile file = PENSTOCK_TRY(SafetensorsFile::open(*storage_, path_of(name)));
  TensorNames expected = names;
  size_t num_other = 0, num_used = 0;
  std::string other;
  for (const TensorInfo& info : file.tensors()) {
    if (expected.erase(info.name) > 0) {
      tensors_.push_back({info, shards_.size()});
      ++num_used;
      continue;
    }
    if (num_other++ == 0) other = info.name;
    left_out_[info.name] = name;
  }
  if (num_used == 0) {
    return corrupt(path_of(name),
                   fmt::format("holds none of the {} tensors that {} places there, such as {}: a "
                               "shard of another model",
                               names.size(), kIndexName, escaped(*names.begin())));
  }
  for (const std::string& absent : expected) absent_[absent] = name;
  if (num_other > 0) {
    notes_.push_back(
        fmt::format("{}: {} tensors that {} does not place there are left out, such as {}", name,
                    num_other, kIndexName, escaped(other)));
  }
  shards_.push_back({name, file.stat(), file.header_sum()});
  return {};
}

// A tensor that is there, but elsewhere, may be of another version: nobody can tell which is meant.
Result<void> Checkpoint::check_absent() const {
  for (const auto& [tensor, shard] : absent_) {
    const auto found = left_out_.find(tensor);
    if (found == left_out_.end()) continue;
    return corrupt(
        directory_,
        fmt::format("{} places tensor {} in {}, which lacks it; {} has one of that name: "
                    "index and shards are not of the same version",
                    kIndexName, escaped(tensor), shard, found->second));
  }
  return {};
}

std::string Checkpoint::where_missing(std::string_view name) const {
  const auto found = absent_.find(name);
  if (found == absent_.end()) return "";
  return fmt::format(" ({} places it in {}, which lacks it)", kIndexName, found->second);
}

// Other safetensors in the folder: earlier releases, half downloads, adapters.
Result<void> Checkpoint::note_other_files() {
  std::vector<std::string> names = PENSTOCK_TRY(storage_->list(directory_));
  std::erase_if(names, [&](const std::string& name) {
    return !name.ends_with(".safetensors") ||
           std::ranges::find(shards_, name, &CheckpointShard::name) != shards_.end();
  });
  if (names.empty()) return {};
  std::ranges::sort(names);
  notes_.push_back(
      fmt::format("{} is left out: {} is used", escaped(names.front()),
                  shards_.size() == 1 ? shards_.front().name : "what the index names"));
  if (names.size() > 1) {
    notes_.back() = fmt::format("{} files that are not of the model are left out, such as {}",
                                names.size(), escaped(names.front()));
  }
  return {};
}

Result<void> Checkpoint::add_shard(const std::string& name) {
  const SafetensorsFile file = PENSTOCK_TRY(SafetensorsFile::open(*storage_, path_of(name)));
  for (const TensorInfo& info : file.tensors()) tensors_.push_back({info, shards_.size()});
  shards_.push_back({name, file.stat(), file.header_sum()});
  return {};
}

void Checkpoint::index_tensors() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const CheckpointTensor& a, const CheckpointTensor& b) {
              return a.info.name < b.info.name;
            });
  for (size_t i = 0; i < tensors_.size(); ++i) {
    // The index names one shard per tensor; what lies elsewhere was left out.
    PENSTOCK_CHECK(by_name_.emplace(tensors_[i].info.name, i).second);
  }
}

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

std::string Checkpoint::path_of(std::string_view file) const {
  return directory_ + "/" + std::string(file);
}

Result<const StorageFile*> Checkpoint::file_of(size_t shard) {
  const auto found = std::find_if(open_shards_.begin(), open_shards_.end(),
                                  [&](const OpenShard& open) { return open.shard == shard; });
  if (found != open_shards_.end()) {
    std::rotate(found, found + 1, open_shards_.end());
    return open_shards_.back().file.get();
  }
  const CheckpointShard& wanted = shards_[shard];
  std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage_->open(path_of(wanted.name), OpenMode::kRead));
  if (PENSTOCK_TRY(file->stat()) != wanted.stat) {
    return corrupt(path_of(wanted.name), "changed while it was being read; start again");
  }
  if (open_shards_.size() == kOpenShardsMax) open_shards_.erase(open_shards_.begin());
  open_shards_.push_back({shard, std::move(file)});
  return open_shards_.back().file.get();
}

Result<void> Checkpoint::read(const CheckpointTensor& tensor, uint64_t offset,
                              std::span<std::byte> target) {
  PENSTOCK_CHECK(offset <= tensor.info.bytes && target.size() <= tensor.info.bytes - offset);
  const StorageFile* file = PENSTOCK_TRY(file_of(tensor.shard));
  const Result<void> read = read_exactly(*file, tensor.info.offset + offset, target);
  if (!read) return read.error().with_context(fmt::format("tensor {}", escaped(tensor.info.name)));
  // Half a terabyte read once would only push out what the machine needs.
  file->drop_cached(tensor.info.offset + offset, target.size());
  return {};
}

Result<void> Checkpoint::read_rows(const CheckpointTensor& tensor, int64_t first_row,
                                   std::span<float> floats) {
  const DType dtype = PENSTOCK_TRY(float_dtype(tensor));
  const uint64_t element_bytes = static_cast<uint64_t>(bits_of(dtype)) / 8;
  std::vector<std::byte> bytes(floats.size() * element_bytes);
  const uint64_t offset = static_cast<uint64_t>(first_row * tensor.columns()) * element_bytes;
  PENSTOCK_TRY(read(tensor, offset, bytes));
  widen(dtype, bytes, floats);
  return {};
}

Result<void> Checkpoint::check_unchanged() const {
  const auto check = [&](const std::string& name, const FileStat& before) -> Result<void> {
    const FileStat now = PENSTOCK_TRY(storage_->stat(path_of(name)));
    if (now == before) return {};
    return corrupt(path_of(name), "changed while it was being read; start again");
  };
  PENSTOCK_TRY(check("config.json", config_stat_));
  for (const CheckpointShard& shard : shards_) PENSTOCK_TRY(check(shard.name, shard.stat));
  return {};
}

Result<DType> Checkpoint::float_dtype(const CheckpointTensor& tensor) {
  const std::optional<DType> dtype = tensor.info.float_dtype();
  if (dtype) return *dtype;
  const bool is_fp8 = tensor.info.type.starts_with("F8_");
  return Error{ErrorCode::kUnsupported,
               fmt::format("tensor {} is {}; {}", escaped(tensor.info.name), tensor.info.type,
                           is_fp8 ? "FP8 checkpoints are not read yet, use the BF16 repository of "
                                    "the model"
                                  : "weights must be BF16, F16 or F32")};
}

}  // namespace penstock
