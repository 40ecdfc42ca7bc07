#include "agent/inside_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "io/system_error.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

Error refused(const std::string& path, const std::string& why) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", path, why)};
}

// The next step down: opened only if it is what it has to be, which is looked at first, since to open
// a device or a pipe can already do something.
Result<Descriptor> step(const Descriptor& folder, const std::string& name, FileKind kind,
                        const std::string& path) {
  struct stat facts {};
  if (::fstatat(folder.number(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
    return system_error("open", path, errno);
  }
  if (kind == FileKind::kFolder && !S_ISDIR(facts.st_mode)) return refused(path, "it is no folder");
  if (kind == FileKind::kRegular && S_ISDIR(facts.st_mode)) {
    return refused(path, "it is a folder; list it");
  }
  if (kind == FileKind::kRegular && !S_ISREG(facts.st_mode)) {
    return refused(path, "it is a device, pipe or socket, no file");
  }
  const int more = kind == FileKind::kFolder ? O_DIRECTORY : O_NONBLOCK;
  const int number =
      ::openat(folder.number(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | more);
  if (number < 0) return system_error("open", path, errno);
  Descriptor opened(number);
  struct stat now {};
  const bool is_same =
      ::fstat(number, &now) == 0 && now.st_ino == facts.st_ino && now.st_dev == facts.st_dev;
  if (!is_same) return refused(path, "it was exchanged while it was opened");
  return opened;
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Result<Descriptor> open_inside(const std::string& folder, const std::string& path, FileKind kind) {
  if (path.find('\0') != std::string::npos) return refused(path, "a path has no NUL");
  std::error_code failure;
  const fs::path real = fs::canonical(fs::path(folder) / path, failure);
  if (failure) return system_error("open", path, failure.value());
  const fs::path inside = real.lexically_relative(folder);
  if (inside.empty() || *inside.begin() == "..") {
    return refused(path, fmt::format("it lies outside of {}", folder));
  }
  const int number = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (number < 0) return system_error("open", folder, errno);
  Descriptor at(number);
  if (inside == ".") {
    if (kind == FileKind::kFolder) return at;
    return refused(path, "it is a folder; list it");
  }
  for (auto name = inside.begin(); name != inside.end(); ++name) {
    const bool is_last = std::next(name) == inside.end();
    at = PENSTOCK_TRY(step(at, name->string(), is_last ? kind : FileKind::kFolder, path));
  }
  return at;
}

}  // namespace penstock
