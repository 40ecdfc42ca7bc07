#include "hub/pull.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/byte_text.h"
#include "hub/choice.h"
#include "hub/download.h"
#include "hub/repo_list.h"
#include "io/locks.h"

namespace penstock {
namespace {

using std::chrono::milliseconds;

class Pull {
 public:
  Pull(const HubCache& cache, HttpClient& client, const PullRequest& request,
       const PullEvents& events, const std::stop_token& stop)
      : cache_(cache), client_(client), request_(request), events_(events), stop_(stop) {
    subject_ = {request.name, request.revision, client.options().endpoint, client.sends_token()};
  }

  Result<PullReport> run();

 private:
  Result<void> choose();
  BlobRequest blob_request(const RepoFile& file) const;
  bool is_here(const RepoFile& file) const;
  Result<void> check_room() const;
  Result<void> get(const RepoFile& file);
  Result<std::unique_ptr<Storage::Lock>> wait_for_lock(const RepoFile& file);

  const HubCache& cache_;
  HttpClient& client_;
  const PullRequest& request_;
  const PullEvents& events_;
  const std::stop_token& stop_;
  HubSubject subject_;
  RepoListing listing_;
  std::vector<const RepoFile*> files_;
  PullReport report_;
  uint64_t bytes_done_ = 0;
};

Result<void> Pull::choose() {
  const std::string where = fmt::format("{} at {}", request_.name.repo_id(), subject_.endpoint);
  if (!request_.include.empty()) {
    files_ = PENSTOCK_TRY(included_files(listing_.files, request_.include, where));
    return {};
  }
  ModelChoice choice = PENSTOCK_TRY(choose_model(listing_.files, request_.name, where));
  report_.name.quant = choice.quant;
  files_ = std::move(choice.files);
  return {};
}

BlobRequest Pull::blob_request(const RepoFile& file) const {
  return {.file = file,
          .url = file_url(subject_, listing_.commit, file.name),
          .path = cache_.blob_path(request_.name, file.hash),
          .subject = subject_,
          .parallel = request_.parallel,
          .piece_bytes = request_.piece_bytes};
}

// Its name is its hash; one with another length was cut short by somebody.
bool Pull::is_here(const RepoFile& file) const {
  const Result<FileStat> stat = cache_.storage().stat(cache_.blob_path(request_.name, file.hash));
  return stat && stat->bytes == file.bytes;
}

Result<void> Pull::check_room() const {
  uint64_t needed = 0;
  std::set<std::string> counted;
  for (const RepoFile* file : files_) {
    if (is_here(*file) || !counted.insert(file->hash).second) continue;
    needed += file->bytes - room_taken(cache_.storage(), blob_request(*file));
  }
  if (needed == 0) return {};  // all is here: whoever makes something of it counts for himself
  const Storage& storage = cache_.storage();
  const std::string here = cache_.repo_folder(request_.name);
  const MadeOfIt& made = request_.made_of_it;
  const auto later = static_cast<uint64_t>(made.share * static_cast<double>(report_.bytes));
  const auto check = [&](const std::string& folder, uint64_t bytes,
                         const std::string& what) -> Result<void> {
    const uint64_t free = PENSTOCK_TRY(storage.free_bytes(folder));
    if (bytes <= free) return {};
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("{}: the disk is too small: {} needs {}, {} are free; make room, or "
                             "name another disk's folder with --cache",
                             folder, report_.name.text(), what, format_bytes(free))};
  };
  const std::string more = fmt::format("{} more", format_bytes(needed));
  if (later == 0) return check(cache_.folder(), needed, more);
  const std::string packed = fmt::format("at least {} to be packed", format_bytes(later));
  if (PENSTOCK_TRY(storage.stat(here)).device == PENSTOCK_TRY(storage.stat(made.folder)).device) {
    return check(cache_.folder(), needed + later, more + " and " + packed);
  }
  PENSTOCK_TRY(check(cache_.folder(), needed, more));
  return check(made.folder, later, packed);
}

Result<std::unique_ptr<Storage::Lock>> Pull::wait_for_lock(const RepoFile& file) {
  for (bool told = false;;) {
    Result<std::unique_ptr<Storage::Lock>> lock = cache_.lock_blob(request_.name, file.hash);
    const bool is_taken = !lock && is_locked_error(lock.error());
    if (!is_taken) return lock;
    if (!told) {
      events_.on_note(fmt::format("another program downloads {}; waiting for it", file.name));
      told = true;
    }
    PENSTOCK_TRY(client_.wait(stop_, milliseconds(200)));
  }
}

Result<void> Pull::get(const RepoFile& file) {
  if (!is_here(file)) {
    const std::unique_ptr<Storage::Lock> lock = PENSTOCK_TRY(wait_for_lock(file));
    if (is_here(file)) {
      report_.bytes_here += file.bytes;
    } else {
      const BlobRequest blob = blob_request(file);
      report_.bytes_here += resumable_bytes(cache_.storage(), blob);
      const DownloadEvents events{
          [&](uint64_t bytes) { events_.on_progress(bytes_done_ + bytes, report_.bytes); },
          events_.on_note};
      PENSTOCK_TRY(download_blob(cache_.storage(), client_, blob, events, stop_));
    }
  } else {
    report_.bytes_here += file.bytes;
  }
  bytes_done_ += file.bytes;
  events_.on_progress(bytes_done_, report_.bytes);
  return cache_.link(request_.name, listing_.commit, file);
}

Result<PullReport> Pull::run() {
  listing_ = PENSTOCK_TRY(list_repo(client_, subject_, events_.on_note, stop_));
  report_.name = request_.name;
  report_.commit = listing_.commit;
  report_.snapshot = cache_.snapshot_folder(request_.name, listing_.commit);
  PENSTOCK_TRY(choose());
  for (const RepoFile* file : files_) report_.bytes += file->bytes;
  report_.num_files = files_.size();
  PENSTOCK_TRY(cache_.make_folders(request_.name));
  PENSTOCK_TRY(check_room());
  for (const RepoFile* file : files_) PENSTOCK_TRY(get(*file));
  PENSTOCK_TRY(cache_.set_reference(request_.name, request_.revision, listing_.commit));
  const Result<std::string> model = find_in_commit(cache_, report_.name, listing_.commit);
  if (model) report_.model = *model;
  if (!model && request_.include.empty()) return model.error();
  return report_;
}

}  // namespace

