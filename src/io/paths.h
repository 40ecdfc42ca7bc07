// What is asked of paths beside reading and writing: whether something is there, and the folder above.
//
// Errors  exists(): as Storage::stat, but for kNotFound
#pragma once

#include <string>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

// A file, a folder or what a link leads to.
Result<bool> exists(const Storage& storage, const std::string& path);

// "." of a name alone, "/" of what is below it and of itself. `path` ends with no slash.
std::string parent_of(const std::string& path);

}  // namespace penstock
