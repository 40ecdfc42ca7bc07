// What one thread's units reach by themselves, for the shares that kernel_bench prints: streaming reads,
// multiply-adds of floats, multiply-adds of whole numbers.
#pragma once

#include <cstdint>

#include "compute/cpu/target.h"

namespace penstock {

// Reads `count` floats, 64-byte aligned; what is returned only keeps the compiler from leaving that out.
float read_all(const InstructionSet& set, const float* values, int64_t count);

// Independent multiply-adds that stay in registers, as many as hide how long one takes; on Arm's tiles, which
// lie in memory, whole products of tiles from the first cache. The operations done, two a multiply-add: of
// floats; of 16-bit numbers by codes, for which tiles of bytes need two of theirs. sum: as above.
double float_operations(const InstructionSet& set, int64_t rounds, float* sum);
double integer_operations(const InstructionSet& set, int64_t rounds, float* sum);

}  // namespace penstock
