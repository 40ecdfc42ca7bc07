// The cache of models on this machine, laid out as other programs of the field have it, so that nothing
// is downloaded twice:
//
//   models--user--repo/blobs/HASH                   the bytes, named by SHA-256 or a git blob's SHA-1
//   models--user--repo/refs/REVISION                a commit
//   models--user--repo/snapshots/COMMIT/a/b.gguf    a relative link: ../../../blobs/HASH
//   .locks/models--user--repo/HASH.lock             held (flock) while a blob is written
//
// Threads  one
// Errors   kIo, kOutOfMemory (disk full), naming the path; find_pulled(): kNotFound with the command to
//          give, kInvalidArgument where the name fits several
// Source   huggingface.co/docs/huggingface_hub/guides/manage-cache
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/listing.h"
#include "hub/name.h"
#include "io/storage.h"

namespace penstock {

class HubCache {
 public:
  HubCache(Storage& storage, std::string folder) : storage_(&storage), folder_(std::move(folder)) {}

  Storage& storage() const { return *storage_; }
  const std::string& folder() const { return folder_; }
  std::string repo_folder(const HubName& name) const;
  std::string blob_path(const HubName& name, const std::string& hash) const;
  std::string snapshot_folder(const HubName& name, const std::string& commit) const;

  // Folders for blobs, references, snapshots and locks.
  Result<void> make_folders(const HubName& name) const;
  Result<std::unique_ptr<Storage::Lock>> lock_blob(const HubName& name,
                                                   const std::string& hash) const;
  Result<void> link(const HubName& name, const std::string& commit, const RepoFile& file) const;
  Result<void> set_reference(const HubName& name, const std::string& revision,
                             const std::string& commit) const;

  // The commit of a branch or tag, or the revision itself where it is a commit that is here.
  std::optional<std::string> commit_of(const HubName& name, const std::string& revision) const;

  std::vector<HubName> repos() const;  // by name
  std::vector<std::string> commits(const HubName& name) const;
  // (revision, commit)
  std::vector<std::pair<std::string, std::string>> references(const HubName& name) const;
  // Those whose bytes are here; `hash` is the blob that the link leads to.
  std::vector<RepoFile> files(const HubName& name, const std::string& commit) const;

 private:
  Storage* storage_;
  std::string folder_;
};

// What to open: a folder of safetensors, or the first GGUF file of a quantisation.
Result<std::string> find_pulled(const HubCache& cache, const HubName& name);

// The same in one commit, found whole.
Result<std::string> find_in_commit(const HubCache& cache, const HubName& name,
                                   const std::string& commit);

}  // namespace penstock
