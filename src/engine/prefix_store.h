// Prefixes on disk: what earlier requests left behind, found again by their tokens, also after a
// restart.
//
// A prefix is a file of its recurrent state and its last page, and a file for each whole page of keys
// and values before it; prefixes that begin alike share these. Files are named by the tokens that they
// are about, below a folder for each model and arithmetic:
//
//   DIRECTORY/<identity>/<tokens>-<checksum of tokens>.state | .page
//   DIRECTORY/slots/<identity>/NAME         saved by name, and never removed to make room
//
// A file appears whole or not at all, is checked when it is read, and what is damaged is told, removed
// and computed anew. Failing to write is told and changes nothing else. So what an answer says
// does not depend on what lies here. When the files are too large together, those that were used
// longest ago go (in this run; before it, those that were written longest ago).
//
// Threads  the computing thread
// Memory   1 MiB to copy through, and about 200 bytes a file: planned with the engine
// Limits   bytes_max of files; files beyond kFilesMax are not known and stay
// Errors   open(): kIo when the folder cannot be made or listed. save(), load() tell on_trouble.
// See also engine/prefix_record.h (the files), engine/prefix_cache.h (the same in memory)
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/prefix_record.h"

namespace penstock {

struct PrefixStoreOptions {
  std::string directory;
  uint64_t bytes_max = 0;
  std::function<void(const std::string&)> on_trouble;  // one line, for a person
  Storage* storage = nullptr;                          // for tests: in place of the engine's
};

struct PrefixStoreFigures {
  uint64_t saved = 0, loaded = 0, damaged = 0, evicted = 0;  // files
  uint64_t written_bytes = 0, read_bytes = 0;
  uint64_t held_bytes = 0, held_files = 0;
  uint64_t loaded_tokens = 0;
};

class PrefixStore {
 public:
  static constexpr uint64_t kMemoryBytes = 24ull << 20;
  static constexpr size_t kFilesMax = 100'000;
  // Positions between places that are kept within a long prompt.
  static constexpr int64_t kTokensBetween = 2048;

  static Result<std::unique_ptr<PrefixStore>> open(Storage& storage, PrefixStoreOptions options,
                                                   const Hash128& identity);

  // The length of the longest prefix of `prompt` that is here: more than `above`, at most
  // `tokens_max`. 0: there is none.
  int64_t find(std::span<const TokenId> prompt, int64_t above, int64_t tokens_max);

  // A prefix that find() has found; there must be room in the memory. False: it was damaged, and the
  // state is empty.
  bool load(std::span<const TokenId> prefix, SequenceState& state);

  // Nothing where it is here already.
  void save(std::span<const TokenId> tokens, const SequenceState& state);

  // By name: letters, digits, ".", "-" and "_", not beginning with a dot.
  // Errors  kInvalidArgument for another name, then those of the files
  Result<uint64_t> save_named(const std::string& name, std::span<const TokenId> tokens,
                              const SequenceState& state);
  Result<std::vector<TokenId>> tokens_named(const std::string& name, int64_t tokens_max);
  Result<uint64_t> load_named(const std::string& name, std::span<const TokenId> tokens,
                              SequenceState& state);

  const PrefixStoreFigures& figures() const { return figures_; }

 private:
  struct File {
    std::string path;
    uint64_t bytes = 0;
  };
  using Files = std::list<File>;  // the one used last is the first

  PrefixStore(Storage& storage, PrefixStoreOptions options, const Hash128& identity);
  Result<void> read_folders();
  std::string path_of(const std::string& name) const;
  Result<std::string> path_named(const std::string& name) const;
  bool is_here(const std::string& path);  // and is used now
  void add(const std::string& path, uint64_t bytes);
  void remove(Files::iterator file);
  bool make_room(uint64_t bytes);
  Result<void> write(const std::string& path, const PrefixRecord& record,
                     const SequenceState& state);
  Result<void> read(const std::string& path, const PrefixRecord& record, SequenceState& state);
  void tell_once(const std::string& kind, const std::string& message);

  Storage& storage_;
  const PrefixStoreOptions options_;
  const Hash128 identity_;
  const std::string folder_;  // of this model
  Files files_;
  std::map<std::string, Files::iterator> by_path_;
  std::set<int64_t> lengths_;  // that some state here has, or had
  uint64_t named_bytes_ = 0;
  std::vector<float> staging_;
  std::set<std::string> told_;
  PrefixStoreFigures figures_;
};

}  // namespace penstock
