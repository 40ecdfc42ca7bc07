#include "support/sim_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "io/locks.h"
#include "io/paths.h"
#include "io/system_error.h"

namespace penstock {
namespace {

constexpr uint64_t kSectorBytes = 512;

bool is_root(const std::string& path) {
  return path == "/" || path == "." || path.empty();
}

bool is_below(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
         path[directory.size()] == '/';
}

}  // namespace

class SimFile final : public StorageFile {
 public:
  SimFile(SimStorage* disk, std::string path, SimStorage::NodePtr node, uint64_t alignment)
      : disk_(disk),
        path_(std::move(path)),
        node_(std::move(node)),
        alignment_(alignment),
        boot_(disk->boots_) {}

  const std::string& path() const override { return path_; }
  uint64_t alignment() const override { return alignment_; }
  int descriptor() const override { return -1; }
  void drop_cached(uint64_t, uint64_t) const override {}

  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    std::unique_lock lock(disk_->mutex_);
    const SimFault* struck = disk_->strike(SimCall::kRead, path_);
    const SimFault fault = struck != nullptr ? *struck : SimFault{};
    const bool is_struck = struck != nullptr;
    if (is_struck && fault.effect == SimEffect::kError) return -fault.error;
    if (is_struck && fault.effect == SimEffect::kStall) {
      const uint64_t round = disk_->stall_round_;
      disk_->stall_ended_.wait(lock, [&] { return disk_->stall_round_ != round; });
    }
    if (boot_ != disk_->boots_) return -EIO;
    const auto address = reinterpret_cast<uintptr_t>(target.data());
    if (offset % alignment_ != 0 || target.size() % alignment_ != 0 || address % alignment_ != 0) {
      return -EINVAL;
    }
    if (is_struck && fault.effect == SimEffect::kMisdirect) {
      offset += static_cast<uint64_t>(fault.by);
    }
    const auto& bytes = node_->bytes;
    if (offset >= bytes.size()) return 0;
    uint64_t count = std::min<uint64_t>(target.size(), bytes.size() - offset);
    if (is_struck && fault.effect == SimEffect::kShort && count > alignment_) {
      count = (1 + disk_->random_() % (count / alignment_)) * alignment_;
    }
    std::memcpy(target.data(), bytes.data() + offset, count);
    if (is_struck && fault.effect == SimEffect::kFlipBit && count > 0) {
      const uint64_t bit = disk_->random_() % (count * 8);
      target[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    }
    return static_cast<int64_t>(count);
  }

  Result<void> write(uint64_t offset, std::span<const std::byte> source) override {
    const std::lock_guard lock(disk_->mutex_);
    PENSTOCK_TRY(begin(SimCall::kWrite, "write"));
    const uint64_t end = offset + source.size();
    PENSTOCK_TRY(disk_->take_room(path_, *node_, offset, end));
    if (node_->bytes.size() < end) node_->bytes.resize(end);
    if (!source.empty()) std::memcpy(node_->bytes.data() + offset, source.data(), source.size());
    node_->unsynced.push_back({offset, {source.begin(), source.end()}});
    node_->modified_ns = ++disk_->clock_ns_;
    return {};
  }

  Result<void> reserve(uint64_t bytes) override {
    const std::lock_guard lock(disk_->mutex_);
    PENSTOCK_TRY(begin(SimCall::kReserve, "reserve"));
    PENSTOCK_TRY(disk_->take_room(path_, *node_, 0, bytes));
    node_->reserved_bytes = std::max(node_->reserved_bytes, bytes);
    return {};
  }

  Result<void> sync() override {
    const std::lock_guard lock(disk_->mutex_);
    PENSTOCK_TRY(begin(SimCall::kSync, "sync"));
    node_->synced_bytes = node_->bytes;
    node_->unsynced.clear();
    return {};
  }

  Result<FileStat> stat() const override {
    const std::lock_guard lock(disk_->mutex_);
    if (boot_ != disk_->boots_) return system_error("stat", path_, EIO);
    return FileStat{.bytes = node_->bytes.size(),
                    .device = 1,
                    .inode = node_->inode,
                    .modified_ns = node_->modified_ns};
  }

