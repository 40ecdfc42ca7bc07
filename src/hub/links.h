// Symbolic links and times of access, which the cache needs and io/storage.h has not.
//
// Threads  any
// Errors   make_link(): kIo, naming the path
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace penstock {

// `path` leads to `target`, in place of whatever link or file was there; at once or not at all.
Result<void> make_link(const std::string& target, const std::string& path);

// Where a link leads, as it says; nothing for what is no link.
std::optional<std::string> read_link(const std::string& path);

// A name of any kind is there, also a link that leads to nothing.
bool is_there(const std::string& path);

// Seconds since 1970 of the last read, as the file system remembers it; nothing for what is not there.
std::optional<int64_t> last_used_s(const std::string& path);

}  // namespace penstock
