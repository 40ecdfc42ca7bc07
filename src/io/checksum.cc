#include "io/checksum.h"

#include <array>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace penstock {

Hash128 checksum(std::span<const std::byte> bytes, uint64_t seed) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  return {hash.low64, hash.high64};
}

Hash128 part_checksum(uint64_t model_id, int layer, int expert, int part,
                      std::span<const std::byte> payload) {
  // The identity becomes the seed: one pass over the payload, no state to set up.
  const std::array<uint64_t, 4> identity = {model_id, static_cast<uint64_t>(layer),
                                            static_cast<uint64_t>(expert),
                                            static_cast<uint64_t>(part)};
  return checksum(payload, XXH3_64bits(identity.data(), sizeof(identity)));
}

}  // namespace penstock
