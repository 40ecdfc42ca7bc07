#include "hub/download.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <optional>
#include <vector>

#include "hub/hash_follower.h"
#include "hub/range_journal.h"
#include "io/held_bytes.h"

namespace penstock {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kJournalEvery = milliseconds(1000);
constexpr auto kStep = milliseconds(100);
constexpr int kRestartsMax = 3;
constexpr uint64_t kProgressBytes = 1 << 20;

std::string ranges_path(const BlobRequest& request) {
  return request.path + ".ranges";
}

std::string journal_path(const BlobRequest& request) {
  return ranges_path(request) + ".journal";
}

// What the journal says and the file is long enough for.
PieceMap known_pieces(Storage& storage, const BlobRequest& request) {
  const PieceMap nothing = PieceMap::of(request.file.bytes, request.piece_bytes);
  const Result<FileStat> file = storage.stat(ranges_path(request));
  if (!file) return nothing;
  const Result<std::string> text = read_text(storage, journal_path(request), kJournalBytesMax);
  if (!text) return nothing;
  PieceMap map = parse_journal(*text, request.file.bytes, request.piece_bytes);
  for (size_t piece = 0; piece < map.done.size(); ++piece) {
    if (map.end(piece) > file->bytes) map.done[piece] = false;
  }
  return map;
}

class BlobDownload {
 public:
  BlobDownload(Storage& storage, HttpClient& client, const BlobRequest& request,
               const DownloadEvents& events)
      : storage_(storage),
        client_(client),
        request_(request),
        events_(events),
        retries_(request.subject, events.on_note) {}
  ~BlobDownload() { drop_slots(); }
  BlobDownload(const BlobDownload&) = delete;
  BlobDownload& operator=(const BlobDownload&) = delete;

  Result<void> run(const std::stop_token& stop);

 private:
  // One transfer and the piece that it fills; of a whole answer, all pieces from the first.
  struct Slot final : HttpSink {
    Slot(BlobDownload& download, size_t piece_index)
        : owner(download), piece(piece_index), generation(download.generation_) {}
    Result<void> on_head(const ResponseHead& head, const std::string& url) override {
      return owner.take_head(*this, head, url);
    }
    Result<void> on_body(std::span<const std::byte> bytes) override {
      return owner.take_body(*this, bytes);
    }

    BlobDownload& owner;
    size_t piece;
    int generation;
    int transfer = 0;
    uint64_t at = 0, end = 0;
    bool is_whole = false;
  };

  Result<void> open();
  Result<void> start_anew(const std::string& etag);
  void start_slots();
  void start_slot(size_t piece, uint64_t at);
  void drop_slots();
  Result<void> take_head(Slot& slot, const ResponseHead& head, const std::string& url);
  Result<void> take_body(Slot& slot, std::span<const std::byte> bytes);
  void mark_pieces(const Slot& slot);
  Result<void> take_done(const HttpDone& done);
  Result<void> keep_journal(bool now);
  Result<void> check_and_name(const std::stop_token& stop);
  Error wrong_length(const std::string& told) const;

  Storage& storage_;
  HttpClient& client_;
  const BlobRequest& request_;
  const DownloadEvents& events_;
  Retries retries_;

  std::unique_ptr<StorageFile> file_;
  PieceMap map_;
  std::optional<RangeJournal> journal_;
  std::unique_ptr<HashFollower> follower_;
  std::vector<size_t> unwritten_;  // finished pieces that the journal does not know
  steady_clock::time_point journal_time_;

