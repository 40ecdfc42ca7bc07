// The place where a model grows: TARGET.partial/ with its two big files, and TARGET.journal.
//
// The journal is also the lock against a second packer. Opening either continues what is there or
// starts over, and says which; nothing is deleted that a packer has not made. install() gives the
// finished directory its name.
//
// Errors  kInvalidArgument: the target exists. kIo: another packer is at work. kOutOfMemory: the
//         disk is too small.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"
#include "pack/journal.h"

namespace penstock {

struct WorkspaceOptions {
  std::string target;
  bool replace = false;  // an existing model at `target` may be replaced
  Hash128 key;           // what is being packed (derive_pack_key)
  uint64_t resident_bytes = 0;
  uint64_t experts_bytes = 0;
  uint64_t other_bytes = 0;  // the small files and the MTP block
  bool in_place = false;     // room comes free on the way: none is asked for or reserved here
};

class Workspace {
 public:
  // kInvalidArgument when there is something at `target` that may not be replaced.
  static Result<void> check_target(Storage& storage, const std::string& target, bool replace);

  static Result<Workspace> open(Storage& storage, const WorkspaceOptions& options);

  StorageFile& resident() { return *resident_; }
  StorageFile& experts() { return *experts_; }
  Journal& journal() { return journal_; }
  const std::string& directory() const { return directory_; }
  const std::string& note() const { return note_; }  // why it starts over; else empty

  // Makes all written bytes durable, then the journal's entries for them.
  Result<void> commit();

  // A small file of the model, durable on return. Its directory entry is made so by install().
  Result<void> write_file(std::string_view name, std::span<const std::byte> bytes);

  // Everything must be written. Gives the directory its name; a model that was there before is
  // moved to TARGET.old.
  Result<void> install();

  // After install(): removes the journal and the replaced model.
  Result<void> tidy();

 private:
  Workspace(Storage& storage, const WorkspaceOptions& options, Journal journal);

  static Result<Workspace> start_over(Storage& storage, const WorkspaceOptions& options);
  Result<void> open_files(OpenMode mode);

  Storage* storage_;
  WorkspaceOptions options_;
  std::string directory_;
  std::string note_;
  std::unique_ptr<Storage::Lock> lock_;
  Journal journal_;
  std::unique_ptr<StorageFile> resident_;
  std::unique_ptr<StorageFile> experts_;
  bool sync_failed_ = false;
};

// The folder that is there already and will hold the target, or folders on the way to it.
Result<std::string> place_for(const Storage& storage, const std::string& target);

std::string partial_path(const std::string& target);
std::string journal_path(const std::string& target);

// What a pack wants of a disk beside its pieces: journal, manifest, the file system's own needs.
inline constexpr uint64_t kSpareBytes = 16 << 20;

// Names of files that are copied from the source when it has them.
std::span<const std::string_view> copied_file_names();
inline constexpr std::string_view kMtpName = "mtp.safetensors";

}  // namespace penstock
