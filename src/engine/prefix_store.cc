#include "engine/prefix_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

namespace penstock {
namespace {

constexpr std::string_view kStateEnd = ".state";
constexpr std::string_view kPageEnd = ".page";
constexpr std::string_view kPartialEnd = ".partial";

std::string hex(const Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

bool is_hex(std::string_view text) {
  return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The tokens in the name of one of our files; nothing for a file that is somebody else's.
std::optional<int64_t> tokens_in(std::string_view name) {
  if (name.ends_with(kStateEnd)) {
    name.remove_suffix(kStateEnd.size());
  } else if (name.ends_with(kPageEnd)) {
    name.remove_suffix(kPageEnd.size());
  } else {
    return std::nullopt;
  }
  const size_t dash = name.find('-');
  if (dash == std::string_view::npos || !is_hex(name.substr(dash + 1))) return std::nullopt;
  int64_t tokens = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + dash, tokens);
  if (failure != std::errc{} || end != name.data() + dash || tokens < 1) return std::nullopt;
  return tokens;
}

// Pages that are whole, whatever comes behind the prefix.
int64_t whole_pages(int64_t length) {
  return (length - 1) / kKvPagePositions;
}

std::string page_name(int64_t page, const Hash128& key) {
  return fmt::format("{}-{}{}", (page + 1) * kKvPagePositions, hex(key), kPageEnd);
}

std::string state_name(int64_t length, const Hash128& key) {
  return fmt::format("{}-{}{}", length, hex(key), kStateEnd);
}

// With the names of the three folders above: --kv-dir's parent was there before.
Result<void> make_durable_directory(Storage& storage, const std::string& path) {
  PENSTOCK_TRY(storage.make_directory(path));
  std::filesystem::path above = std::filesystem::path(path).parent_path();
  for (int i = 0; i < 3 && !above.empty(); ++i, above = above.parent_path()) {
    PENSTOCK_TRY(storage.sync_directory(above));
    if (above == above.parent_path()) break;
  }
  return {};
}

// Checksums of the beginnings of a prompt, in rising order, in one pass over it.
class Beginnings {
 public:
  explicit Beginnings(std::span<const TokenId> prompt) : prompt_(prompt) {}
  Hash128 of(int64_t length) {
    sum_.update(std::as_bytes(
        prompt_.subspan(static_cast<size_t>(done_), static_cast<size_t>(length - done_))));
    done_ = length;
    return sum_.value();
  }

 private:
  std::span<const TokenId> prompt_;
  RunningChecksum sum_;
  int64_t done_ = 0;
};

}  // namespace

PrefixStore::PrefixStore(Storage& storage, PrefixStoreOptions options, const Hash128& identity)
    : storage_(storage),
      options_(std::move(options)),
      identity_(identity),
      folder_(options_.directory + "/" + hex(identity)),
      staging_(static_cast<size_t>(SequenceMemory::kPieceFloatsMax)) {}

Result<std::unique_ptr<PrefixStore>> PrefixStore::open(Storage& storage, PrefixStoreOptions options,
                                                       const Hash128& identity) {
  std::unique_ptr<PrefixStore> store(new PrefixStore(storage, std::move(options), identity));
  PENSTOCK_TRY(make_durable_directory(storage, store->folder_));
  PENSTOCK_TRY(store->read_folders());
  return store;
}

// All models' files count, and are known by the time when they were written.
Result<void> PrefixStore::read_folders() {
  struct Found {
    int64_t modified_ns;
    File file;
  };
  std::vector<Found> found;
  for (const std::string& folder : PENSTOCK_TRY(storage_.list(options_.directory))) {
    if (!is_hex(folder)) continue;
    const std::string path = options_.directory + "/" + folder;
    const auto names = storage_.list(path);
    if (!names) continue;  // somebody else's, or gone
    for (const std::string& name : *names) {
      const auto tokens = tokens_in(name);
      if (name.ends_with(kPartialEnd) &&
          tokens_in(std::string_view(name).substr(0, name.size() - kPartialEnd.size()))) {
        // Left behind by a run that was killed, unless its writer is alive and holds the lock.
        const auto lock = storage_.lock(path + "/" + name);
        if (lock) static_cast<void>(storage_.remove(path + "/" + name).has_value());
      }
      if (!tokens || found.size() >= kFilesMax) continue;
      const auto stat = storage_.stat(path + "/" + name);
      if (!stat) continue;
      if (path == folder_ && name.ends_with(kStateEnd)) lengths_.insert(*tokens);
      found.push_back({stat->modified_ns, {path + "/" + name, stat->bytes}});
    }
  }
  std::ranges::stable_sort(found, {}, &Found::modified_ns);
  for (const Found& each : found) add(each.file.path, each.file.bytes);
  make_room(0);
  const std::string named = options_.directory + "/slots/" + hex(identity_);
  if (const auto names = storage_.list(named)) {
    for (const std::string& name : *names) {
      if (const auto stat = storage_.stat(named + "/" + name)) named_bytes_ += stat->bytes;
    }
  }
  return {};
}

std::string PrefixStore::path_of(const std::string& name) const {
  return folder_ + "/" + name;
}

bool PrefixStore::is_here(const std::string& path) {
  const auto known = by_path_.find(path);
  if (known == by_path_.end()) return false;
  files_.splice(files_.begin(), files_, known->second);
  return true;
}

void PrefixStore::add(const std::string& path, uint64_t bytes) {
  files_.push_front({path, bytes});
  by_path_[path] = files_.begin();
  figures_.held_bytes += bytes;
  figures_.held_files = files_.size();
}

void PrefixStore::remove(Files::iterator file) {
  static_cast<void>(storage_.remove(file->path).has_value());  // who was faster is welcome
  figures_.held_bytes -= file->bytes;
  by_path_.erase(file->path);
  files_.erase(file);
  figures_.held_files = files_.size();
}

bool PrefixStore::make_room(uint64_t bytes) {
  const uint64_t taken = named_bytes_ + bytes;
  if (taken > options_.bytes_max) return false;
  while (!files_.empty() && figures_.held_bytes + taken > options_.bytes_max) {
    remove(std::prev(files_.end()));
    ++figures_.evicted;
  }
  return true;
}

void PrefixStore::tell_once(const std::string& kind, const std::string& message) {
  if (told_.insert(kind).second && options_.on_trouble) options_.on_trouble(message);
}

int64_t PrefixStore::find(std::span<const TokenId> prompt, int64_t above, int64_t tokens_max) {
  tokens_max = std::min<int64_t>(tokens_max, std::ssize(prompt));
  Beginnings beginnings(prompt);
  int64_t pages = 0;  // of the prompt's beginning, one after the other, that are here
  int64_t best = 0;
  auto length = lengths_.begin();
  for (int64_t next_page = kKvPagePositions;;) {
    const int64_t next_state = length == lengths_.end() ? tokens_max + 1 : *length;
    const int64_t at = std::min(next_state, next_page);
    if (at > tokens_max || next_state > tokens_max) break;
    const Hash128 key = beginnings.of(at);
    if (at == next_state) {
      const std::string path = path_of(state_name(at, key));
      if (at > above && pages >= whole_pages(at) && by_path_.contains(path)) best = at;
      ++length;
    }
    if (at == next_page) {
      const std::string path = path_of(page_name(at / kKvPagePositions - 1, key));
      if (pages + 1 == at / kKvPagePositions && by_path_.contains(path)) ++pages;
      next_page += kKvPagePositions;
    }
  }
  return best;
}

Result<void> PrefixStore::read(const std::string& path, const PrefixRecord& record,
                               SequenceState& state) {
  PENSTOCK_TRY(read_record(storage_, path, record, state, staging_));
  figures_.read_bytes += record_bytes(record, state);
  ++figures_.loaded;
  is_here(path);
  return {};
}

bool PrefixStore::load(std::span<const TokenId> prefix, SequenceState& state) {
  const auto length = std::ssize(prefix);
  const int64_t whole = whole_pages(length);
  state.take(length);
  Beginnings beginnings(prefix);
  for (int64_t page = 0; page <= whole; ++page) {
    const bool is_last = page == whole;
    const int64_t end = is_last ? length : (page + 1) * kKvPagePositions;
    const Hash128 key = beginnings.of(end);
    const std::string path = path_of(is_last ? state_name(length, key) : page_name(page, key));
    const PrefixRecord record{identity_, prefix.first(static_cast<size_t>(end)), page, page + 1,
                              is_last};
    const Result<void> done = read(path, record, state);
    if (done) continue;
    state.reset();
    const auto known = by_path_.find(path);
    if (known != by_path_.end()) remove(known->second);
    if (done.error().code == ErrorCode::kNotFound) return false;  // another program was faster
    ++figures_.damaged;
    if (options_.on_trouble) {
      options_.on_trouble(fmt::format("{}; it is removed, and its part of the prompt read again",
                                      done.error().message));
    }
    return false;
  }
  figures_.loaded_tokens += static_cast<uint64_t>(length);
  return true;
}

Result<void> PrefixStore::write(const std::string& path, const PrefixRecord& record,
                                const SequenceState& state) {
  if (is_here(path) || files_.size() >= kFilesMax) return {};
  const uint64_t bytes = record_bytes(record, state);
  if (!make_room(bytes)) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("{}: {} bytes are more than --kv-disk-max has room for", path, bytes)};
  }
  PENSTOCK_TRY(write_record(storage_, path, record, state, staging_));
  add(path, bytes);
  ++figures_.saved;
  figures_.written_bytes += bytes;
  return {};
}

