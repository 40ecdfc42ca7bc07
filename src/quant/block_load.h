// Loads a block's struct from any address: files give no alignment.
#pragma once

#include <cstddef>
#include <cstring>

namespace penstock {

template <class Block>
Block load_block(const std::byte* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof(Block));
  return block;
}

}  // namespace penstock
