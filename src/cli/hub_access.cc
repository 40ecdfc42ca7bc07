#include "cli/hub_access.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

constexpr uint64_t kTokenBytesMax = 4096;
constexpr std::string_view kEndpoint = "https://huggingface.co";

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

// Where programs of the field keep what they have of the hub.
std::optional<std::string> hub_home(const Environment& environment) {
  if (const auto home = environment.get("HF_HOME")) return without_slashes(*home);
  if (const auto caches = environment.get("XDG_CACHE_HOME")) {
    return without_slashes(*caches) + "/huggingface";
  }
  if (const auto home = environment.get("HOME")) {
    return without_slashes(*home) + "/.cache/huggingface";
  }
  return {};
}

// A token goes into a header: what could end one does not get there.
Result<std::string> checked_token(std::string token, const std::string& place) {
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' ')) {
    token.pop_back();
  }
  const bool good = std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7f; });
  if (good) return token;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: a token is one word of letters, digits and signs", place)};
}

Result<std::string> hub_token(const Environment& environment, Storage& storage) {
  if (const auto token = environment.get("HF_TOKEN")) return checked_token(*token, "HF_TOKEN");
  const auto named = environment.get("HF_TOKEN_PATH");
  const auto home = hub_home(environment);
  if (!named && !home) return std::string();
  const std::string path = named ? *named : *home + "/token";
  const Result<std::string> text = read_text(storage, path, kTokenBytesMax);
  if (text) return checked_token(*text, path);
  if (!named && text.error().code == ErrorCode::kNotFound) return std::string();
  return text.error();
}

}  // namespace

Result<HubCache> hub_cache(const Settings& settings, const Environment& environment,
                           Storage& storage) {
  if (!settings.text("cache").empty()) {
    return HubCache(storage, without_slashes(settings.text("cache")));
  }
  if (const auto folder = environment.get("HF_HUB_CACHE")) {
    return HubCache(storage, without_slashes(*folder));
  }
  if (const auto home = hub_home(environment)) return HubCache(storage, *home + "/hub");
  return Error{
      ErrorCode::kInvalidArgument,
      "there is no place for pulled models: HOME is not set; name a folder with --cache or "
      "PENSTOCK_CACHE"};
}

Result<HubOptions> hub_options(const Environment& environment, Storage& storage) {
  HubOptions options;
  options.endpoint =
      without_slashes(environment.get("HF_ENDPOINT").value_or(std::string(kEndpoint)));
  options.token = PENSTOCK_TRY(hub_token(environment, storage));
  options.agent = "penstock/" PENSTOCK_VERSION;
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    if (options.ca_bundle.empty()) options.ca_bundle = environment.get(name).value_or("");
  }
  return options;
}

bool is_offline(const Settings& settings, const Environment& environment) {
  if (settings.is_on("offline")) return true;
  const std::string word = environment.get("HF_HUB_OFFLINE").value_or("");
  return is_on(word) || word == "ON" || word == "YES" || word == "TRUE" || word == "True";
}

Result<void> find_model_argument(Settings& settings, const Environment& environment,
                                 Storage& storage) {
  if (!takes_model(settings.verb()) || settings.arguments().empty()) return {};
  const std::string& text = settings.arguments().front();
  const Result<HubName> name = parse_hub_name(text);
  if (!name || storage.stat(text)) return {};
  const HubCache cache = PENSTOCK_TRY(hub_cache(settings, environment, storage));
  const Result<std::string> pulled = find_pulled(cache, *name);
  // A file of that name that an earlier run has consumed.
  const bool may_be_gone = settings.verb() == Verb::kPack && settings.is_on("in-place");
  if (!pulled && may_be_gone) return {};
  settings.replace_argument(0, PENSTOCK_TRY(pulled));
  return {};
}

}  // namespace penstock
