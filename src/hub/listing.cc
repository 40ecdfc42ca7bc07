#include "hub/listing.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "format/text.h"
#include "hub/name.h"

namespace penstock {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 46;  // 64 TiB: beyond any disk, below any overflow

Error corrupt(std::string_view what, const std::string& fault) {
  return {ErrorCode::kCorrupt, fmt::format("{}: {}", what, fault)};
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<RepoFile> parse_file(const Json& entry, std::string_view what) {
  RepoFile file;
  file.name = PENSTOCK_TRY(json_string(entry, "rfilename", what));
  if (!check_repo_file_name(file.name)) {
    return corrupt(what, fmt::format("it names the file {}, which could lie outside of its folder; "
                                     "nothing was downloaded",
                                     escaped(file.name)));
  }
  const std::string place = fmt::format("{}: {}", what, file.name);
  file.bytes =
      static_cast<uint64_t>(PENSTOCK_TRY(json_int(entry, "size", place, 0, kFileBytesMax)));
  const Json* large = json_find(entry, "lfs");
  file.is_large = large != nullptr;
  file.hash = file.is_large ? PENSTOCK_TRY(json_string(*large, "sha256", place))
                            : PENSTOCK_TRY(json_string(entry, "blobId", place));
  if (!is_hex(file.hash, file.is_large ? 64 : 40)) {
    return corrupt(place, fmt::format("its hash {} is none", escaped(file.hash)));
  }
  return file;
}

}  // namespace

Result<RepoListing> parse_listing(std::string_view text, std::string_view what) {
  const Json json = PENSTOCK_TRY(parse_json(text, what));
  if (!json.is_object()) return corrupt(what, "it is no JSON object");
  RepoListing listing;
  listing.commit = PENSTOCK_TRY(json_string(json, "sha", what));
  if (!is_commit(listing.commit)) {
    return corrupt(what, fmt::format("\"sha\" is {} and no commit", escaped(listing.commit)));
  }
  const Json* files = json_find(json, "siblings");
  if (files == nullptr || !files->is_array()) {
    return corrupt(what, "\"siblings\", the list of files, is missing");
  }
  if (files->size() > kListingFilesMax) {
    return corrupt(what,
                   fmt::format("it lists {} files, more than {}", files->size(), kListingFilesMax));
  }
  for (const Json& entry : *files) {
    listing.files.push_back(PENSTOCK_TRY(parse_file(entry, what)));
  }
  std::ranges::sort(listing.files, {}, &RepoFile::name);
  const auto twice = std::ranges::adjacent_find(listing.files, {}, &RepoFile::name);
  if (twice != listing.files.end()) {
    return corrupt(what, fmt::format("it lists {} twice", twice->name));
  }
  return listing;
}

}  // namespace penstock
