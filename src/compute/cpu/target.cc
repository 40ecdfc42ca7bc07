#include "compute/cpu/target.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "compute/cpu/byte_tiles.h"

namespace penstock {
namespace {

bool has_pair_dots() {
#ifdef PENSTOCK_PAIR_DOTS
  return __builtin_cpu_supports("avxvnni") != 0;
#else
  return false;
#endif
}

// Best first: better targets have lower bits.
std::vector<InstructionSet> sets_here() {
  std::vector<InstructionSet> sets;
  for (int64_t rest = HWY_SUPPORTED_TARGETS & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    // On x86 AVX-512 and what came after it, which have lower numbers.
    constexpr int64_t kLeast = HWY_ARCH_X86 ? HWY_AVX3 : HWY_NEON;
    if (sets.empty() && target <= kLeast && has_byte_tiles()) {
      sets.push_back({target, IntegerUnit::kByteTiles});
    }
    if (HWY_ARCH_X86 && target == HWY_AVX2 && has_pair_dots()) {
      sets.push_back({target, IntegerUnit::kPairDots});
    }
    sets.push_back({target, IntegerUnit::kNone});
  }
  return sets;
}

}  // namespace

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const InstructionSet& set : sets_here()) names.push_back(name_of(set));
  return names;
}

std::string name_of(const InstructionSet& set) {
  const std::string name = hwy::TargetName(set.target);
  switch (set.unit) {
    case IntegerUnit::kByteTiles: return fmt::format("{}_{}", name, byte_tiles_name());
    case IntegerUnit::kPairDots: return name + "_VNNI";
    default: return name;
  }
}

Result<InstructionSet> find_target(const std::string& name) {
  for (const InstructionSet& set : sets_here()) {
    if (name.empty() || name == name_of(set)) return set;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("this processor has no instruction set \"{}\"; it has {}", name,
                           fmt::join(target_names(), ", "))};
}

int64_t dot_product_target(int64_t target) {
#if HWY_ARCH_X86 && HWY_TARGETS & HWY_AVX3
  if (target == HWY_AVX3 && !__builtin_cpu_supports("avx512vnni")) return HWY_AVX2;
#endif
  return target;
}

}  // namespace penstock