  std::list<Slot> slots_;
  std::vector<uint64_t> reached_;  // where in its piece an interrupted transfer goes on
  std::string url_;                // after redirects; empty: to be asked for
  bool knows_ranges_ = false;      // an answer of 206 came
  int generation_ = 0, restarts_ = 0;
  uint64_t progress_bytes_ = 0;  // since the last that retries_ heard of
  size_t front_ = 0;             // pieces below it are done
};

Error BlobDownload::wrong_length(const std::string& told) const {
  return {
      ErrorCode::kCorrupt,
      fmt::format(
          "{}: {} tells {} where the list of files has {} bytes; a mirror or proxy that is out of "
          "date? pull it again later",
          request_.file.name, request_.subject.endpoint, told, request_.file.bytes)};
}

Result<void> BlobDownload::open() {
  map_ = known_pieces(storage_, request_);
  const bool resumes = map_.bytes_done() > 0;
  file_ = PENSTOCK_TRY(
      storage_.open(ranges_path(request_), resumes ? OpenMode::kWrite : OpenMode::kCreate));
  PENSTOCK_TRY(file_->reserve(request_.file.bytes));
  journal_ = PENSTOCK_TRY(RangeJournal::create(storage_, journal_path(request_), map_));
  reached_.assign(map_.done.size(), 0);
  const auto kind = request_.file.is_large ? BlobHash::Kind::kSha256 : BlobHash::Kind::kGitBlob;
  follower_ = PENSTOCK_TRY(HashFollower::start(*file_, kind, request_.file.bytes));
  front_ = 0;
  return {};
}

// The pieces that are there are of another content than what comes now, or nobody knows.
Result<void> BlobDownload::start_anew(const std::string& etag) {
  if (!map_.etag.empty() && map_.etag != etag && ++restarts_ > kRestartsMax) {
    return Error{ErrorCode::kIo,
                 fmt::format("{}: its ETag changes while it is downloaded, more than {} times",
                             request_.file.name, kRestartsMax)};
  }
  ++generation_;
  follower_.reset();
  unwritten_.clear();
  map_ = PieceMap::of(request_.file.bytes, request_.piece_bytes);
  map_.etag = etag;
  journal_ = PENSTOCK_TRY(RangeJournal::create(storage_, journal_path(request_), map_));
  reached_.assign(map_.done.size(), 0);
  const auto kind = request_.file.is_large ? BlobHash::Kind::kSha256 : BlobHash::Kind::kGitBlob;
  follower_ = PENSTOCK_TRY(HashFollower::start(*file_, kind, request_.file.bytes));
  front_ = 0;
  return {};
}

void BlobDownload::drop_slots() {
  for (const Slot& slot : slots_) client_.cancel(slot.transfer);
  slots_.clear();
}

void BlobDownload::start_slot(size_t piece, uint64_t at) {
  Slot& slot = slots_.emplace_back(*this, piece);
  slot.at = map_.begin(piece) + at;
  slot.end = map_.end(piece);
  // The whole of a small file is asked for as such: there are servers that know no ranges.
  const bool is_all = slot.at == 0 && slot.end == map_.bytes;
  slot.transfer = client_.start(
      {.url = url_.empty() ? request_.url : url_,
       .range = is_all ? "" : fmt::format("{}-{}", slot.at, slot.end - 1),
       .if_range = map_.etag.empty() || is_all || map_.etag.starts_with("W/") ? "" : map_.etag,
       .sink = &slot});
}

void BlobDownload::start_slots() {
  if (!retries_.may_start()) return;
  // The first answer tells whether there are ranges, and where the file really is.
  const size_t most = knows_ranges_ ? request_.parallel : 1;
  const auto is_at_work = [&](size_t piece) {
    return std::ranges::any_of(slots_, [&](const Slot& slot) { return slot.piece == piece; });
  };
  for (size_t piece = front_; piece < map_.done.size() && slots_.size() < most; ++piece) {
    if (!map_.done[piece] && !is_at_work(piece)) start_slot(piece, reached_[piece]);
  }
}

Result<void> BlobDownload::take_head(Slot& slot, const ResponseHead& head, const std::string& url) {
  if (slot.generation != generation_) return Error{ErrorCode::kCancelled, "out of date"};
  if (head.status == 206) {
    const auto& range = head.content_range;
    if (!range || range->first != slot.at || range->last + 1 != slot.end) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: the answer from {} is not the range that was asked for",
                               request_.file.name, url.substr(0, url.find('?')))};
    }
    if (range->total && *range->total != map_.bytes) {
      return wrong_length(fmt::format("{} bytes", *range->total));
    }
    if (!map_.etag.empty() && !head.etag.empty() && head.etag != map_.etag) {
      PENSTOCK_TRY(start_anew(head.etag));
      return Error{ErrorCode::kCancelled, "out of date"};
    }
    if (map_.etag.empty() && !head.etag.empty()) {
      map_.etag = head.etag;
      journal_ = PENSTOCK_TRY(RangeJournal::create(storage_, journal_path(request_), map_));
    }
    knows_ranges_ = true;
    url_ = url;
    return {};
  }
  if (head.content_length && *head.content_length != map_.bytes) {
    return wrong_length(fmt::format("{} bytes", *head.content_length));
  }
  // All of it, from the first byte on: no ranges here, or another content than before.
  const bool is_first = map_.bytes_done() == 0 && slot.at == 0 && slots_.size() == 1;
  if (!is_first || head.etag != map_.etag) PENSTOCK_TRY(start_anew(head.etag));
  slot.generation = generation_;
  slot.is_whole = true;
  slot.piece = 0;
  slot.at = 0;
  slot.end = map_.bytes;
  knows_ranges_ = false;
  return {};
}

Result<void> BlobDownload::take_body(Slot& slot, std::span<const std::byte> bytes) {
  if (slot.generation != generation_) return Error{ErrorCode::kCancelled, "out of date"};
  if (bytes.size() > slot.end - slot.at) {
    return wrong_length(fmt::format("more than {} bytes", slot.end));
  }
  PENSTOCK_TRY(file_->write(slot.at, bytes));
  slot.at += bytes.size();
  mark_pieces(slot);
  // Where there are ranges, what came stays; otherwise a broken connection takes it all away.
  progress_bytes_ += knows_ranges_ ? bytes.size() : 0;
  if (progress_bytes_ >= kProgressBytes) {
    retries_.made_progress();
    progress_bytes_ = 0;
  }
  return {};
}

