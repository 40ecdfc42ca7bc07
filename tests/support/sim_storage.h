// A disk in memory, for tests: every call can fail, every byte can rot, the power can go.
//
// It behaves as the strictest real disk may: data survives a loss of power only when the file was
// synced, a name only when its directory was. What was written since is torn at 512-byte sectors;
// of the names changed since, a random number of the first changes survives. Files opened
// kReadDirect insist on aligned reads. Room is taken by what was written or reserved, and not by holes.
// Everything random comes from the seed.
//
//   SimStorage disk(seed);
//   disk.inject({.call = SimCall::kWrite, .after = 7, .error = ENOSPC});   // the 8th write fails
//   disk.inject({.after = 40, .times = kForEver, .error = EIO});           // power lost at call 41
//   ...
//   disk.crash();             // what survives; open files are dead, faults are gone
//
// Threads  Reads from any thread, as of StorageFile; one lock around all of it.
// Errors   As of Storage, with the injected errno.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <set>

#include "io/held_bytes.h"
#include "io/storage.h"
#include "support/extents.h"

namespace penstock {

enum class SimCall : uint8_t { kAny, kOpen, kRead, kWrite, kSync, kReserve, kRename, kRemove };

enum class SimEffect : uint8_t {
  kError,      // the call fails with `error`; nothing is done
  kShort,      // the read brings a random part of what was asked, at least one alignment
  kFlipBit,    // the read brings one wrong bit; what is stored stays right
  kMisdirect,  // the read comes from `by` bytes further on; its length is right
  kStall,      // the read waits until release_stalled()
};

inline constexpr uint64_t kForEver = UINT64_MAX;

struct SimFault {
  SimCall call = SimCall::kAny;
  uint64_t after = 0;  // this many matching calls go well first, counted from now
  uint64_t times = 1;  // then so many do not
  SimEffect effect = SimEffect::kError;
  int error = 5;               // EIO
  int64_t by = 0;              // of kMisdirect
  std::string path_part = {};  // only calls whose path contains it
};

class SimStorage final : public Storage, public HeldRoom {
 public:
  explicit SimStorage(uint64_t seed = 1, uint64_t capacity_bytes = UINT64_MAX);
  ~SimStorage() override;

  // Faults. Several may be active; the first that strikes wins.
  void inject(const SimFault& fault);
  void clear_faults();
  void release_stalled();
  uint64_t calls(SimCall call) const;  // so far, failed ones included; kAny: all
  uint64_t faults_struck() const;

  // The power goes and comes back.
  void crash();

  // Rot: one stored bit, for good. bit 0 is the lowest of the first byte.
  void flip_stored_bit(const std::string& path, uint64_t bit);
  // The file as stored becomes this long, also for those who have it open.
  void truncate(const std::string& path, uint64_t bytes);
  void set_capacity(uint64_t bytes);
  void set_direct_alignment(uint64_t alignment);  // 1: direct reads are refused; 4096 at first

  Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) override;
  Result<FileStat> stat(const std::string& path) const override;
  Result<bool> is_directory(const std::string& path) const override;
  Result<std::vector<std::string>> list(const std::string& directory) const override;
  Result<void> make_directory(const std::string& path) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> remove_tree(const std::string& path) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) const override;
  Result<uint64_t> held_bytes(const std::string& path) const override;
  Result<std::unique_ptr<Lock>> lock(const std::string& path) override;

 private:
  friend class SimFile;
  class SimLock;

  struct Write {
    uint64_t offset;
    std::vector<std::byte> bytes;
  };
  struct Node {  // a file or a directory; names are elsewhere
    bool is_directory = false;
    uint64_t inode = 0;
    int64_t modified_ns = 0;
    uint64_t reserved_bytes = 0;
    Extents held;
    std::vector<std::byte> bytes;         // as programs see it
    std::vector<std::byte> synced_bytes;  // as it is after a loss of power, at least
    std::vector<Write> unsynced;          // in order
  };
  using NodePtr = std::shared_ptr<Node>;  // shared: names and open files hold it, as in Unix
  using Names = std::map<std::string, NodePtr>;
  struct NameChange {  // one rename, creation or removal: happens as a whole or not at all
    std::vector<std::string> removed = {};
    std::vector<std::pair<std::string, NodePtr>> added = {};
  };

  // All below: with mutex_ held.
  const SimFault* strike(SimCall call, const std::string& path) const;
  Result<void> maybe_fail(SimCall call, const std::string& what, const std::string& path) const;
  NodePtr find(const std::string& path) const;
  Result<NodePtr> require(const std::string& what, const std::string& path) const;
  void change_names(NameChange change);
  NodePtr make_node(bool is_directory);
  uint64_t used_bytes() const;
  // Takes room for [begin, end) of a file; kOutOfMemory, and nothing taken, where there is too little.
  Result<void> take_room(const std::string& path, Node& node, uint64_t begin, uint64_t end) const;
  static void apply(const NameChange& change, Names& names);

  mutable std::mutex mutex_;
  mutable std::condition_variable stall_ended_;
  mutable std::mt19937_64 random_;
  mutable std::vector<SimFault> faults_;
  mutable std::map<SimCall, uint64_t> calls_;
  mutable uint64_t struck_ = 0;
  mutable uint64_t stall_round_ = 0;
  uint64_t capacity_bytes_;
  uint64_t direct_alignment_ = kDirectAlignmentMax;
  uint64_t nodes_made_ = 0;
  int64_t clock_ns_ = 0;
  uint64_t boots_ = 0;
  Names names_;
  Names synced_names_;
  std::vector<NameChange> unsynced_changes_;
  std::set<std::string> locks_;
};

}  // namespace penstock
