#include "cli/token_file.h"

#include <fmt/format.h>

#include <limits>

#include "base/json.h"

namespace penstock {
namespace {

constexpr uint64_t kFileBytesMax = 64 << 20;

Error wrong(const std::string& path, const std::string& why) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", path, why)};
}

}  // namespace

Result<std::vector<TokenId>> read_token_file(Storage& storage, const std::string& path) {
  const Result<std::string> text = read_text(storage, path, kFileBytesMax);
  // The file is part of the call, not of the model: what is wrong with it is wrong usage.
  if (!text) return Error{ErrorCode::kInvalidArgument, "--ids: " + text.error().message};
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
  return ids;
}

}  // namespace penstock
