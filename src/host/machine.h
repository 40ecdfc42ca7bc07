// What this machine is: processor, memory, and the disk under a path.
//
// A profile of measured rates carries this, so that a profile of another machine is known as one.
//
// Threads  plain functions; they read /proc and /sys
// Errors   what the system does not tell stays empty or 0
// Source   Linux Documentation/filesystems/proc.rst, admin-guide/cgroup-v2.rst (cpu.max)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "host/proc_files.h"
#include "io/storage.h"

namespace penstock {

struct MachineIdentity {
  std::string cpu_model;  // "AMD EPYC 9654"
  int processors = 0;     // that this process may run on
  uint64_t memory_bytes = 0;
  std::string kernel;  // "Linux 6.1.0"

  bool operator==(const MachineIdentity&) const = default;
};

// `root` is put in front of /proc and /sys: recorded machines for tests.
MachineIdentity this_machine(const std::string& root = "");

// Sentences that say where two machines differ; none when rates of one hold for the other.
std::vector<std::string> differences(const MachineIdentity& measured, const MachineIdentity& here);

struct DiskIdentity {
  std::string device;      // "259:1", of the file system's device
  std::string source;      // "/dev/nvme0n1p2"
  std::string filesystem;  // "ext4"

  bool operator==(const DiskIdentity&) const = default;
};

// Of the file system that holds `path`. kNotFound, kIo.
Result<DiskIdentity> disk_under(const Storage& storage, const std::string& path,
                                const std::string& root = "");

}  // namespace penstock
