// What paths lead to on a real file system, which has links, pipes, devices and permissions.
//
// A Storage that has them is one of these, too; one that has not, a simulated disk, holds files and
// folders alone.
//
// Threads  one
// Errors   kIo, naming the path
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

enum class PlaceKind {
  kAbsent,
  kFile,
  kDirectory,
  kStream,  // a pipe or a character device
  kOther,   // a disk, a socket
};

// Where a path leads when its links have been followed, also those that lead to nothing yet.
struct NamedPlace {
  std::string path;
  PlaceKind kind = PlaceKind::kAbsent;
};

class Places {
 public:
  virtual ~Places() = default;

  // Never an error for what is not there; kIo for links in a circle.
  virtual Result<NamedPlace> place_of(const std::string& path) const = 0;

  // A pipe or a character device, to be written from front to back. Never waits for the other end:
  // a pipe that nobody reads is kIo.
  virtual Result<std::unique_ptr<StorageFile>> open_stream(const std::string& path) = 0;

  // Who may read and write `to` is from now on as it is for `from`.
  virtual Result<void> copy_permissions(const std::string& from, const std::string& to) = 0;
};

// Of any storage.
Result<NamedPlace> place_of(const Storage& storage, const std::string& path);

}  // namespace penstock
