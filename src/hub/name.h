// The name of a model on a hub: user/repo[:quant], as people type it.
//
// Strict, because it becomes part of paths and of URLs: one slash, letters, digits and ._- alone, no
// ".." and no "--" (which the cache's folder names use as their separator), 256 bytes in all.
//
// Threads  any
// Errors   parse_hub_name(), check_revision(), check_repo_file_name(): kInvalidArgument, naming the text
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

struct HubName {
  std::string user, repo;
  std::string quant;  // "Q4_K_M"; empty: none was named

  std::string repo_id() const { return user + "/" + repo; }
  std::string text() const { return quant.empty() ? repo_id() : repo_id() + ":" + quant; }

  bool operator==(const HubName&) const = default;
};

inline constexpr size_t kHubNameBytesMax = 256;

Result<HubName> parse_hub_name(std::string_view text);

// A branch, a tag or a commit: letters, digits and ._-/ with nothing that could leave a folder.
Result<void> check_revision(std::string_view revision);

// 40 hexadecimal digits in small letters.
bool is_commit(std::string_view text);

// A file's path inside a repository, as a server tells it. Servers are not trusted: what is accepted
// stays below the folder that it is put into, and can be printed.
Result<void> check_repo_file_name(std::string_view name);

}  // namespace penstock
