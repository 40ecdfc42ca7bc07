#include "host/processors.h"

#include <algorithm>
#include <string_view>

#include "base/thread.h"
#include "host/proc_files.h"

namespace penstock {
namespace {

// Processors' worth of time that one cgroup grants: "200000 100000", "max 100000".
std::optional<double> share(std::optional<int64_t> time, std::optional<int64_t> period) {
  if (!time || !period || *time <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*time) / static_cast<double>(*period);
}

std::optional<double> quota_of(const std::string& folder, bool is_v2) {
  if (!is_v2) {
    return share(leading_number(system_text(folder + "/cpu.cfs_quota_us")),
                 leading_number(system_text(folder + "/cpu.cfs_period_us")));
  }
  const std::string text = system_text(folder + "/cpu.max");
  const size_t space = std::min(text.find(' '), text.size());
  return share(leading_number(text), leading_number(std::string_view(text).substr(space)));
}

}  // namespace

Processors processors_within(int allowed, const std::string& root) {
  Processors found{.count = allowed, .allowed = allowed, .quota = {}, .binding = {}};
  for (const Cgroup& cgroup : own_cgroups("cpu", root)) {
    const auto quota = quota_of(root + cgroup.folder, cgroup.is_v2);
    if (!quota || (found.quota && *quota >= *found.quota)) continue;
    found.quota = quota;
    // Whole ones: a thread that has half a processor holds up those that have one.
    const int granted = std::max(1, static_cast<int>(std::min(*quota + 0.01, 1e6)));
    if (granted >= found.count) continue;
    found.count = granted;
    found.binding = (cgroup.is_v2 ? "cpu.max of " : "cpu.cfs_quota_us of ") + cgroup.folder;
  }
  return found;
}

Processors usable_processors() {
  return processors_within(allowed_processors(), "");
}

}  // namespace penstock
