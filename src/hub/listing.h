// What a hub tells about one revision of a repository: its commit and its files.
//
// GET {endpoint}/api/models/USER/REPO/revision/REVISION?blobs=true answers with "sha" and "siblings";
// each sibling has "rfilename", "size", "blobId" (the git blob's SHA-1) and, where the file is kept in
// LFS, "lfs": {"sha256"}. All of it comes from a stranger: a name that could leave its folder, a hash
// that is none, a list without end are errors of the whole list.
//
// Threads  any
// Errors   parse_listing(): kCorrupt, naming field and file
// Source   huggingface.co/docs/hub/api
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock {

struct RepoFile {
  std::string name;  // with folders: "Q4_K_M/model-00001-of-00002.gguf"
  uint64_t bytes = 0;
  std::string hash;       // names the blob: 64 digits of SHA-256 or 40 of a git blob's SHA-1
  bool is_large = false;  // kept in LFS: the hash is the SHA-256 of the bytes
};

struct RepoListing {
  std::string commit;
  std::vector<RepoFile> files;  // by name
};

inline constexpr size_t kListingBytesMax = 64 << 20;
inline constexpr size_t kListingFilesMax = 100'000;

Result<RepoListing> parse_listing(std::string_view text, std::string_view what);

}  // namespace penstock
