#include "hub/cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/json.h"
#include "hub/choice.h"
#include "hub/links.h"
#include "io/output_file.h"
#include "io/paths.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReferenceBytesMax = 4096;
constexpr uint64_t kIndexBytesMax = 64 << 20;
constexpr size_t kFilesMax = 1'000'000;
constexpr std::string_view kPrefix = "models--";

// Files and links below `folder`, as paths relative to it, by name. Folders that are links are not
// entered. What cannot be read is left out.
std::vector<std::string> names_below(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  while (!error && entry != fs::recursive_directory_iterator() && names.size() < kFilesMax) {
    if (entry->is_symlink(error) || entry->is_regular_file(error)) {
      names.push_back(entry->path().lexically_relative(folder).string());
    }
    entry.increment(error);
  }
  std::ranges::sort(names);
  return names;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) {
    text.pop_back();
  }
  return text;
}

std::string pull_command(const HubName& name) {
  return fmt::format("`penstock pull {}`", name.text());
}

// The shards that an index names and the folder lacks; empty: none, or there is no index.
Result<std::string> missing_shards(const HubCache& cache, const std::string& folder) {
  const std::string path = folder + "/model.safetensors.index.json";
  if (!cache.storage().stat(path)) return std::string();
  const std::string text = PENSTOCK_TRY(read_text(cache.storage(), path, kIndexBytesMax));
  const Json index = PENSTOCK_TRY(parse_json(text, path));
  const Json* map = json_find(index, "weight_map");
  std::set<std::string> missing;
  if (map == nullptr || !map->is_object()) return std::string();
  std::set<std::string> named;
  for (const auto& [tensor, shard] : map->items()) {
    if (shard.is_string()) named.insert(shard.get<std::string>());
  }
  std::string out;
  for (const std::string& shard : named) {
    const bool here = check_repo_file_name(shard) && cache.storage().stat(folder + "/" + shard);
    if (!here) out += (out.empty() ? "" : ", ") + shard;
  }
  return out;
}

}  // namespace

std::string HubCache::repo_folder(const HubName& name) const {
  return fmt::format("{}/{}{}--{}", folder_, kPrefix, name.user, name.repo);
}

std::string HubCache::blob_path(const HubName& name, const std::string& hash) const {
  return repo_folder(name) + "/blobs/" + hash;
}

std::string HubCache::snapshot_folder(const HubName& name, const std::string& commit) const {
  return repo_folder(name) + "/snapshots/" + commit;
}

Result<void> HubCache::make_folders(const HubName& name) const {
  const std::string repo = repo_folder(name);
  for (const char* part : {"/blobs", "/refs", "/snapshots"}) {
    PENSTOCK_TRY(storage_->make_directory(repo + part));
  }
  return storage_->make_directory(
      fmt::format("{}/.locks/{}{}--{}", folder_, kPrefix, name.user, name.repo));
}

Result<std::unique_ptr<Storage::Lock>> HubCache::lock_blob(const HubName& name,
                                                           const std::string& hash) const {
  return storage_->lock(
      fmt::format("{}/.locks/{}{}--{}/{}.lock", folder_, kPrefix, name.user, name.repo, hash));
}

Result<void> HubCache::link(const HubName& name, const std::string& commit,
                            const RepoFile& file) const {
  PENSTOCK_TRY(check_repo_file_name(file.name));
  const std::string path = snapshot_folder(name, commit) + "/" + file.name;
  PENSTOCK_TRY(storage_->make_directory(parent_of(path)));
  std::string up = "../../";
  for (const char c : file.name) up += c == '/' ? "../" : "";
  PENSTOCK_TRY(make_link(up + "blobs/" + file.hash, path));
  return storage_->sync_directory(parent_of(path));
}

Result<void> HubCache::set_reference(const HubName& name, const std::string& revision,
                                     const std::string& commit) const {
  PENSTOCK_TRY(check_revision(revision));
  if (revision == commit) return {};
  const std::string path = repo_folder(name) + "/refs/" + revision;
  PENSTOCK_TRY(storage_->make_directory(parent_of(path)));
  return write_output(*storage_, path, std::as_bytes(std::span(commit)));
}

