#include "host/memory_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace penstock {
namespace {

// v1 writes "no limit" as the largest multiple of a page below 2^63.
constexpr uint64_t kUnlimited = uint64_t{1} << 60;

// Files of /proc and /sys are small and have no size; what cannot be read is empty.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<uint64_t> to_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// The number after `key` at the beginning of a line: "MemAvailable:  123 kB", "inactive_file 123".
std::optional<uint64_t> value_of(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool is_it = line.size() > key.size() && line.compare(0, key.size(), key) == 0 &&
                       (line[key.size()] == ' ' || line[key.size()] == '\t');
    if (is_it) return to_number(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

double gibibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

struct Hierarchy {
  bool is_v2 = false;
  std::string top;   // where it is mounted
  std::string leaf;  // our cgroup, top or below
};

struct Mount {
  bool is_v2 = false;
  std::string root;  // which cgroup the mount point shows
  std::string point;
};

// mountinfo: id parent dev ROOT POINT options... - TYPE source SUPEROPTIONS
std::vector<Mount> cgroup_mounts(const std::string& root) {
  std::vector<Mount> mounts;
  std::istringstream lines(text_of(root + "/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, shown, point, word, type, source, options;
    fields >> id >> parent >> device >> shown >> point;
    while (fields >> word && word != "-") {
    }
    fields >> type >> source >> options;
    const bool has_memory = ("," + options + ",").find(",memory,") != std::string::npos;
    if (type == "cgroup2" || (type == "cgroup" && has_memory)) {
      mounts.push_back({.is_v2 = type == "cgroup2", .root = shown, .point = point});
    }
  }
  return mounts;
}

// /proc/self/cgroup: "0::/path" for v2, "9:memory:/path" or "9:cpu,memory:/path" for v1.
std::optional<std::string> own_cgroup(const std::string& text, bool is_v2) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool has_memory = ("," + controllers + ",").find(",memory,") != std::string::npos;
    if (is_v2 ? controllers.empty() : has_memory) return line.substr(second + 1);
  }
  return std::nullopt;
}

std::vector<Hierarchy> memory_hierarchies(const std::string& root) {
  const std::string cgroups = text_of(root + "/proc/self/cgroup");
  std::vector<Hierarchy> found;
  for (const Mount& mount : cgroup_mounts(root)) {
    const auto own = own_cgroup(cgroups, mount.is_v2);
    if (!own) continue;
    // In a container the mount shows our own cgroup as its top, under a path we cannot see.
    const std::string shown = mount.root == "/" ? "" : mount.root;
    std::string below = *own == "/" ? "" : *own;
    const bool is_shown = below.compare(0, shown.size(), shown) == 0 &&
                          (below.size() == shown.size() || below[shown.size()] == '/');
    below = is_shown ? below.substr(shown.size()) : "";
    if (below.find("/..") != std::string::npos) below.clear();
    found.push_back({.is_v2 = mount.is_v2, .top = mount.point, .leaf = mount.point + below});
  }
  return found;
}

struct Limit {
  std::string name;
  uint64_t bytes;
};

// Limits of one cgroup that are limits: not "max", not absent.
std::vector<Limit> limits_of(const std::string& folder, bool is_v2) {
  std::vector<Limit> limits;
  const auto add = [&](const char* name) {
    const auto bytes = to_number(text_of(folder + "/" + name));
    if (bytes && *bytes < kUnlimited) limits.push_back({name, *bytes});
  };
  if (is_v2) {
    add("memory.max");
    add("memory.high");
  } else {
    add("memory.limit_in_bytes");
  }
  return limits;
}

// What a cgroup uses and would not give back under pressure.
uint64_t firm_usage(const std::string& folder, bool is_v2) {
  const char* usage_file = is_v2 ? "/memory.current" : "/memory.usage_in_bytes";
  const uint64_t usage = to_number(text_of(folder + usage_file)).value_or(0);
  const std::string stat = text_of(folder + "/memory.stat");
  uint64_t soft = 0;
  for (const char* key : {"inactive_file", "active_file", "slab_reclaimable"}) {
    // v1 counts a cgroup alone under this name and with all below it under total_.
    const auto bytes = value_of(stat, is_v2 ? key : std::string("total_") + key);
    soft += bytes.value_or(0);
  }
  return usage > soft ? usage - soft : 0;
}

}  // namespace

Result<MemoryAvailability> memory_available(const std::string& root) {
  const std::string meminfo_path = root + "/proc/meminfo";
  const std::string meminfo = text_of(meminfo_path);
  const auto available_kib = value_of(meminfo, "MemAvailable:");
  if (!available_kib) {
    return Error{ErrorCode::kIo, meminfo_path + " does not tell MemAvailable; give a budget"};
  }
  MemoryAvailability result{.available_bytes = *available_kib * 1024,
                            .limit_bytes = value_of(meminfo, "MemTotal:").value_or(0) * 1024,
                            .binding = "MemAvailable of /proc/meminfo"};
  for (const Hierarchy& hierarchy : memory_hierarchies(root)) {
    for (std::string folder = hierarchy.leaf;;) {
      const uint64_t used = firm_usage(root + folder, hierarchy.is_v2);
      for (const Limit& limit : limits_of(root + folder, hierarchy.is_v2)) {
        const uint64_t left = limit.bytes > used ? limit.bytes - used : 0;
        if (left >= result.available_bytes) continue;
        result.available_bytes = left;
        result.limit_bytes = limit.bytes;
        result.binding = fmt::format("{} of {} ({:.2f} GiB, {:.2f} GiB of it in use)", limit.name,
                                     folder, gibibytes(limit.bytes), gibibytes(used));
      }
      if (folder.size() <= hierarchy.top.size()) break;
      folder.resize(folder.rfind('/'));
    }
  }
  return result;
}

double memory_stall_share(const std::string& root) {
  const std::string text = text_of(root + "/proc/pressure/memory");
  constexpr std::string_view kBefore = "full avg10=";
  const size_t begin = text.find(kBefore);
  if (begin == std::string::npos) return 0;
  double percent = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data() + begin + kBefore.size(), end, percent);
  return error == std::errc() && percent >= 0 && percent <= 100 ? percent / 100 : 0;
}

uint64_t resident_bytes() {
  return value_of(text_of("/proc/self/status"), "VmRSS:").value_or(0) * 1024;
}

uint64_t peak_resident_bytes() {
  return value_of(text_of("/proc/self/status"), "VmHWM:").value_or(0) * 1024;
}

}  // namespace penstock
