#include "format/container.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "format/corrupt.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr uint64_t kManifestBytesMax = 16 << 20;

Result<std::string> read_manifest(Storage& storage, const std::string& directory) {
  if (!PENSTOCK_TRY(storage.is_directory(directory))) {
    PENSTOCK_TRY(storage.stat(directory));
    return corrupt(directory, "a penstock model is a directory, this is a file");
  }
  const std::string path = directory + "/" + std::string(kManifestName);
  Result<std::string> text = read_text(storage, path, kManifestBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no {} in it: not a penstock model, or one whose packing was not "
                             "finished (run the same pack command again)",
                             directory, kManifestName)};
  }
  if (!text) return text.error();
  if (text->empty() || text->front() != '{') {
    const std::string guess = looks_like(*text);
    return corrupt(path, guess.empty() ? "not a manifest" : fmt::format("this is {}", guess));
  }
  return text;
}

// How a text that somebody edited becomes the model's own.
std::string texts_hint(std::string_view name) {
  const bool is_text =
      (name.ends_with(".json") || name.ends_with(".jinja")) && name != "config.json";
  return is_text ? "; `penstock pack --texts FOLDER MODEL` takes over texts that were changed" : "";
}

bool is_aligned(const std::byte* address) {
  return reinterpret_cast<uintptr_t>(address) % kFileAlignment == 0;
}

}  // namespace

Container::Container(Storage& storage, std::string directory, Manifest manifest, Hash128 content)
    : storage_(&storage),
      directory_(std::move(directory)),
      manifest_(std::move(manifest)),
      content_(content) {
  for (size_t i = 0; i < manifest_.tensors.size(); ++i) by_name_[manifest_.tensors[i].name] = i;
}

Result<Container> Container::open(Storage& storage, const std::string& directory) {
  const std::string text = PENSTOCK_TRY(read_manifest(storage, directory));
  const std::string what = directory + "/" + std::string(kManifestName);
  Manifest manifest = PENSTOCK_TRY(parse_manifest(text, what));
  const Hash128 content = PENSTOCK_TRY(manifest_sum(text, what));
  Container container(storage, directory, std::move(manifest), content);
  PENSTOCK_TRY(container.check_files());
  return container;
}

Result<void> Container::check_files() const {
  const auto check = [&](std::string_view name, uint64_t bytes) -> Result<void> {
    const std::string path = path_of(name);
    const FileStat stat = PENSTOCK_TRY(storage_->stat(path));
    if (stat.bytes != bytes) {
      return corrupt(path,
                     fmt::format("has {} bytes, the manifest says {}: cut short or replaced{}",
                                 stat.bytes, bytes, texts_hint(name)));
    }
    return {};
  };
  PENSTOCK_TRY(check(kResidentName, manifest_.resident_bytes));
  PENSTOCK_TRY(check(kExpertsName, manifest_.experts.file_bytes()));
  for (const ManifestFile& file : manifest_.files) PENSTOCK_TRY(check(file.name, file.bytes));
  return {};
}

std::string Container::id_text() const {
  return hex_text(content_);
}

std::string Container::path_of(std::string_view name) const {
  return directory_ + "/" + std::string(name);
}

const ResidentTensor* Container::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &manifest_.tensors[found->second];
}

// "tensor lm_head": what a person wants to know about a damaged block.
std::string Container::place_of(uint64_t offset) const {
  const auto after = std::upper_bound(
      manifest_.tensors.begin(), manifest_.tensors.end(), offset,
      [](uint64_t value, const ResidentTensor& tensor) { return value < tensor.offset; });
  return after == manifest_.tensors.begin() ? "no tensor" : "tensor " + std::prev(after)->name;
}

Result<void> Container::load_block(const StorageFile& file, uint64_t block,
                                   std::span<std::byte> target, const Hash128& expected) const {
  const uint64_t offset = block * kResidentBlockBytes;
  Error failure{ErrorCode::kCorrupt, ""};
  constexpr int kAttempts = 2;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Result<void> read = read_exactly(file, offset, target);
    if (read && block_checksum(manifest_.model_id, block, target) == expected) return {};
    failure = read ? corrupt(file.path(), "checksum does not match") : read.error();
    // What the page cache holds may be what is damaged: the second read goes to the disk.
    file.drop_cached(offset, target.size());
  }
  return failure.with_context(
      fmt::format("block of {} bytes at {:#x} ({})", target.size(), offset, place_of(offset)));
}

Result<void> Container::load_resident(
    std::span<std::byte> target,
    const std::function<void(uint64_t done, uint64_t total)>& progress) const {
  PENSTOCK_CHECK(target.size() == manifest_.resident_bytes);
  const std::vector<Hash128> sums = PENSTOCK_TRY(load_resident_checksums());
  const OpenMode mode = is_aligned(target.data()) ? OpenMode::kReadDirect : OpenMode::kRead;
  std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage_->open(resident_path(), mode));
  if (kFileAlignment % file->alignment() != 0) {
    file = PENSTOCK_TRY(storage_->open(resident_path(), OpenMode::kRead));
  }
  for (uint64_t block = 0; block < sums.size(); ++block) {
    const uint64_t offset = block * kResidentBlockBytes;
    const uint64_t bytes = std::min(kResidentBlockBytes, target.size() - offset);
    PENSTOCK_TRY(load_block(*file, block, target.subspan(offset, bytes), sums[block]));
    if (file->alignment() == 1) file->drop_cached(offset, bytes);
    if (progress) progress(offset + bytes, target.size());
  }
  return {};
}

Result<std::vector<Hash128>> Container::load_sums(std::string_view name, uint64_t count) const {
  const ManifestFile* listed = manifest_.find_file(name);
  PENSTOCK_CHECK(listed != nullptr);
  const std::string path = path_of(name);
  // `count` is bounded by the sizes of files that exist, so this allocation is too.
  if (listed->bytes != count * sizeof(Hash128)) {
    return corrupt(path, fmt::format("has {} bytes, expected {} sums of {}", listed->bytes, count,
                                     sizeof(Hash128)));
  }
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage_->open(path, OpenMode::kRead));
  std::vector<Hash128> sums(count);
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(sums));
  PENSTOCK_TRY(read_exactly(*file, 0, bytes));
  if (checksum(bytes, 0) != listed->sum) {
    return corrupt(path, "its own checksum does not match: damaged, pack the model again");
  }
  return sums;
}

Result<std::vector<Hash128>> Container::load_expert_checksums() const {
  return load_sums(kExpertSumsName, manifest_.experts.num_sums());
}

Result<std::vector<Hash128>> Container::load_resident_checksums() const {
  const uint64_t blocks =
      (manifest_.resident_bytes + kResidentBlockBytes - 1) / kResidentBlockBytes;
  return load_sums(kResidentSumsName, blocks);
}

Result<std::string> Container::text_file(std::string_view name) const {
  const ManifestFile* listed = manifest_.find_file(name);
  if (listed == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: the model was packed without {}", directory_, name)};
  }
  const std::string path = path_of(name);
  std::string text = PENSTOCK_TRY(read_text(*storage_, path, kModelTextBytesMax));
  if (checksum(std::as_bytes(std::span(text)), 0) != listed->sum) {
    return corrupt(
        path, "its checksum does not match: changed after packing, or damaged" + texts_hint(name));
  }
  return text;
}

}  // namespace penstock
