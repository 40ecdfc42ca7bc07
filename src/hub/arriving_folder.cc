#include "hub/arriving_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/json.h"
#include "format/text.h"
#include "hub/choice.h"
#include "hub/repo_list.h"
#include "io/output_file.h"
#include "io/paths.h"

namespace penstock {
namespace {

constexpr size_t kNoteBytesMax = 64 << 10;
constexpr std::string_view kNoteName = "from.json", kSamplesName = "samples.bin",
                           kLockName = "lock";
// Headers are asked for in such steps, or in such a part of a piece where that is less.
constexpr uint64_t kHeaderStepBytes = 1 << 20, kStepsPerPiece = 16;

std::string base_name(const std::string& name) {
  return name.substr(name.rfind('/') + 1);
}

// The same for a file whenever it is looked at, here or not.
uint64_t content_number(const std::string& hash) {
  uint64_t number = 0;
  std::from_chars(hash.data(), hash.data() + std::min<size_t>(16, hash.size()), number, 16);
  return number;
}

std::string text_of(const Json& note, const char* key) {
  const Json* value = json_find(note, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

// Of FOLDER/from.json.
struct Note {
  std::string commit;
  std::string options, model;  // empty: none was noted yet
};

// Of an earlier call; nothing: there was none.
Result<std::optional<Note>> read_note(Storage& real, const ArrivingRequest& request) {
  const std::string& folder = request.folder;
  if (!PENSTOCK_TRY(exists(real, folder))) return std::optional<Note>();
  const std::string path = folder + "/" + std::string(kNoteName);
  if (!PENSTOCK_TRY(exists(real, path))) {
    for (const std::string& name : PENSTOCK_TRY(real.list(folder))) {
      if (name == kLockName || name.starts_with(kNoteName)) continue;
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} is in the way and holds {}, which no pull has put there; move "
                               "it away, or give another TARGET",
                               folder, name)};
    }
    return std::optional<Note>();
  }
  const std::string told = PENSTOCK_TRY(read_text(real, path, kNoteBytesMax));
  const Json note = PENSTOCK_TRY(parse_json(told, path));
  const std::string commit = text_of(note, "commit");
  const bool is_same = text_of(note, "repo") == request.name.repo_id() &&
                       text_of(note, "asked") == request.name.quant &&
                       text_of(note, "revision") == request.revision && is_commit(commit);
  if (is_same) {
    return std::optional<Note>(Note{commit, text_of(note, "options"), text_of(note, "model")});
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} holds an unfinished pull of {} in revision {}; go on with that one, "
                           "or remove {} to give it up",
                           folder, text_of(note, "repo"), text_of(note, "revision"), folder)};
}

}  // namespace

// A file of weights, here or not.
struct ArrivingFolder::Shard {
  RepoFile file;
  std::string path;
  FileStat stat;
  std::unique_ptr<StorageFile> here;                  // null: not here
  std::map<uint64_t, std::vector<std::byte>> ranges;  // by offset; none overlap

  // The range that holds a byte; end(): none.
  auto holding(uint64_t offset) const {
    auto range = ranges.upper_bound(offset);
    if (range == ranges.begin()) return ranges.end();
    --range;
    return offset < range->first + range->second.size() ? range : ranges.end();
  }

  // What of a range is not known.
  std::vector<ByteRange> missing(const ByteRange& range) const {
    std::vector<ByteRange> parts;
    for (uint64_t at = range.offset; at < range.end();) {
      if (const auto known = holding(at); known != ranges.end()) {
        at = known->first + known->second.size();
        continue;
      }
      const auto next = ranges.upper_bound(at);
      const uint64_t end = next == ranges.end() ? range.end() : std::min(range.end(), next->first);
      parts.push_back({at, end - at});
      at = end;
    }
    return parts;
  }
};

class ArrivingFolder::Reading final : public StorageFile {
 public:
  Reading(ArrivingFolder& folder, std::shared_ptr<Shard> shard)
      : folder_(folder), shard_(std::move(shard)) {}

