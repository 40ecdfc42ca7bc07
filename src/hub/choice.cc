#include "hub/choice.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "base/byte_text.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr size_t kListedMax = 20;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

bool is_gguf(std::string_view name) {
  return lower(name).ends_with(".gguf");
}

// Beside models lie files of the same format that are none.
bool is_model_name(std::string_view stem) {
  const std::string text = lower(base_name(stem));
  return !text.starts_with("mmproj") && !text.starts_with("imatrix");
}

struct SplitName {
  std::string stem;
  size_t index = 1, count = 1;
};

// "a/m-00002-of-00003.gguf": a/m, 2 of 3.
SplitName split_name(std::string_view name) {
  constexpr size_t kTailBytes = 15;  // -00002-of-00003
  std::string_view stem = name.substr(0, name.size() - 5);
  const auto number = [](std::string_view digits) -> size_t {
    size_t value = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9') return 0;
      value = 10 * value + static_cast<size_t>(c - '0');
    }
    return value;
  };
  if (stem.size() > kTailBytes) {
    const std::string_view tail = stem.substr(stem.size() - kTailBytes);
    const size_t index = number(tail.substr(1, 5)), count = number(tail.substr(10));
    if (tail[0] == '-' && tail.substr(6, 4) == "-of-" && index >= 1 && index <= count) {
      return {std::string(stem.substr(0, stem.size() - kTailBytes)), index, count};
    }
  }
  return {std::string(stem), 1, 1};
}

// What a stem ends with after its last "-" or "."; "UD-" before it belongs to it.
std::string quant_of(std::string_view stem) {
  const std::string_view name = base_name(stem);
  const size_t cut = name.find_last_of("-.");
  if (cut == name.npos) return std::string(name);
  const std::string_view before = name.substr(0, cut);
  const size_t start = before.find_last_of("-.") + 1;
  if (lower(before.substr(start)) == "ud") return std::string(name.substr(start));
  return std::string(name.substr(cut + 1));
}

bool is_text_of_model(std::string_view name) {
  constexpr std::string_view kTexts[] = {"config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "generation_config.json",
                                         "added_tokens.json",
                                         "special_tokens_map.json",
                                         "chat_template.jinja",
                                         "chat_template.json",
                                         "vocab.json",
                                         "merges.txt",
                                         "model.safetensors.index.json"};
  return std::ranges::find(kTexts, name) != std::end(kTexts);
}

// "Q4_K_M (20 GiB), Q8_0 (35 GiB)"
std::string list_of(const std::vector<GgufGroup>& groups) {
  std::string out;
  for (size_t i = 0; i < groups.size() && i < kListedMax; ++i) {
    out += fmt::format("{}{} ({})", i == 0 ? "" : ", ", groups[i].quant,
                       format_bytes(groups[i].bytes()));
  }
  if (groups.size() > kListedMax) out += fmt::format(" and {} more", groups.size() - kListedMax);
  return out;
}

std::string list_of(const std::vector<RepoFile>& files) {
  std::string out;
  for (size_t i = 0; i < files.size() && i < kListedMax; ++i) {
    out += fmt::format("{}{}", i == 0 ? "" : ", ", files[i].name);
  }
  if (files.size() > kListedMax) out += fmt::format(" and {} more", files.size() - kListedMax);
  return out.empty() ? "no files" : out;
}

std::vector<GgufGroup> groups_of_quant(const std::vector<GgufGroup>& groups,
                                       const std::string& quant) {
  const std::string wanted = lower(quant);
  std::vector<GgufGroup> exact, suffix;
  for (const GgufGroup& group : groups) {
    const std::string stem = lower(split_name(group.files.front()->name).stem);
    if (lower(group.quant) == wanted) {
      exact.push_back(group);
    } else if (stem.size() > wanted.size() && stem.ends_with(wanted) &&
               std::string_view("-._/").find(stem[stem.size() - wanted.size() - 1]) !=
                   std::string_view::npos) {
      suffix.push_back(group);
    }
  }
  return exact.empty() ? suffix : exact;
}

Result<ModelChoice> chosen(const GgufGroup& group, std::string_view where) {
  if (!group.is_whole()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{} has {} of the {} parts of {}", where, group.files.size(),
                             group.num_splits, group.quant)};
  }
  return ModelChoice{group.quant, group.files};
}

