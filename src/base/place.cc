#include "base/place.h"

namespace penstock {
namespace {

class HostOwner final : public Buffer::Owner {
 public:
  explicit HostOwner(AlignedMemory memory) : memory_(std::move(memory)) {}

 private:
  AlignedMemory memory_;
};

}  // namespace

Result<Buffer> HostMemory::take(uint64_t bytes, const char* purpose, Prefault prefault) {
  AlignedMemory memory = PENSTOCK_TRY(AlignedMemory::create(bytes, purpose, prefault));
  const std::span<std::byte> taken = memory.bytes();
  return Buffer(place(), taken.data(), taken.size(),
                std::make_unique<HostOwner>(std::move(memory)));
}

}  // namespace penstock