 private:
  Result<void> begin(SimCall call, const char* what) {
    if (boot_ != disk_->boots_) return system_error(what, path_, EIO);
    return disk_->maybe_fail(call, what, path_);
  }

  SimStorage* disk_;
  std::string path_;
  SimStorage::NodePtr node_;
  uint64_t alignment_;
  uint64_t boot_;  // a file opened before the power went is dead
};

class SimStorage::SimLock final : public Storage::Lock {
 public:
  SimLock(SimStorage* disk, std::string path) : disk_(disk), path_(std::move(path)) {}
  ~SimLock() override {
    const std::lock_guard lock(disk_->mutex_);
    disk_->locks_.erase(path_);
  }

 private:
  SimStorage* disk_;
  std::string path_;
};

SimStorage::SimStorage(uint64_t seed, uint64_t capacity_bytes)
    : random_(seed), capacity_bytes_(capacity_bytes) {}
SimStorage::~SimStorage() {
  release_stalled();
}

void SimStorage::inject(const SimFault& fault) {
  const std::lock_guard lock(mutex_);
  faults_.push_back(fault);
}

void SimStorage::clear_faults() {
  const std::lock_guard lock(mutex_);
  faults_.clear();
}

void SimStorage::release_stalled() {
  const std::lock_guard lock(mutex_);
  ++stall_round_;
  stall_ended_.notify_all();
}

uint64_t SimStorage::calls(SimCall call) const {
  const std::lock_guard lock(mutex_);
  const auto found = calls_.find(call);
  return found == calls_.end() ? 0 : found->second;
}

uint64_t SimStorage::faults_struck() const {
  const std::lock_guard lock(mutex_);
  return struck_;
}

// Counts the call against every fault that matches it; one that has run down strikes.
const SimFault* SimStorage::strike(SimCall call, const std::string& path) const {
  ++calls_[SimCall::kAny];
  ++calls_[call];
  const SimFault* striking = nullptr;
  for (SimFault& fault : faults_) {
    const bool matches = (fault.call == SimCall::kAny || fault.call == call) &&
                         path.find(fault.path_part) != std::string::npos;
    if (!matches) continue;
    if (fault.after > 0) {
      --fault.after;
    } else if (fault.times > 0) {
      if (fault.times != kForEver) --fault.times;
      if (striking == nullptr) striking = &fault;
    }
  }
  if (striking != nullptr) ++struck_;
  return striking;
}

Result<void> SimStorage::maybe_fail(SimCall call, const std::string& what,
                                    const std::string& path) const {
  const SimFault* fault = strike(call, path);
  if (fault != nullptr && fault->effect == SimEffect::kError) {
    return system_error(what, path, fault->error);
  }
  return {};
}

void SimStorage::crash() {
  const std::lock_guard lock(mutex_);
  ++boots_;
  faults_.clear();
  locks_.clear();
  const size_t survivors = random_() % (unsynced_changes_.size() + 1);
  for (size_t i = 0; i < survivors; ++i) apply(unsynced_changes_[i], synced_names_);
  unsynced_changes_.clear();

  // A name whose directory is gone cannot be reached. Directories sort before what they hold.
  for (auto entry = synced_names_.begin(); entry != synced_names_.end();) {
    const std::string parent = parent_of(entry->first);
    const bool is_reachable = is_root(parent) || synced_names_.count(parent) > 0;
    entry = is_reachable ? std::next(entry) : synced_names_.erase(entry);
  }
  names_ = synced_names_;
  for (auto& [path, node] : names_) {
    node->bytes = node->synced_bytes;
    for (const Write& write : node->unsynced) {
      for (uint64_t at = 0; at < write.bytes.size();) {
        const uint64_t sector_end =
            (write.offset + at) / kSectorBytes * kSectorBytes + kSectorBytes;
        const uint64_t count = std::min(write.bytes.size() - at, sector_end - (write.offset + at));
        if (random_() % 2 == 0) {
          const uint64_t end = write.offset + at + count;
          if (node->bytes.size() < end) node->bytes.resize(end);
          std::memcpy(node->bytes.data() + write.offset + at, write.bytes.data() + at, count);
        }
        at += count;
      }
    }
    node->unsynced.clear();
    node->synced_bytes = node->bytes;
    node->held.cut(std::max<uint64_t>(node->bytes.size(), node->reserved_bytes));
  }
}

void SimStorage::flip_stored_bit(const std::string& path, uint64_t bit) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  PENSTOCK_CHECK(node != nullptr && bit / 8 < node->bytes.size());
  node->bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
}

