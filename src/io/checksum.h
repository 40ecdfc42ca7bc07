// Checksums of bytes on flash: XXH3-128, bound to what the bytes claim to be.
//
// A disk can flip a bit and it can also hand back the right bytes of the wrong place. So the sum of
// an expert's part is taken together with its identity (model, layer, expert, part): a misdirected
// record does not match even when every bit of it is intact. It guards against faults, not against
// a forger.
//
// Threads  Plain functions over the caller's bytes; nothing is allocated.
// Source   XXH3 as in xxHash 0.8 (its output is frozen), little-endian on disk: low, then high.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace penstock {

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;

  bool operator==(const Hash128&) const = default;
};

Hash128 checksum(std::span<const std::byte> bytes, uint64_t seed);

// The sum of one part of one expert, payload without padding. part: 0 gate and up, 1 down.
Hash128 part_checksum(uint64_t model_id, int layer, int expert, int part,
                      std::span<const std::byte> payload);

// The sum of one block of a file that is read in blocks.
Hash128 block_checksum(uint64_t model_id, uint64_t block, std::span<const std::byte> bytes);

// The same function over bytes that come in pieces: equals checksum(all of them, 0).
class RunningChecksum {
 public:
  RunningChecksum();
  ~RunningChecksum();
  RunningChecksum(RunningChecksum&&) noexcept;
  RunningChecksum& operator=(RunningChecksum&&) noexcept;

  void update(std::span<const std::byte> bytes);
  Hash128 value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
