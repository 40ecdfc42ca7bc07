#include "io/held_bytes.h"

namespace penstock {

Result<uint64_t> held_bytes(const Storage& storage, const std::string& path) {
  const auto* disk = dynamic_cast<const HeldRoom*>(&storage);
  if (disk != nullptr) return disk->held_bytes(path);
  return PENSTOCK_TRY(storage.stat(path)).bytes;
}

}  // namespace penstock
