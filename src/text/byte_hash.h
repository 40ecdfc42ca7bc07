// A quick hash of short byte strings, for the tables of this room. Not for hostile keys: every
// table that uses it is bounded by the file that fills it, or forgets instead of probing.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock {

inline uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t hash = bytes.size() * kMultiplier;
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  while (bytes.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes.remove_prefix(8);
  }
  uint64_t word = 0;
  if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
  mix(word);
  return hash;
}

}  // namespace penstock