Result<ModelChoice> choose_gguf(const std::vector<GgufGroup>& groups, const HubName& name,
                                std::string_view where) {
  const std::vector<GgufGroup> fits =
      name.quant.empty() ? groups : groups_of_quant(groups, name.quant);
  if (fits.size() == 1) return chosen(fits.front(), where);
  if (fits.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{} has no {}; it has {}", where, name.quant, list_of(groups))};
  }
  std::string names;
  for (const GgufGroup& group : fits) {
    if (!names.empty()) names += ", ";
    names += group.files.front()->name;
  }
  if (!name.quant.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} has several files of {}: {}; name one of them with --include",
                             where, name.quant, names)};
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} has several: {}; say which, as in {}:{}", where, list_of(groups),
                           name.repo_id(), groups.front().quant)};
}

}  // namespace

bool is_weights(std::string_view name) {
  return name.ends_with(".safetensors") || is_gguf(name);
}

uint64_t GgufGroup::bytes() const {
  uint64_t sum = 0;
  for (const RepoFile* file : files) sum += file->bytes;
  return sum;
}

std::vector<GgufGroup> gguf_groups(const std::vector<RepoFile>& files) {
  std::map<std::pair<std::string, size_t>, std::map<size_t, const RepoFile*>> found;
  for (const RepoFile& file : files) {
    if (!is_gguf(file.name)) continue;
    const SplitName split = split_name(file.name);
    if (is_model_name(split.stem)) found[{split.stem, split.count}][split.index] = &file;
  }
  std::vector<GgufGroup> groups;
  for (const auto& [key, parts] : found) {
    GgufGroup group{quant_of(key.first), {}, key.second};
    for (const auto& [index, file] : parts) group.files.push_back(file);
    groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<const RepoFile*> safetensors_model(const std::vector<RepoFile>& files) {
  std::vector<const RepoFile*> chosen_files;
  bool has_weights = false, has_config = false;
  for (const RepoFile& file : files) {
    if (file.name.find('/') != file.name.npos) continue;
    // Some repositories hold the same weights a second time, as their makers trained them.
    const bool is_part =
        file.name.ends_with(".safetensors") && !file.name.starts_with("consolidated");
    if (!is_part && !is_text_of_model(file.name)) continue;
    has_weights = has_weights || is_part;
    has_config = has_config || file.name == "config.json";
    chosen_files.push_back(&file);
  }
  if (!has_weights || !has_config) chosen_files.clear();
  return chosen_files;
}

Result<ModelChoice> choose_model(const std::vector<RepoFile>& files, const HubName& name,
                                 std::string_view where) {
  const std::vector<GgufGroup> groups = gguf_groups(files);
  const std::vector<const RepoFile*> folder = safetensors_model(files);
  if (name.quant.empty() && !folder.empty()) return ModelChoice{"", folder};
  if (!groups.empty()) return choose_gguf(groups, name, where);
  if (!folder.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{} has no GGUF files, so no {}; its safetensors are {} alone", where,
                             name.quant, name.repo_id())};
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{} has no model that penstock reads, neither GGUF nor safetensors with "
                           "a config.json; it has {}",
                           where, list_of(files))};
}

Result<std::vector<const RepoFile*>> included_files(const std::vector<RepoFile>& files,
                                                    std::string_view patterns,
                                                    std::string_view where) {
  std::vector<std::string> wanted;
  for (std::string_view rest = patterns;;) {
    const size_t comma = rest.find(',');
    if (comma != 0 && !rest.empty()) wanted.emplace_back(rest.substr(0, comma));
    if (comma == rest.npos) break;
    rest.remove_prefix(comma + 1);
  }
  std::vector<const RepoFile*> found;
  for (const RepoFile& file : files) {
    const bool fits = std::ranges::any_of(wanted, [&](const std::string& pattern) {
      return ::fnmatch(pattern.c_str(), file.name.c_str(), FNM_NOESCAPE) == 0;
    });
    if (fits) found.push_back(&file);
  }
  if (!found.empty()) return found;
  return Error{ErrorCode::kNotFound, fmt::format("{} has no file that fits {}; it has {}", where,
                                                 escaped(patterns), list_of(files))};
}

}  // namespace penstock
