#include "host/proc_files.h"

#include <charconv>
#include <fstream>
#include <sstream>

namespace penstock {
namespace {

constexpr std::string_view kBlanks = " \t\n";

bool lists(const std::string& names, std::string_view name) {
  return ("," + names + ",").find("," + std::string(name) + ",") != std::string::npos;
}

struct Mount {
  bool is_v2 = false;
  std::string root;  // which cgroup the mount point shows
  std::string point;
};

// mountinfo: id parent dev ROOT POINT options... - TYPE source SUPEROPTIONS
std::vector<Mount> cgroup_mounts(std::string_view controller, const std::string& root) {
  std::vector<Mount> mounts;
  std::istringstream lines(system_text(root + "/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, shown, point, word, type, source, options;
    fields >> id >> parent >> device >> shown >> point;
    while (fields >> word && word != "-") {
    }
    fields >> type >> source >> options;
    if (type == "cgroup2" || (type == "cgroup" && lists(options, controller))) {
      mounts.push_back({.is_v2 = type == "cgroup2", .root = shown, .point = point});
    }
  }
  return mounts;
}

// /proc/self/cgroup: "0::/path" for v2, "9:memory:/path" or "9:cpu,memory:/path" for v1.
std::optional<std::string> own_path(const std::string& text, std::string_view controller,
                                    bool is_v2) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    if (is_v2 ? names.empty() : lists(names, controller)) return line.substr(second + 1);
  }
  return std::nullopt;
}

}  // namespace

std::string system_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int64_t> leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::string without_blanks_around(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kBlanks) - first + 1));
}

std::string value_after(const std::string& text, std::string_view key, char separator) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t at = line.find(separator);
    if (at == std::string::npos || without_blanks_around(line.substr(0, at)) != key) continue;
    return without_blanks_around(std::string_view(line).substr(at + 1));
  }
  return "";
}

std::vector<Cgroup> own_cgroups(std::string_view controller, const std::string& root) {
  const std::string cgroups = system_text(root + "/proc/self/cgroup");
  std::vector<Mount> mounts = cgroup_mounts(controller, root);
  if (mounts.empty()) {
    // Where everybody mounts them.
    mounts.push_back({.is_v2 = true, .root = "/", .point = "/sys/fs/cgroup"});
    mounts.push_back({.root = "/", .point = "/sys/fs/cgroup/" + std::string(controller)});
  }
  std::vector<Cgroup> found;
  for (const Mount& mount : mounts) {
    const auto own = own_path(cgroups, controller, mount.is_v2);
    if (!own) continue;
    // In a container the mount shows our own cgroup as its top, under a path we cannot see.
    const std::string shown = mount.root == "/" ? "" : mount.root;
    std::string below = *own == "/" ? "" : *own;
    const bool is_shown = below.compare(0, shown.size(), shown) == 0 &&
                          (below.size() == shown.size() || below[shown.size()] == '/');
    below = is_shown ? below.substr(shown.size()) : "";
    if (below.find("/..") != std::string::npos) below.clear();
    for (std::string folder = mount.point + below;;) {
      found.push_back({folder, mount.is_v2});
      if (folder.size() <= mount.point.size()) break;
      folder.resize(folder.rfind('/'));
    }
  }
  return found;
}

}  // namespace penstock
