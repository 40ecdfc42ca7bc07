// Words and sums of the small files that the store keeps beside a model, little-endian, one behind the
// other: written by append(), read back through a ByteCursor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/byte_cursor.h"
#include "io/checksum.h"

namespace penstock {

template <class T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const auto* begin = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), begin, begin + sizeof(T));
}

inline Hash128 read_hash(ByteCursor& cursor) {
  const auto low = cursor.read<uint64_t>();
  return {low, cursor.read<uint64_t>()};
}

}  // namespace penstock
