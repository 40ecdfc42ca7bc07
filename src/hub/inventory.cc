#include "hub/inventory.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "hub/choice.h"
#include "hub/links.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

void add_model(const HubCache& cache, const HubName& repo, const std::string& commit,
               const std::string& quant, const std::vector<const RepoFile*>& files,
               std::vector<CachedModel>& models) {
  CachedModel model;
  model.name = repo;
  model.name.quant = quant;
  model.commit = commit;
  for (const auto& [revision, target] : cache.references(repo)) {
    if (target == commit) model.revisions.push_back(revision);
  }
  const std::string folder = cache.snapshot_folder(repo, commit);
  model.path = quant.empty() ? folder : folder + "/" + files.front()->name;
  model.is_whole = find_in_commit(cache, model.name, commit).has_value();
  for (const RepoFile* file : files) {
    model.bytes += file->bytes;
    model.last_used_s =
        std::max(model.last_used_s, last_used_s(folder + "/" + file->name).value_or(0));
  }
  models.push_back(std::move(model));
}

std::vector<std::string> commits_of(const HubCache& cache, const HubName& name,
                                    const std::string& revision) {
  if (revision.empty()) return cache.commits(name);
  const auto commit = cache.commit_of(name, revision);
  if (commit) return {*commit};
  return {};
}

bool ends_the_same(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::vector<CachedModel> list_models(const HubCache& cache) {
  std::vector<CachedModel> models;
  for (const HubName& repo : cache.repos()) {
    for (const std::string& commit : cache.commits(repo)) {
      const std::vector<RepoFile> files = cache.files(repo, commit);
      const std::vector<const RepoFile*> folder = safetensors_model(files);
      if (!folder.empty()) add_model(cache, repo, commit, "", folder, models);
      for (const GgufGroup& group : gguf_groups(files)) {
        add_model(cache, repo, commit, group.quant, group.files, models);
      }
    }
  }
  return models;
}

Result<Removal> plan_removal(const HubCache& cache, const HubName& name,
                             const std::string& revision) {
  Removal removal;
  removal.name = name;
  std::set<std::string> going, staying;
  bool anything_stays = false;
  const std::vector<std::string> commits = commits_of(cache, name, revision);
  for (const std::string& commit : cache.commits(name)) {
    const std::vector<RepoFile> files = cache.files(name, commit);
    std::set<const RepoFile*> chosen;
    if (std::ranges::find(commits, commit) != commits.end()) {
      for (const RepoFile& file : files) {
        if (name.quant.empty()) chosen.insert(&file);
      }
      for (const GgufGroup& group : gguf_groups(files)) {
        if (!ends_the_same(group.quant, name.quant)) continue;
        chosen.insert(group.files.begin(), group.files.end());
      }
    }
    for (const RepoFile& file : files) {
      const bool goes = chosen.contains(&file);
      (goes ? going : staying).insert(file.hash);
      anything_stays = anything_stays || !goes;
      if (goes) removal.links.push_back(cache.snapshot_folder(name, commit) + "/" + file.name);
    }
    if (chosen.size() < files.size()) continue;
    for (const auto& [reference, target] : cache.references(name)) {
      if (target == commit && !chosen.empty()) removal.references.push_back(reference);
    }
  }
  removal.is_all = !anything_stays && name.quant.empty() && revision.empty();
  if (removal.links.empty() && !(removal.is_all && is_there(cache.repo_folder(name)))) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}{} is not in {}; `penstock ls` lists what is", name.text(),
                             revision.empty() ? "" : " in revision " + revision, cache.folder())};
  }
  for (const std::string& hash : going) {
    if (staying.contains(hash) || hash.empty()) continue;
    const Result<FileStat> stat = cache.storage().stat(cache.blob_path(name, hash));
    if (!stat) continue;
    removal.blobs.push_back(hash);
    removal.bytes += stat->bytes;
  }
  return removal;
}

Result<void> remove(const HubCache& cache, const Removal& removal) {
  const HubName& name = removal.name;
  PENSTOCK_TRY(cache.make_folders(name));
  std::vector<std::unique_ptr<Storage::Lock>> locks;
  for (const std::string& hash : removal.blobs) {
    locks.push_back(PENSTOCK_TRY(cache.lock_blob(name, hash)));
  }
  Storage& storage = cache.storage();
  const std::string repo = cache.repo_folder(name);
  // References and links first: what is left by a power cut leads nowhere, and is no model.
  for (const std::string& revision : removal.references) {
    PENSTOCK_TRY(storage.remove(repo + "/refs/" + revision));
  }
  for (const std::string& link : removal.links) {
    PENSTOCK_TRY(storage.remove(link));
    // Folders that are empty now, up to the snapshot's own.
    std::string folder = link.substr(0, link.find_last_of('/'));
    while (folder.size() > repo.size() + sizeof("/snapshots")) {
      std::error_code error;
      if (!fs::is_empty(folder, error) || error) break;
      PENSTOCK_TRY(storage.remove(folder));
      folder.resize(folder.find_last_of('/'));
    }
  }
  for (const std::string& hash : removal.blobs) {
    PENSTOCK_TRY(storage.remove(cache.blob_path(name, hash)));
  }
  if (removal.is_all) PENSTOCK_TRY(storage.remove_tree(repo));
  return {};
}

}  // namespace penstock