void SimStorage::truncate(const std::string& path, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  PENSTOCK_CHECK(node != nullptr);
  node->bytes.resize(bytes);
  node->held.cut(bytes);
  node->modified_ns = ++clock_ns_;
}

void SimStorage::set_capacity(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  capacity_bytes_ = bytes;
}

void SimStorage::set_direct_alignment(uint64_t alignment) {
  const std::lock_guard lock(mutex_);
  direct_alignment_ = alignment;
}

SimStorage::NodePtr SimStorage::find(const std::string& path) const {
  const auto found = names_.find(path);
  return found == names_.end() ? nullptr : found->second;
}

Result<SimStorage::NodePtr> SimStorage::require(const std::string& what,
                                                const std::string& path) const {
  NodePtr node = find(path);
  if (node == nullptr) return system_error(what, path, ENOENT);
  return node;
}

SimStorage::NodePtr SimStorage::make_node(bool is_directory) {
  auto node = std::make_shared<Node>();
  node->is_directory = is_directory;
  node->inode = ++nodes_made_;
  node->modified_ns = ++clock_ns_;
  return node;
}

void SimStorage::apply(const NameChange& change, Names& names) {
  for (const std::string& path : change.removed) names.erase(path);
  for (const auto& [path, node] : change.added) names[path] = node;
}

void SimStorage::change_names(NameChange change) {
  apply(change, names_);
  unsynced_changes_.push_back(std::move(change));
}

uint64_t SimStorage::used_bytes() const {
  uint64_t used = 0;
  for (const auto& [path, node] : names_) used += node->held.bytes();
  return used;
}

Result<void> SimStorage::take_room(const std::string& path, Node& node, uint64_t begin,
                                   uint64_t end) const {
  const uint64_t missing = node.held.missing(begin, end);
  const uint64_t used = used_bytes();
  const uint64_t free = capacity_bytes_ > used ? capacity_bytes_ - used : 0;
  if (missing <= free) {
    node.held.add(begin, end);
    return {};
  }
  return Error{ErrorCode::kOutOfMemory,
               fmt::format("{}: the disk is too small: needs {} more bytes, {} are free", path,
                           missing, free)};
}

Result<std::unique_ptr<StorageFile>> SimStorage::open(const std::string& path, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kOpen, "open", path));
  NodePtr node = find(path);
  if (node != nullptr && node->is_directory) {
    return Error{ErrorCode::kIo, fmt::format("open {}: not a regular file", path)};
  }
  if (mode == OpenMode::kCreate) {
    const std::string parent = parent_of(path);
    if (!is_root(parent)) PENSTOCK_TRY(require("open", parent));
    if (node == nullptr) {
      node = make_node(false);
      change_names({.added = {{path, node}}});
    } else {
      node->bytes.clear();
      node->reserved_bytes = 0;
      node->held = {};
    }
  }
  if (node == nullptr) return system_error("open", path, ENOENT);
  const uint64_t alignment = mode == OpenMode::kReadDirect ? direct_alignment_ : 1;
  return std::unique_ptr<StorageFile>(std::make_unique<SimFile>(this, path, node, alignment));
}

Result<FileStat> SimStorage::stat(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  if (is_root(path)) return FileStat{.device = 1};
  const NodePtr node = PENSTOCK_TRY(require("stat", path));
  return FileStat{.bytes = node->bytes.size(),
                  .device = 1,
                  .inode = node->inode,
                  .modified_ns = node->modified_ns};
}

