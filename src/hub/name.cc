#include "hub/name.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"

namespace penstock {
namespace {

constexpr size_t kPartBytesMax = 96;  // of user and of repo, as the Hub has it
constexpr size_t kRevisionBytesMax = 200;
constexpr size_t kFileNameBytesMax = 1024;

bool is_word_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

// Why `part` cannot be a user or a repository; empty: it can.
std::string_view fault_of(std::string_view part) {
  if (part.empty()) return "a part of it is empty";
  if (part.size() > kPartBytesMax) return "a part of it is longer than 96 bytes";
  if (!std::ranges::all_of(part, is_word_letter)) {
    return "only letters, digits, \".\", \"_\" and \"-\" can be in it";
  }
  if (part.find("..") != part.npos || part.find("--") != part.npos) {
    return "\"..\" and \"--\" cannot be in it";
  }
  const auto is_edge = [](char c) { return c == '.' || c == '-'; };
  if (is_edge(part.front()) || is_edge(part.back())) {
    return "no part of it begins or ends with \".\" or \"-\"";
  }
  return "";
}

Error bad_name(std::string_view text, std::string_view fault) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} is not the name of a model on a hub, user/repo or user/repo:quant: {}",
                      escaped(text), fault)};
}

// The parts of a path between its slashes.
template <class Check>
bool all_parts(std::string_view path, Check check) {
  for (;;) {
    const size_t slash = path.find('/');
    if (!check(path.substr(0, slash))) return false;
    if (slash == path.npos) return true;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

Result<HubName> parse_hub_name(std::string_view text) {
  if (text.size() > kHubNameBytesMax) return bad_name(text, "it is longer than 256 bytes");
  const size_t colon = text.find(':');
  const std::string_view id = text.substr(0, colon);
  const size_t slash = id.find('/');
  if (slash == id.npos || id.find('/', slash + 1) != id.npos) {
    return bad_name(text, "there is not one slash in it");
  }
  HubName name{std::string(id.substr(0, slash)), std::string(id.substr(slash + 1)), ""};
  for (const std::string_view part : {name.user, name.repo}) {
    const std::string_view fault = fault_of(part);
    if (!fault.empty()) return bad_name(text, fault);
  }
  if (colon == text.npos) return name;
  const std::string_view quant = text.substr(colon + 1);
  const std::string_view fault = fault_of(quant);
  if (!fault.empty()) return bad_name(text, fault);
  name.quant = quant;
  return name;
}

Result<void> check_revision(std::string_view revision) {
  const bool good = !revision.empty() && revision.size() <= kRevisionBytesMax &&
                    all_parts(revision, [](std::string_view part) {
                      return !part.empty() && part.front() != '.' && part.front() != '-' &&
                             part.find("..") == part.npos &&
                             std::ranges::all_of(part, is_word_letter);
                    });
  if (good) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is not a revision: a branch, a tag or a commit, such as main",
                           escaped(revision))};
}

bool is_commit(std::string_view text) {
  return text.size() == 40 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<void> check_repo_file_name(std::string_view name) {
  const bool good =
      !name.empty() && name.size() <= kFileNameBytesMax &&
      all_parts(name,
                [](std::string_view part) {
                  return !part.empty() && part != "." && part != ".." && part.size() <= 255;
                }) &&
      std::ranges::all_of(name, [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte >= 0x20 && byte < 0x7f && c != '\\';
      });
  if (good) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} cannot be the name of a file", escaped(name))};
}

}  // namespace penstock
