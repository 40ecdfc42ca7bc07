#include "cli/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/json.h"

namespace penstock {
namespace {

constexpr uint64_t kIdBytesMax = 32;  // an id, a comma, and room for the indents of a printer
constexpr uint64_t kSpareCharacters = 64 << 10;

Error wrong(const std::string& path, const std::string& why) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", path, why)};
}

}  // namespace

Result<std::vector<TokenId>> read_token_file(Storage& storage, const std::string& path,
                                             int64_t tokens_max) {
  const auto most = static_cast<uint64_t>(tokens_max);
  const Result<FileStat> stat = storage.stat(path);
  // The file is part of the call, not of the model: what is wrong with it is wrong usage.
  if (!stat) return Error{ErrorCode::kInvalidArgument, "--ids: " + stat.error().message};
  const Error too_long = wrong(path, fmt::format("holds more than {} token ids", tokens_max));
  if (stat->bytes > most * kIdBytesMax + kSpareCharacters) return too_long;
  const Result<std::string> text = read_text(storage, path, most * kIdBytesMax + kSpareCharacters);
  if (!text) return Error{ErrorCode::kInvalidArgument, "--ids: " + text.error().message};
  // Every element but the last has a comma behind it; other keys of an object may have a few.
  const auto commas = static_cast<uint64_t>(std::ranges::count(*text, ','));
  if (commas > most + kSpareCharacters) return too_long;
  const Result<Json> json = parse_json(*text, path);
  if (!json) return Error{ErrorCode::kInvalidArgument, json.error().message};
  const Json* list = json->is_array() ? &*json : json_find(*json, "input_ids");
  if (list == nullptr || !list->is_array()) {
    return wrong(path, "expected a list of token ids, or an object with the key input_ids");
  }
  std::vector<TokenId> ids;
  ids.reserve(list->size());
  for (const Json& id : *list) {
    const bool fits = id.is_number_unsigned() &&
                      id.get<uint64_t>() <= uint64_t{std::numeric_limits<TokenId>::max()};
    if (!fits) return wrong(path, fmt::format("element {} is not a token id", ids.size()));
    ids.push_back(id.get<TokenId>());
  }
  if (ids.size() > most) return too_long;
  return ids;
}

}  // namespace penstock
