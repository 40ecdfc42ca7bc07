// The files of /proc and /sys, read in this one place: small, without a size, and some of them
// absent on every machine.
//
// Threads  plain functions
// Errors   what cannot be read is empty, what is no number is none
// Source   Linux Documentation/filesystems/proc.rst, admin-guide/cgroup-v2.rst, cgroup-v1
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

std::string system_text(const std::string& path);

// The number at the beginning, after blanks.
std::optional<int64_t> leading_number(std::string_view text);

std::string without_blanks_around(std::string_view text);

// The rest of the first line that starts with `key` and, after blanks, `separator`; without blanks
// around it.
std::string value_after(const std::string& text, std::string_view key, char separator);

// A cgroup whose limits hold for this process.
struct Cgroup {
  std::string folder;  // as the program sees it: without `root`
  bool is_v2 = false;
};

// Ours and those above it as far as they are shown here, from ours up, in the hierarchies that have
// `controller` ("memory", "cpu"). `root` is put in front of /proc: recorded machines for tests.
std::vector<Cgroup> own_cgroups(std::string_view controller, const std::string& root);

}  // namespace penstock