std::optional<std::string> HubCache::commit_of(const HubName& name,
                                               const std::string& revision) const {
  if (!check_revision(revision)) return {};
  if (is_commit(revision) && is_there(snapshot_folder(name, revision))) return revision;
  const Result<std::string> text =
      read_text(*storage_, repo_folder(name) + "/refs/" + revision, kReferenceBytesMax);
  if (!text || !is_commit(trimmed(*text))) return {};
  return trimmed(*text);
}

std::vector<HubName> HubCache::repos() const {
  std::vector<HubName> names;
  const Result<std::vector<std::string>> entries = storage_->list(folder_);
  if (!entries) return names;
  for (const std::string& entry : *entries) {
    const size_t cut = entry.find("--", kPrefix.size());
    if (!entry.starts_with(kPrefix) || cut == entry.npos) continue;
    const Result<HubName> name = parse_hub_name(entry.substr(kPrefix.size(), cut - kPrefix.size()) +
                                                "/" + entry.substr(cut + 2));
    if (name) names.push_back(*name);
  }
  return names;
}

std::vector<std::string> HubCache::commits(const HubName& name) const {
  const Result<std::vector<std::string>> entries = storage_->list(repo_folder(name) + "/snapshots");
  std::vector<std::string> commits;
  if (!entries) return commits;
  std::ranges::copy_if(*entries, std::back_inserter(commits), is_commit);
  return commits;
}

std::vector<std::pair<std::string, std::string>> HubCache::references(const HubName& name) const {
  std::vector<std::pair<std::string, std::string>> found;
  for (const std::string& revision : names_below(repo_folder(name) + "/refs")) {
    const auto commit = commit_of(name, revision);
    if (commit) found.emplace_back(revision, *commit);
  }
  return found;
}

std::vector<RepoFile> HubCache::files(const HubName& name, const std::string& commit) const {
  std::vector<RepoFile> files;
  const std::string folder = snapshot_folder(name, commit);
  for (const std::string& file : names_below(folder)) {
    const std::string path = folder + "/" + file;
    const Result<FileStat> stat = storage_->stat(path);
    if (!stat || !check_repo_file_name(file)) continue;  // a link that leads to nothing
    const std::string target = read_link(path).value_or("");
    files.push_back({file, stat->bytes, target.substr(target.find_last_of('/') + 1), false});
  }
  return files;
}

Result<std::string> find_in_commit(const HubCache& cache, const HubName& name,
                                   const std::string& commit) {
  const std::string folder = cache.snapshot_folder(name, commit);
  const std::vector<RepoFile> files = cache.files(name, commit);
  const Result<ModelChoice> choice = choose_model(files, name, folder);
  if (!choice) {
    return Error{choice.error().code, fmt::format("{}; {} gets what is missing",
                                                  choice.error().message, pull_command(name))};
  }
  if (!choice->quant.empty()) return folder + "/" + choice->files.front()->name;
  const std::string missing = PENSTOCK_TRY(missing_shards(cache, folder));
  if (missing.empty()) return folder;
  return Error{ErrorCode::kNotFound, fmt::format("{} lacks {}; {} gets what is missing", folder,
                                                 missing, pull_command(name))};
}

Result<std::string> find_pulled(const HubCache& cache, const HubName& name) {
  const std::vector<std::string> commits = cache.commits(name);
  if (commits.empty()) {
    return Error{
        ErrorCode::kNotFound,
        fmt::format("{} is no file or folder here, and was not pulled: {} downloads it into "
                    "{}",
                    name.text(), pull_command(name), cache.folder())};
  }
  if (const auto main = cache.commit_of(name, "main")) return find_in_commit(cache, name, *main);
  if (commits.size() == 1) return find_in_commit(cache, name, commits.front());
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{} was pulled in {} revisions and main is none of them; give the path of "
                  "one: {}",
                  name.repo_id(), commits.size(), cache.snapshot_folder(name, commits.front()))};
}

}  // namespace penstock