void BlobDownload::mark_pieces(const Slot& slot) {
  size_t piece = slot.is_whole ? front_ : slot.piece;
  for (; piece < map_.done.size() && map_.end(piece) <= slot.at && !map_.done[piece]; ++piece) {
    map_.done[piece] = true;
    unwritten_.push_back(piece);
    if (!slot.is_whole) break;
  }
  while (front_ < map_.done.size() && map_.done[front_]) ++front_;
  const size_t last = slot.is_whole ? front_ : slot.piece;
  if (last < map_.done.size()) reached_[last] = slot.at - map_.begin(last);
}

Result<void> BlobDownload::take_done(const HttpDone& done) {
  const auto slot = std::ranges::find(slots_, done.id, &Slot::transfer);
  if (slot == slots_.end()) return {};
  const bool is_current = slot->generation == generation_;
  const bool is_full = slot->at == slot->end;
  const bool out_of_date = done.refusal && done.refusal->code == ErrorCode::kCancelled;
  slots_.erase(slot);
  if (!is_current || out_of_date || (done.is_good() && is_full)) return {};
  url_.clear();  // an address that was signed for some time may be out of date
  HttpDone failed = done;
  if (done.is_good()) failed.failure = "the answer ended too early";
  return retries_.failed(failed, request_.file.name);
}

Result<void> BlobDownload::keep_journal(bool now) {
  if (unwritten_.empty()) return {};
  if (!now && steady_clock::now() - journal_time_ < kJournalEvery) return {};
  PENSTOCK_TRY(file_->sync());
  PENSTOCK_TRY(journal_->add(unwritten_));
  unwritten_.clear();
  journal_time_ = steady_clock::now();
  return {};
}

Result<void> BlobDownload::check_and_name(const std::stop_token& stop) {
  while (!follower_->is_finished()) {
    PENSTOCK_TRY(client_.wait(stop, milliseconds(20)));
  }
  const std::string hash = PENSTOCK_TRY(follower_->finish());
  if (hash != request_.file.hash) {
    PENSTOCK_TRY(storage_.remove(ranges_path(request_)));
    PENSTOCK_TRY(storage_.remove(journal_path(request_)));
    return Error{
        ErrorCode::kCorrupt,
        fmt::format("{}: what came from {} has the {} {} and not {}, as {} lists it; nothing "
                    "of it was kept, pull it again",
                    request_.file.name, request_.subject.endpoint,
                    request_.file.is_large ? "SHA-256" : "git hash", hash, request_.file.hash,
                    request_.subject.name.repo_id())};
  }
  PENSTOCK_TRY(file_->sync());
  PENSTOCK_TRY(storage_.rename(ranges_path(request_), request_.path));
  PENSTOCK_TRY(storage_.sync_directory(request_.path.substr(0, request_.path.find_last_of('/'))));
  return storage_.remove(journal_path(request_));
}

Result<void> BlobDownload::run(const std::stop_token& stop) {
  PENSTOCK_TRY(open());
  journal_time_ = steady_clock::now();
  while (front_ < map_.done.size() || !slots_.empty()) {
    start_slots();
    const Result<std::vector<HttpDone>> ended = client_.wait(stop, kStep);
    if (!ended) {
      // What stopped it is told, not what is found wrong while tidying up.
      static_cast<void>(keep_journal(true).has_value());
      return ended.error();
    }
    for (const HttpDone& done : *ended) {
      const Result<void> taken = take_done(done);
      if (!taken) {
        drop_slots();
        static_cast<void>(keep_journal(true).has_value());
        return taken.error();
      }
    }
    while (front_ < map_.done.size() && map_.done[front_]) ++front_;
    follower_->advance(std::min(map_.bytes, map_.begin(front_)));
    PENSTOCK_TRY(keep_journal(false));
    uint64_t there = map_.bytes_done();
    for (const Slot& slot : slots_) {
      if (!slot.is_whole) there += slot.at - map_.begin(slot.piece);
    }
    events_.on_bytes(std::min(there, map_.bytes));
  }
  PENSTOCK_TRY(keep_journal(true));
  return check_and_name(stop);
}

}  // namespace

uint64_t resumable_bytes(Storage& storage, const BlobRequest& request) {
  return known_pieces(storage, request).bytes_done();
}

uint64_t room_taken(Storage& storage, const BlobRequest& request) {
  const Result<uint64_t> held = held_bytes(storage, ranges_path(request));
  const uint64_t used = resumable_bytes(storage, request);  // a disk may not tell, or compress
  return std::min(request.file.bytes, std::max(used, held ? *held : 0));
}

Result<void> download_blob(Storage& storage, HttpClient& client, const BlobRequest& request,
                           const DownloadEvents& events, const std::stop_token& stop) {
  return BlobDownload(storage, client, request, events).run(stop);
}

}  // namespace penstock
