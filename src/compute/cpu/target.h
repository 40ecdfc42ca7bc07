// Which instruction sets the kernels are compiled for, and how one of them is picked.
//
// Highway would pick one for the whole process; a backend picks its own, so that tests and
// comparisons can have several side by side. To be included before Highway, and Highway
// once more by each file, as it has a part per instruction set.
//
// Errors  find_target(): kInvalidArgument with the names there are
#pragma once

// No vectors of unknown length: kernels keep arrays of vectors, 16 lanes in each row. Processors
// without AVX2 are rare enough to do without vectors. Builds with sanitizers leave out more
// (src/compute/CMakeLists.txt).
#ifndef PENSTOCK_LEFT_OUT_TARGETS
#define PENSTOCK_LEFT_OUT_TARGETS 0
#endif
#define HWY_DISABLED_TARGETS                                                          \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | \
   PENSTOCK_LEFT_OUT_TARGETS)

#include <hwy/targets.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

// Whether AVX2's kernels are there with that unit too: GCC's assembler takes its instructions in any function.
// Builds with sanitizers leave it out (src/compute/CMakeLists.txt).
#if HWY_ARCH_X86 && !defined(__clang__) && !defined(PENSTOCK_LEFT_OUT_PAIR_DOTS)
#define PENSTOCK_PAIR_DOTS
#endif

namespace penstock {

// What a processor may have for sums of products of whole numbers, beside the vectors of a target.
enum class IntegerUnit : uint8_t {
  kNone,
  kByteTiles,  // byte_tiles.h
  kPairDots,  // AVX-VNNI: in AVX2's registers what AVX-512 brings, on desktops that have no AVX-512
};

// A Highway target, with such a unit or without.
struct InstructionSet {
  int64_t target = 0;
  IntegerUnit unit = IntegerUnit::kNone;
};

// Instruction sets of this build that this processor has, best first ("AVX3_AMX", "AVX3", "AVX2_VNNI";
// "NEON_I8MM"), and one of them by name (empty: the best). Errors: kInvalidArgument, listing the names.
std::vector<std::string> target_names();
std::string name_of(const InstructionSet& set);
Result<InstructionSet> find_target(const std::string& name);

// Where kernels of integer dot products run for `target`: AVX-512 has them on all processors but
// the first, which do better with AVX2.
int64_t dot_product_target(int64_t target);

// Place of `target` in the tables that HWY_EXPORT makes.
inline size_t target_index(int64_t target) {
#if (HWY_TARGETS & (HWY_TARGETS - 1)) == 0
  static_cast<void>(target);
  return 0;
#else
  const auto bits = static_cast<uint64_t>(HWY_CHOSEN_TARGET_SHIFT(target)) |
                    static_cast<uint64_t>(HWY_CHOSEN_TARGET_MASK_SCALAR);
  return hwy::Num0BitsBelowLS1Bit_Nonzero64(bits);
#endif
}

}  // namespace penstock

// The function FUNC of instruction set `target`, after HWY_EXPORT(FUNC).
#define PENSTOCK_AT_TARGET(FUNC, target) (HWY_DISPATCH_TABLE(FUNC)[target_index(target)])
