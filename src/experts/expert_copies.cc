#include "experts/expert_copies.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "store/drives.h"

namespace penstock {
namespace {

// The files in which experts lie, by their number in the table.
std::set<int> files_with_experts(const ExpertTable& table) {
  std::set<int> files;
  for (const LayerPlaces& layer : table.layers) {
    for (const PartPlace& part : layer.parts) {
      if (part.each.empty()) files.insert(part.first.file);
      for (const FilePlace& place : part.each) files.insert(place.file);
    }
  }
  return files;
}

// Two names of one file are one drive. The last of the table's copies is the one at hand.
Result<void> check_is_new(const ExpertTable& table, int index, const FileStat& here,
                          const std::string& folder) {
  for (size_t copy = 0; copy + 1 < table.copies.size(); ++copy) {
    const FileStat earlier = PENSTOCK_TRY(table.copies[copy][static_cast<size_t>(index)]->stat());
    if (earlier.device != here.device || earlier.inode != here.inode) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--mirror {}: it has the very file of a folder before it", folder)};
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> open_copies(Storage& storage, std::span<const std::string> folders,
                                             ExpertSource& source) {
  std::vector<std::string> notes;
  if (folders.size() >= kDrivesMax) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--mirror: {} folders; at most {}", folders.size(), kDrivesMax - 1)};
  }
  const std::set<int> wanted = files_with_experts(source.table);
  for (const std::string& folder : folders) {
    std::vector<const StorageFile*>& copies = source.table.copies.emplace_back();
    copies.resize(source.table.files.size());
    bool is_beside = false;
    for (const int index : wanted) {
      const StorageFile& original = *source.table.files[static_cast<size_t>(index)];
      const std::string path =
          fmt::format("{}/{}", folder, std::filesystem::path(original.path()).filename().string());
      Result<std::unique_ptr<StorageFile>> copy = storage.open(path, OpenMode::kReadDirect);
      if (!copy) {
        return Error{copy.error().code,
                     fmt::format("--mirror {}: {}; it holds copies of the model's expert files, "
                                 "under their names",
                                 folder, copy.error().message)};
      }
      const FileStat here = PENSTOCK_TRY((*copy)->stat());
      const FileStat there = PENSTOCK_TRY(original.stat());
      if (here.device == there.device && here.inode == there.inode) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("--mirror {}: {} is the model's own file", folder, path)};
      }
      PENSTOCK_TRY(check_is_new(source.table, index, here, folder));
      is_beside = is_beside || here.device == there.device;
      copies[static_cast<size_t>(index)] = copy->get();
      source.files.push_back(std::move(*copy));
    }
    if (is_beside) {
      notes.push_back(
          fmt::format("--mirror {}: on the file system of the model; a copy makes reads "
                      "faster where it is on another drive",
                      folder));
    }
  }
  return notes;
}

}  // namespace penstock
