// Where bytes live: in the host's memory, or in a device's; and who gives memory there.
//
// Weights, activations and states say where they are. An address may be followed by the host only
// where the place is the host; elsewhere it is a number that the device's backend understands.
//
//   Buffer scratch = PENSTOCK_TRY(backend.memory().take(bytes, "activations"));
//
// Threads  a Memory is used by the computing thread; a Buffer is a value
// Memory   a Buffer owns its bytes and gives them back
// Errors   take(): kOutOfMemory, naming the purpose and the bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/memory.h"
#include "base/result.h"

namespace penstock {

struct Place {
  int8_t device = -1;  // -1: the host

  bool is_host() const { return device < 0; }
  bool operator==(const Place&) const = default;
};

class Buffer {
 public:
  // What has to happen when the buffer ends.
  class Owner {
   public:
    virtual ~Owner() = default;
  };

  Buffer() = default;
  Buffer(Place place, std::byte* address, uint64_t bytes, std::unique_ptr<Owner> owner)
      : place_(place), address_(address), bytes_(bytes), owner_(std::move(owner)) {}

  Place place() const { return place_; }
  std::byte* address() const { return address_; }  // 64-byte aligned
  float* floats() const { return reinterpret_cast<float*>(address_); }
  uint64_t size() const { return bytes_; }
  // Only of the host's.
  std::span<std::byte> host_bytes() const {
    PENSTOCK_CHECK(place_.is_host());
    return {address_, static_cast<size_t>(bytes_)};
  }

 private:
  Place place_;
  std::byte* address_ = nullptr;
  uint64_t bytes_ = 0;
  std::unique_ptr<Owner> owner_;
};

class Memory {
 public:
  virtual ~Memory() = default;
  virtual Place place() const = 0;
  // `purpose` completes "no memory for ...". The bytes are zero. Zero of them are allowed.
  virtual Result<Buffer> take(uint64_t bytes, const char* purpose,
                              Prefault prefault = Prefault::kNo) = 0;
};

class HostMemory final : public Memory {
 public:
  Place place() const override { return {}; }
  Result<Buffer> take(uint64_t bytes, const char* purpose,
                      Prefault prefault = Prefault::kNo) override;
};

}  // namespace penstock
