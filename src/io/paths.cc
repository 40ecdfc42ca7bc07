#include "io/paths.h"

namespace penstock {

Result<bool> exists(const Storage& storage, const std::string& path) {
  const Result<FileStat> stat = storage.stat(path);
  if (stat) return true;
  if (stat.error().code == ErrorCode::kNotFound) return false;
  return stat.error();
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace penstock
