#include "pack/replace_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "format/manifest.h"
#include "format/text.h"
#include "io/output_file.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

constexpr uint64_t kManifestBytesMax = 16 << 20;

bool may_be_replaced(std::string_view name) {
  return name != "config.json";
}

// True when its content or its sum changed.
Result<bool> replace_text(Storage& storage, const std::string& from, const std::string& to,
                          std::string_view name, Manifest& manifest) {
  const std::string text = PENSTOCK_TRY(read_text(storage, from, kModelTextBytesMax));
  const auto bytes = std::as_bytes(std::span(text));
  const Hash128 sum = checksum(bytes, 0);
  const auto listed = std::ranges::find(manifest.files, name, &ManifestFile::name);
  const bool is_listed = listed != manifest.files.end();
  const bool is_known = is_listed && listed->sum == sum && listed->bytes == bytes.size();
  const Result<std::string> there = read_text(storage, to, kModelTextBytesMax);
  if (!there || *there != text) PENSTOCK_TRY(write_output(storage, to, bytes));
  if (!is_listed) {
    manifest.files.push_back({std::string(name), bytes.size(), sum});
  } else {
    listed->bytes = bytes.size();
    listed->sum = sum;
  }
  return !is_known;
}

}  // namespace

Result<ReplacedTexts> replace_texts(Storage& storage, const std::string& folder,
                                    const std::string& model) {
  const std::string manifest_path = fmt::format("{}/{}", model, kManifestName);
  const std::string before = PENSTOCK_TRY(read_text(storage, manifest_path, kManifestBytesMax));
  Manifest manifest = PENSTOCK_TRY(parse_manifest(before, manifest_path));
  ReplacedTexts replaced;
  bool is_any = false;
  for (const std::string_view name : copied_file_names()) {
    const std::string from = fmt::format("{}/{}", folder, name);
    if (!may_be_replaced(name)) continue;
    const Result<FileStat> found = storage.stat(from);
    if (!found && found.error().code == ErrorCode::kNotFound) continue;
    if (!found) return found.error();
    is_any = true;
    const bool changed = PENSTOCK_TRY(
        replace_text(storage, from, fmt::format("{}/{}", model, name), name, manifest));
    if (changed) replaced.names.emplace_back(name);
  }
  if (!is_any) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no tokenizer, template or generation_config.json in it", folder)};
  }
  const std::string after = manifest_text(manifest);
  if (after != before) {
    PENSTOCK_TRY(write_output(storage, manifest_path, std::as_bytes(std::span(after))));
  }
  replaced.id = hex_text(PENSTOCK_TRY(manifest_sum(after, manifest_path)));
  return replaced;
}

}  // namespace penstock