Result<bool> SimStorage::is_directory(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  return is_root(path) || (node != nullptr && node->is_directory);
}

Result<std::vector<std::string>> SimStorage::list(const std::string& directory) const {
  const std::lock_guard lock(mutex_);
  if (!is_root(directory)) PENSTOCK_TRY(require("list", directory));
  std::vector<std::string> names;
  for (const auto& [path, node] : names_) {
    const std::string parent = parent_of(path);
    if (parent == directory || (is_root(parent) && is_root(directory))) {
      names.push_back(path.substr(path.rfind('/') + 1));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> SimStorage::make_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (is_root(path)) return {};
  std::vector<std::string> missing;
  for (std::string at = path; !is_root(at); at = parent_of(at)) {
    const NodePtr node = find(at);
    if (node != nullptr && !node->is_directory) return system_error("make directory", at, ENOTDIR);
    if (node == nullptr) missing.push_back(at);
  }
  for (auto at = missing.rbegin(); at != missing.rend(); ++at) {
    change_names({.added = {{*at, make_node(true)}}});
  }
  return {};
}

Result<void> SimStorage::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kRename, "rename to " + to + " of", from));
  const NodePtr moved = PENSTOCK_TRY(require("rename to " + to + " of", from));
  NameChange change;
  if (moved->is_directory) {
    for (const auto& [path, node] : names_) {
      if (is_below(path, to)) return system_error("rename to " + to + " of", from, ENOTEMPTY);
      if (!is_below(path, from)) continue;
      change.removed.push_back(path);
      change.added.emplace_back(to + path.substr(from.size()), node);
    }
  }
  change.removed.push_back(from);
  change.added.emplace_back(to, moved);
  change_names(std::move(change));
  return {};
}

Result<void> SimStorage::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kRemove, "remove", path));
  PENSTOCK_TRY(require("remove", path));
  for (const auto& [other, node] : names_) {
    if (is_below(other, path)) return system_error("remove", path, ENOTEMPTY);
  }
  change_names({.removed = {path}});
  return {};
}

Result<void> SimStorage::remove_tree(const std::string& path) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kRemove, "remove", path));
  std::vector<std::string> doomed;
  for (const auto& [other, node] : names_) {
    if (other == path || is_below(other, path)) doomed.push_back(other);
  }
  for (const std::string& other : doomed) change_names({.removed = {other}});
  return {};
}

// Makes durable what changed in this directory; changes elsewhere stay as uncertain as they were.
Result<void> SimStorage::sync_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kSync, "sync", path));
  if (!is_root(path)) PENSTOCK_TRY(require("sync", path));
  const auto is_here = [&](const std::string& name) {
    const std::string parent = parent_of(name);
    return parent == path || (is_root(parent) && is_root(path));
  };
  std::vector<NameChange> left;
  for (NameChange& change : unsynced_changes_) {
    const bool touches = std::any_of(change.removed.begin(), change.removed.end(), is_here) ||
                         std::any_of(change.added.begin(), change.added.end(),
                                     [&](const auto& entry) { return is_here(entry.first); });
    if (touches) {
      apply(change, synced_names_);
    } else {
      left.push_back(std::move(change));
    }
  }
  unsynced_changes_ = std::move(left);
  return {};
}

Result<uint64_t> SimStorage::free_bytes(const std::string&) const {
  const std::lock_guard lock(mutex_);
  const uint64_t used = used_bytes();
  return capacity_bytes_ > used ? capacity_bytes_ - used : 0;
}

Result<uint64_t> SimStorage::held_bytes(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  return PENSTOCK_TRY(require("stat", path))->held.bytes();
}

Result<std::unique_ptr<Storage::Lock>> SimStorage::lock(const std::string& path) {
  const std::lock_guard lock(mutex_);
  PENSTOCK_TRY(maybe_fail(SimCall::kOpen, "open", path));
  if (!locks_.insert(path).second) return locked_error(path);
  if (find(path) == nullptr) change_names({.added = {{path, make_node(false)}}});
  return std::unique_ptr<Lock>(std::make_unique<SimLock>(this, path));
}

}  // namespace penstock
