#include "hub/links.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "io/system_error.h"

namespace penstock {

Result<void> make_link(const std::string& target, const std::string& path) {
  if (read_link(path) == target) return {};
  const std::string fresh = path + "." + std::to_string(::getpid()) + ".link";
  ::unlink(fresh.c_str());
  if (::symlink(target.c_str(), fresh.c_str()) != 0) {
    return system_error("make link", path, errno);
  }
  if (::rename(fresh.c_str(), path.c_str()) == 0) return {};
  const int error = errno;
  ::unlink(fresh.c_str());
  return system_error("make link", path, error);
}

std::optional<std::string> read_link(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  if (error) return {};
  return target.string();
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

std::optional<int64_t> last_used_s(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return int64_t{status.st_atime};
}

}  // namespace penstock
