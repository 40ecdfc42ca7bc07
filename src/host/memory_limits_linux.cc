#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

#include "host/memory_limits.h"
#include "host/proc_files.h"

namespace penstock {
namespace {

// v1 writes "no limit" as the largest multiple of a page below 2^63.
constexpr uint64_t kUnlimited = uint64_t{1} << 60;

// v1 has limits of 2^63 and above as "no limit".
std::optional<uint64_t> to_number(std::string_view text) {
  const auto value = leading_number(text);
  if (!value || *value < 0) return std::nullopt;
  return static_cast<uint64_t>(*value);
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

struct Limit {
  std::string name;
  uint64_t bytes;
};

// Limits of one cgroup that are limits: not "max", not absent.
std::vector<Limit> limits_of(const std::string& folder, bool is_v2) {
  std::vector<Limit> limits;
  const auto add = [&](const char* name) {
    const auto bytes = to_number(system_text(folder + "/" + name));
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
  const uint64_t usage = to_number(system_text(folder + usage_file)).value_or(0);
  const std::string stat = system_text(folder + "/memory.stat");
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
  const std::string meminfo = system_text(meminfo_path);
  const auto available_kib = value_of(meminfo, "MemAvailable:");
  if (!available_kib) {
    return Error{ErrorCode::kIo, meminfo_path + " does not tell MemAvailable; give a budget"};
  }
  MemoryAvailability result{.available_bytes = *available_kib * 1024,
                            .limit_bytes = value_of(meminfo, "MemTotal:").value_or(0) * 1024,
                            .binding = "MemAvailable of /proc/meminfo"};
  for (const Cgroup& cgroup : own_cgroups("memory", root)) {
    const uint64_t used = firm_usage(root + cgroup.folder, cgroup.is_v2);
    for (const Limit& limit : limits_of(root + cgroup.folder, cgroup.is_v2)) {
      const uint64_t left = limit.bytes > used ? limit.bytes - used : 0;
      if (left >= result.available_bytes) continue;
      result.available_bytes = left;
      result.limit_bytes = limit.bytes;
      result.binding = fmt::format("{} of {} ({:.2f} GiB, {:.2f} GiB of it in use)", limit.name,
                                   cgroup.folder, gibibytes(limit.bytes), gibibytes(used));
      result.is_hard_limit = limit.name != "memory.high";
    }
  }
  return result;
}

Result<MemoryCeiling> memory_ceiling(const std::string& root) {
  const std::string meminfo_path = root + "/proc/meminfo";
  const auto total_kib = value_of(system_text(meminfo_path), "MemTotal:");
  if (!total_kib) return Error{ErrorCode::kIo, meminfo_path + " does not tell MemTotal"};
  MemoryCeiling ceiling{.bytes = *total_kib * 1024, .binding = "MemTotal of /proc/meminfo"};
  for (const Cgroup& cgroup : own_cgroups("memory", root)) {
    for (const Limit& limit : limits_of(root + cgroup.folder, cgroup.is_v2)) {
      if (limit.name == "memory.high" || limit.bytes >= ceiling.bytes) continue;
      ceiling = {.bytes = limit.bytes, .binding = limit.name + " of " + cgroup.folder};
    }
  }
  return ceiling;
}

double memory_stall_share(const std::string& root) {
  const std::string text = system_text(root + "/proc/pressure/memory");
  constexpr std::string_view kBefore = "full avg10=";
  const size_t begin = text.find(kBefore);
  if (begin == std::string::npos) return 0;
  double percent = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data() + begin + kBefore.size(), end, percent);
  return error == std::errc() && percent >= 0 && percent <= 100 ? percent / 100 : 0;
}

uint64_t resident_bytes() {
  return value_of(system_text("/proc/self/status"), "VmRSS:").value_or(0) * 1024;
}

uint64_t peak_resident_bytes() {
  return value_of(system_text("/proc/self/status"), "VmHWM:").value_or(0) * 1024;
}

}  // namespace penstock