  const std::string& path() const override { return shard_->path; }
  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    if (shard_->here != nullptr) return shard_->here->try_read(offset, target);
    return folder_.read_range(*shard_, offset, target);
  }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return read_only(); }
  Result<void> reserve(uint64_t) override { return read_only(); }
  Result<void> sync() override { return read_only(); }
  Result<FileStat> stat() const override { return shard_->stat; }
  void drop_cached(uint64_t offset, uint64_t bytes) const override {
    if (shard_->here != nullptr) shard_->here->drop_cached(offset, bytes);
  }
  uint64_t alignment() const override { return 1; }
  int descriptor() const override { return -1; }

 private:
  Error read_only() const {
    return {ErrorCode::kIo, fmt::format("{}: of a hub, and not written to", path())};
  }

  ArrivingFolder& folder_;
  std::shared_ptr<Shard> shard_;
};

ArrivingFolder::ArrivingFolder(Storage& real, ArrivingRequest request, ArrivingEvents events,
                               std::stop_token stop)
    : real_(real),
      request_(std::move(request)),
      events_(std::move(events)),
      stop_(std::move(stop)) {}
ArrivingFolder::~ArrivingFolder() = default;

bool ArrivingFolder::has_made(Storage& real, const ArrivingRequest& request, uint64_t model_id) {
  const auto note = read_note(real, request);
  return note && *note && (*note)->options == request.options &&
         (*note)->model == hex_text(model_id);
}

Result<std::unique_ptr<Storage::Lock>> ArrivingFolder::hold(Storage& real,
                                                            const std::string& folder) {
  return real.lock(folder + "/" + std::string(kLockName));
}

Result<void> ArrivingFolder::remove_all(Storage& real, const std::string& folder) {
  // What says whose it is goes last.
  for (const std::string& name : PENSTOCK_TRY(real.list(folder))) {
    if (name == kNoteName || name == kLockName) continue;
    const Result<void> removed = real.remove(folder + "/" + name);
    if (!removed && removed.error().code != ErrorCode::kNotFound) return removed.error();
  }
  PENSTOCK_TRY(real.remove_tree(folder));
  return real.sync_directory(parent_of(folder));
}

Result<std::unique_ptr<ArrivingFolder>> ArrivingFolder::open(Storage& real, const HubOptions& http,
                                                             const ArrivingRequest& request,
                                                             ArrivingEvents events,
                                                             std::stop_token stop) {
  PENSTOCK_TRY(check_revision(request.revision));
  std::unique_ptr<ArrivingFolder> made(
      new ArrivingFolder(real, request, std::move(events), std::move(stop)));
  PENSTOCK_TRY(made->begin(http));
  return made;
}

HubSubject ArrivingFolder::subject() const {
  return {request_.name, request_.revision, client_->options().endpoint, client_->sends_token()};
}

Result<void> ArrivingFolder::begin(const HubOptions& http) {
  PENSTOCK_TRY(read_note(real_, request_));  // what is of another call is left as it is
  client_ = PENSTOCK_TRY(HttpClient::create(http));
  reader_.emplace(*client_, subject(), request_.parallel, events_.on_note);
  asked_quant_ = request_.name.quant;
  PENSTOCK_TRY(real_.make_directory(request_.folder));
  lock_ = PENSTOCK_TRY(hold(real_, request_.folder));
  const Result<void> chosen = choose();
  if (!chosen) {
    // Nothing was begun: then nothing is left behind.
    const bool is_begun = real_.stat(request_.folder + "/" + std::string(kNoteName)).has_value();
    if (!is_begun) static_cast<void>(remove_all(real_, request_.folder).has_value());
    return chosen;
  }
  return open_samples();
}