Result<PullReport> pull_model(const HubCache& cache, const HubOptions& http,
                              const PullRequest& request, const PullEvents& events,
                              const std::stop_token& stop) {
  PENSTOCK_TRY(check_revision(request.revision));
  const std::unique_ptr<HttpClient> client = PENSTOCK_TRY(HttpClient::create(http));
  return Pull(cache, *client, request, events, stop).run();
}

Result<PullReport> pull_offline(const HubCache& cache, const PullRequest& request) {
  PENSTOCK_TRY(check_revision(request.revision));
  const auto commit = cache.commit_of(request.name, request.revision);
  if (!commit) {
    return Error{
        ErrorCode::kNotFound,
        fmt::format("{} in revision {} is not in {}, and --offline (HF_HUB_OFFLINE) forbids "
                    "to ask for it",
                    request.name.text(), request.revision, cache.folder())};
  }
  PullReport report;
  report.name = request.name;
  report.commit = *commit;
  report.snapshot = cache.snapshot_folder(request.name, *commit);
  report.model = PENSTOCK_TRY(find_in_commit(cache, request.name, *commit));
  const std::vector<RepoFile> files = cache.files(request.name, *commit);
  const ModelChoice choice = PENSTOCK_TRY(choose_model(files, request.name, report.snapshot));
  report.name.quant = choice.quant;
  report.num_files = choice.files.size();
  for (const RepoFile* file : choice.files) report.bytes += file->bytes;
  report.bytes_here = report.bytes;
  return report;
}

}  // namespace penstock
