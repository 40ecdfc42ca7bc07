// What about this machine or its settings makes an engine slow, as sentences with advice.
//
// Threads  plain functions; they read /proc and /sys
// Source   Linux Documentation/admin-guide/mm/transhuge.rst, cgroup-v2.rst (cpu.max),
//          ABI/stable/sysfs-block
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "survey/machine_profile.h"

namespace penstock {

struct Finding {
  bool is_warning = false;  // else a remark
  std::string text;
  std::string advice;  // may be empty
};
Json to_json(const Finding& finding);

// What does not need measuring: huge pages, swap, limits of the container. `root` is put in front
// of /proc and /sys.
std::vector<Finding> settings_findings(const MachineIdentity& machine,
                                       const std::string& root = "");

// Of the disk under the model: kind, read-ahead (when reads go through the page cache).
struct DiskFacts {
  DiskIdentity disk;
  std::string path;  // of the file that was read
  bool reads_direct = true;
  std::string reader_note;  // why the reader is not the one that was wanted
  uint64_t file_bytes = 0;
  double small_read_us = 0;  // of a small read alone, measured; 0: not known
};
std::vector<Finding> disk_findings(const DiskFacts& facts, const std::string& root = "");

// From measured rates: a slow disk, a reader that needs depth, kernels far below memory.
std::vector<Finding> rate_findings(const MachineProfile& profile);

}  // namespace penstock