Result<void> ArrivingFolder::choose() {
  // Read by who holds the lock, as another call may have begun meanwhile.
  const std::optional<Note> begun = PENSTOCK_TRY(read_note(real_, request_));
  HubSubject asked = subject();
  if (begun) asked.revision = begun->commit;
  const RepoListing listing = PENSTOCK_TRY(list_repo(*client_, asked, events_.on_note, stop_));
  commit_ = listing.commit;
  const std::string where = fmt::format("{} at {}", asked.name.repo_id(), asked.endpoint);
  const ModelChoice choice = PENSTOCK_TRY(choose_model(listing.files, request_.name, where));
  if (begun) {
    made_options_ = begun->options;
    made_model_ = begun->model;
  } else {
    PENSTOCK_TRY(write_note());
  }
  request_.name.quant = choice.quant;
  device_ = PENSTOCK_TRY(real_.stat(request_.folder)).device;
  num_files_ = choice.files.size();
  for (const RepoFile* file : choice.files) bytes_ += file->bytes;
  PENSTOCK_TRY(get_texts(choice.files));
  const bool is_folder = choice.quant.empty();
  model_ =
      is_folder ? request_.folder : request_.folder + "/" + base_name(choice.files.front()->name);
  return {};
}

Result<void> ArrivingFolder::write_note() {
  const std::string note = to_text(Json{{"repo", request_.name.repo_id()},
                                        {"asked", asked_quant_},
                                        {"revision", request_.revision},
                                        {"commit", commit_},
                                        {"options", made_options_},
                                        {"model", made_model_}});
  return write_output(real_, request_.folder + "/" + std::string(kNoteName),
                      std::as_bytes(std::span(note)));
}

Result<void> ArrivingFolder::note_model(uint64_t model_id) {
  const std::string model = hex_text(model_id);
  if (made_model_ == model && made_options_ == request_.options) return {};
  made_model_ = model;
  made_options_ = request_.options;
  return write_note();
}

std::string ArrivingFolder::samples_path() const {
  return request_.folder + "/" + std::string(kSamplesName);
}

Result<void> ArrivingFolder::open_samples() {
  std::map<uint64_t, Shard*> by_number;
  for (const auto& [path, shard] : shards_) {
    if (shard->here == nullptr) by_number[shard->stat.inode] = shard.get();
  }
  const auto take = [&](const KeptRange& kept) {
    const auto found = by_number.find(kept.file);
    if (found == by_number.end() || kept.bytes.empty()) return;
    Shard& shard = *found->second;
    const bool fits = kept.bytes.size() <= shard.file.bytes &&
                      kept.offset <= shard.file.bytes - kept.bytes.size();
    if (!fits) return;
    const ByteRange range{kept.offset, kept.bytes.size()};
    if (shard.missing(range) != std::vector{range}) return;
    shard.ranges.emplace(kept.offset, std::vector<std::byte>(kept.bytes.begin(), kept.bytes.end()));
  };
  samples_ = PENSTOCK_TRY(KeptRanges::open(real_, samples_path(), commit_, take));
  return {};
}

Result<void> ArrivingFolder::get_texts(const std::vector<const RepoFile*>& files) {
  for (const RepoFile* file : files) {
    const BlobRequest blob = blob_request(*file);
    const Result<FileStat> here = real_.stat(blob.path);
    const bool is_here = here && here->bytes == file->bytes;
    if (!is_weights(file->name)) {
      if (!is_here) PENSTOCK_TRY(download(*file));
      continue;
    }
    auto shard = std::make_shared<Shard>();
    shard->file = *file;
    shard->path = blob.path;
    shard->stat = {.bytes = file->bytes,
                   .device = device_,
                   .inode = content_number(file->hash),
                   .modified_ns = 1};
    if (is_here) shard->here = PENSTOCK_TRY(real_.open(blob.path, OpenMode::kRead));
    shards_[blob.path] = std::move(shard);
  }
  return {};
}

BlobRequest ArrivingFolder::blob_request(const RepoFile& file) const {
  return {.file = file,
          .url = file_url(subject(), commit_, file.name),
          .path = request_.folder + "/" + base_name(file.name),
          .subject = subject(),
          .parallel = request_.parallel,
          .piece_bytes = request_.piece_bytes};
}

Result<void> ArrivingFolder::download(const RepoFile& file) {
  const BlobRequest blob = blob_request(file);
  const uint64_t before = resumable_bytes(real_, blob);
  const std::string name = base_name(file.name);
  const DownloadEvents events{[&](uint64_t bytes) { events_.on_bytes(name, bytes, file.bytes); },
                              events_.on_note};
  PENSTOCK_TRY(download_blob(real_, *client_, blob, events, stop_));
  downloaded_bytes_ += file.bytes - std::min(before, file.bytes);
  return {};
}

