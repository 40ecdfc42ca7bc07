// Files and folders below one folder, and nothing else.
//
// Threads  plain functions
// Errors   in words for whoever asked: kNotFound, kInvalidArgument (elsewhere, or not of this kind), kIo
#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace penstock {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();

  int number() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

enum class FileKind { kRegular, kFolder };

// `folder` is absolute and without links; `path` is relative to it, or absolute.
Result<Descriptor> open_inside(const std::string& folder, const std::string& path, FileKind kind);

}  // namespace penstock
