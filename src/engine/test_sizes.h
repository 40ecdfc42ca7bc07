// Sizes of memory, for the tests of this room.
#pragma once

#include <cstdint>

namespace penstock::test {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

}  // namespace penstock::test
