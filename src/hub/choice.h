// Which files of a repository make a model: those of one quantisation in GGUF, or the safetensors with
// the texts beside them.
//
// GGUF files are grouped by their splits (NAME-00001-of-00003.gguf is one of three); a group's quant is
// what its name ends with: "Q4_K_M" of Model-Q4_K_M.gguf, "UD-Q4_K_XL" of Model-UD-Q4_K_XL-00001-of-00002.gguf.
// Projectors and importance matrices are no models. The same choice is made of what a hub lists and of
// what the cache holds, so that a name means the same in both.
//
// Threads  any
// Errors   kNotFound and kInvalidArgument, with a list of what there is
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "hub/listing.h"
#include "hub/name.h"

namespace penstock {

// A file of weights by its name; the others are texts.
bool is_weights(std::string_view name);

struct GgufGroup {
  std::string quant;
  std::vector<const RepoFile*> files;  // in the order of the splits
  size_t num_splits = 1;               // as the names say

  bool is_whole() const { return files.size() == num_splits; }
  uint64_t bytes() const;
};

// By name. `files` must outlive the groups.
std::vector<GgufGroup> gguf_groups(const std::vector<RepoFile>& files);

// The folder's weights and the texts that packing and running need; empty where there are none.
std::vector<const RepoFile*> safetensors_model(const std::vector<RepoFile>& files);

struct ModelChoice {
  std::string quant;                   // "Q4_K_M"; empty: safetensors
  std::vector<const RepoFile*> files;  // of GGUF the first is the one to open
};

// `where` begins the sentences: "user/repo at https://...".
Result<ModelChoice> choose_model(const std::vector<RepoFile>& files, const HubName& name,
                                 std::string_view where);

// Every file that one of the patterns fits, separated by commas: * is any text, ? any letter.
Result<std::vector<const RepoFile*>> included_files(const std::vector<RepoFile>& files,
                                                    std::string_view patterns,
                                                    std::string_view where);

}  // namespace penstock
