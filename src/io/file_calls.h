// Calls on an open file that every system has under another name. One file per system
// (file_calls_linux.cc, file_calls_macos.cc); io/posix_storage.cc is the only caller.
//
// Threads  any
// Errors   an errno value, 0 for none
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace penstock {

// A descriptor whose reads go past the page cache where the file system does that; -1: refused.
int open_past_cache(const std::string& path);

// The granularity in which such a descriptor really reads, at most kDirectAlignmentMax; 0: it does
// not, or only in a larger one than our records have.
uint64_t direct_alignment(int descriptor);

// Takes room on the disk for `bytes` in all without changing the length of the file.
// EOPNOTSUPP, ENOSYS: the file system cannot.
int reserve_room(int descriptor, uint64_t bytes);

// When it returns 0, what was written is on the disk.
int make_durable(int descriptor);

// Advice: these bytes need not stay in the page cache.
void drop_from_cache(int descriptor, uint64_t offset, uint64_t bytes);

int64_t modified_ns(const struct stat& status);

}  // namespace penstock
