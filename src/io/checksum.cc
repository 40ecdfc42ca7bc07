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

Hash128 block_checksum(uint64_t model_id, uint64_t block, std::span<const std::byte> bytes) {
  const std::array<uint64_t, 2> identity = {model_id, block};
  return checksum(bytes, XXH3_64bits(identity.data(), sizeof(identity)));
}

struct RunningChecksum::State {
  XXH3_state_t hash;
};

RunningChecksum::RunningChecksum() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->hash);
}
RunningChecksum::~RunningChecksum() = default;
RunningChecksum::RunningChecksum(RunningChecksum&&) noexcept = default;
RunningChecksum& RunningChecksum::operator=(RunningChecksum&&) noexcept = default;

void RunningChecksum::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->hash, bytes.data(), bytes.size());
}

Hash128 RunningChecksum::value() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->hash);
  return {hash.low64, hash.high64};
}

}  // namespace penstock
