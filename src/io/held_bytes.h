// How much room files take on a real disk, which is not their length: there are holes, and room that is
// reserved for what comes.
//
// A Storage that knows is one of these, too; one that does not is asked for lengths.
//
// Threads  any
// Errors   kNotFound, kIo, naming the path
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

class HeldRoom {
 public:
  virtual ~HeldRoom() = default;

  virtual Result<uint64_t> held_bytes(const std::string& path) const = 0;
};

// Of any storage.
Result<uint64_t> held_bytes(const Storage& storage, const std::string& path);

}  // namespace penstock