void PrefixStore::save(std::span<const TokenId> tokens, const SequenceState& state) {
  const auto length = std::ssize(tokens);
  PENSTOCK_CHECK(length == state.length());
  if (length == 0) return;
  const int64_t whole = whole_pages(length);
  Beginnings beginnings(tokens);
  for (int64_t page = 0; page <= whole; ++page) {
    const bool is_last = page == whole;
    const int64_t end = is_last ? length : (page + 1) * kKvPagePositions;
    const Hash128 key = beginnings.of(end);
    const std::string path = path_of(is_last ? state_name(length, key) : page_name(page, key));
    const PrefixRecord record{identity_, tokens.first(static_cast<size_t>(end)), page, page + 1,
                              is_last};
    const Result<void> done = write(path, record, state);
    if (done) continue;
    tell_once("write", "--kv-dir: " + done.error().message + "; prefixes are not kept on disk");
    return;
  }
  lengths_.insert(length);
}

Result<std::string> PrefixStore::path_named(const std::string& name) const {
  const bool is_plain = !name.empty() && name.size() <= 128 && name[0] != '.' &&
                        !name.ends_with(kPartialEnd) && std::ranges::all_of(name, [](char c) {
                          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                 (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
                        });
  if (!is_plain) {
    return Error{ErrorCode::kInvalidArgument,
                 "a name of letters, digits, \".\", \"-\" and \"_\" is expected, without folders"};
  }
  return options_.directory + "/slots/" + hex(identity_) + "/" + name;
}

Result<uint64_t> PrefixStore::save_named(const std::string& name, std::span<const TokenId> tokens,
                                         const SequenceState& state) {
  const std::string path = PENSTOCK_TRY(path_named(name));
  if (tokens.empty()) return Error{ErrorCode::kInvalidArgument, "the slot holds nothing"};
  const PrefixRecord record{identity_, tokens, 0, std::ssize(state.pages()), true};
  const auto before = storage_.stat(path);
  const uint64_t freed = before ? before->bytes : 0;
  const uint64_t bytes = record_bytes(record, state);
  if (!make_room(bytes)) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("{} bytes are more than --kv-disk-max has room for", bytes)};
  }
  PENSTOCK_TRY(make_durable_directory(storage_, options_.directory + "/slots/" + hex(identity_)));
  PENSTOCK_TRY(write_record(storage_, path, record, state, staging_));
  named_bytes_ += bytes - std::min(freed, named_bytes_);
  figures_.written_bytes += bytes;
  return bytes;
}

Result<std::vector<TokenId>> PrefixStore::tokens_named(const std::string& name,
                                                       int64_t tokens_max) {
  const std::string path = PENSTOCK_TRY(path_named(name));
  return read_record_tokens(storage_, path, identity_, tokens_max);
}

Result<uint64_t> PrefixStore::load_named(const std::string& name, std::span<const TokenId> tokens,
                                         SequenceState& state) {
  const std::string path = PENSTOCK_TRY(path_named(name));
  state.take(std::ssize(tokens));
  const PrefixRecord record{identity_, tokens, 0, std::ssize(state.pages()), true};
  const Result<void> done = read_record(storage_, path, record, state, staging_);
  if (!done) {
    state.reset();
    return done.error();
  }
  const uint64_t bytes = record_bytes(record, state);
  figures_.read_bytes += bytes;
  return bytes;
}

}  // namespace penstock