Result<void> ArrivingFolder::bring(const std::string& path) {
  asks_for_ranges_ = false;
  const auto found = shards_.find(path);
  if (found == shards_.end() || found->second->here != nullptr) return {};
  Shard& shard = *found->second;
  PENSTOCK_TRY(download(shard.file));
  shard.here = PENSTOCK_TRY(real_.open(path, OpenMode::kRead));
  return compare_with_ranges(shard);
}

// They came without a hash of their own.
Result<void> ArrivingFolder::compare_with_ranges(Shard& shard) {
  for (const auto& [offset, told] : shard.ranges) {
    std::vector<std::byte> bytes(told.size());
    PENSTOCK_TRY(read_exactly(*shard.here, offset, bytes));
    if (bytes == told) continue;
    samples_.reset();
    PENSTOCK_TRY(real_.remove(samples_path()));
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: {} first told other bytes at {} than the file has, whose hash is "
                             "right; give the same command again, it begins anew",
                             shard.file.name, client_->options().endpoint, offset)};
  }
  return {};
}

uint64_t ArrivingFolder::bytes_here(const std::string& path) const {
  const Shard* shard = find(path);
  if (shard == nullptr) return 0;
  return shard->here != nullptr ? shard->file.bytes : room_taken(real_, blob_request(shard->file));
}

int64_t ArrivingFolder::read_range(Shard& shard, uint64_t offset, std::span<std::byte> target) {
  const std::lock_guard hold_reads(mutex_);
  if (offset >= shard.file.bytes || target.empty()) return 0;
  auto range = shard.holding(offset);
  if (range == shard.ranges.end()) {
    if (!asks_for_ranges_ || failure_) return -EIO;
    // What is read from the front on is a header, and comes in steps.
    const bool goes_on = offset == 0 || shard.holding(offset - 1) != shard.ranges.end();
    const uint64_t step =
        goes_on ? std::min(kHeaderStepBytes, request_.piece_bytes / kStepsPerPiece) : 0;
    const uint64_t bytes =
        std::min(std::max<uint64_t>(step, target.size()), shard.file.bytes - offset);
    const ArrivingRange wanted{shard.path, offset, bytes};
    const Result<void> fetched = fetch(std::span(&wanted, 1));
    if (!fetched) {
      failure_ = fetched.error();
      return -EIO;
    }
    range = shard.holding(offset);
  }
  const uint64_t at = offset - range->first;
  const uint64_t count = std::min<uint64_t>(range->second.size() - at, target.size());
  std::memcpy(target.data(), range->second.data() + at, count);
  return static_cast<int64_t>(count);
}

Result<void> ArrivingFolder::expect(std::span<const ArrivingRange> ranges) {
  const std::lock_guard hold_reads(mutex_);
  return fetch(ranges);
}

Result<void> ArrivingFolder::fetch(std::span<const ArrivingRange> ranges) {
  std::map<std::string, std::vector<ByteRange>> wanted;  // by path
  for (const ArrivingRange& range : ranges) {
    const Shard* shard = find(range.path);
    if (shard == nullptr || shard->here != nullptr || range.offset >= shard->file.bytes) continue;
    const uint64_t bytes = std::min(range.bytes, shard->file.bytes - range.offset);
    wanted[range.path].push_back({range.offset, bytes});
  }
  // What a read brings: these, and what lies between them.
  struct Part {
    Shard* shard;
    std::vector<ByteRange> ranges;
  };
  std::vector<Part> parts;
  std::vector<RangeRead> reads;
  for (auto& [path, asked] : wanted) {
    Shard& shard = *shards_.at(path);
    std::vector<ByteRange> missing;
    for (const ByteRange& range : merged(std::move(asked))) {
      std::ranges::copy(shard.missing(range), std::back_inserter(missing));
    }
    for (std::span<const ByteRange> rest = missing; !rest.empty();) {
      const auto joined = rest.first(num_joined(rest));
      rest = rest.subspan(joined.size());
      const uint64_t begin = joined.front().offset;
      parts.push_back({&shard, {joined.begin(), joined.end()}});
      reads.push_back({.url = file_url(subject(), commit_, shard.file.name),
                       .file_name = shard.file.name,
                       .file_bytes = shard.file.bytes,
                       .range = {begin, joined.back().end() - begin}});
    }
  }
  const auto take = [&](size_t index, std::span<const std::byte> bytes) {
    downloaded_bytes_ += bytes.size();
    return keep(*parts[index].shard, parts[index].ranges, reads[index].range.offset, bytes);
  };
  return reader_->read(reads, take, stop_);
}

// `bytes`: of the file from `begin` on.
Result<void> ArrivingFolder::keep(Shard& shard, std::span<const ByteRange> ranges, uint64_t begin,
                                  std::span<const std::byte> bytes) {
  std::vector<KeptRange> kept;
  for (const ByteRange& range : ranges) {
    const auto part = bytes.subspan(range.offset - begin, range.bytes);
    kept.push_back({shard.stat.inode, range.offset, part});
    shard.ranges.emplace(range.offset, std::vector<std::byte>(part.begin(), part.end()));
  }
  return samples_ ? samples_->add(kept) : Result<void>();
}

const ArrivingFolder::Shard* ArrivingFolder::find(const std::string& path) const {
  const auto found = shards_.find(path);
  return found == shards_.end() ? nullptr : found->second.get();
}

Result<std::unique_ptr<StorageFile>> ArrivingFolder::open(const std::string& path, OpenMode mode) {
  const auto found = shards_.find(path);
  if (found == shards_.end()) return real_.open(path, mode);
  return std::unique_ptr<StorageFile>(std::make_unique<Reading>(*this, found->second));
}

Result<FileStat> ArrivingFolder::stat(const std::string& path) const {
  if (const Shard* shard = find(path)) return shard->stat;
  return real_.stat(path);
}

Result<uint64_t> ArrivingFolder::held_bytes(const std::string& path) const {
  if (find(path) != nullptr) return bytes_here(path);
  return penstock::held_bytes(real_, path);
}

Result<bool> ArrivingFolder::is_directory(const std::string& path) const {
  if (find(path) != nullptr) return false;
  return real_.is_directory(path);
}

Result<std::vector<std::string>> ArrivingFolder::list(const std::string& directory) const {
  std::vector<std::string> names = PENSTOCK_TRY(real_.list(directory));
  if (directory != request_.folder) return names;
  std::erase_if(names, [](const std::string& name) {
    return name == kLockName || name == kSamplesName || name.starts_with(kNoteName) ||
           name.find(".ranges") != std::string::npos;
  });
  for (const auto& [path, shard] : shards_) {
    if (shard->here == nullptr) names.push_back(base_name(path));
  }
  std::ranges::sort(names);
  return names;
}

Result<void> ArrivingFolder::remove(const std::string& path) {
  const auto found = shards_.find(path);
  if (found == shards_.end()) return real_.remove(path);
  if (found->second->here == nullptr) return {};
  found->second->here.reset();
  return real_.remove(path);
}

Result<std::unique_ptr<Storage::Lock>> ArrivingFolder::lock(const std::string& path) {
  // The folder's own holds for all of it, and the file may not be here.
  if (find(path) != nullptr) return std::make_unique<Lock>();
  return real_.lock(path);
}

Result<void> ArrivingFolder::make_directory(const std::string& path) {
  return real_.make_directory(path);
}
Result<void> ArrivingFolder::rename(const std::string& from, const std::string& to) {
  return real_.rename(from, to);
}
Result<void> ArrivingFolder::remove_tree(const std::string& path) {
  return real_.remove_tree(path);
}
Result<void> ArrivingFolder::sync_directory(const std::string& path) {
  return real_.sync_directory(path);
}
Result<uint64_t> ArrivingFolder::free_bytes(const std::string& path) const {
  return real_.free_bytes(path);
}

}  // namespace penstock
