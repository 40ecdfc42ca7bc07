#include "compute/cpu/target.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace penstock {
namespace {

// Best first: better targets have lower bits.
std::vector<int64_t> targets_here() {
  std::vector<int64_t> targets;
  for (int64_t rest = HWY_SUPPORTED_TARGETS & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    targets.push_back(rest & -rest);
  }
  return targets;
}

}  // namespace

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const int64_t target : targets_here()) names.emplace_back(hwy::TargetName(target));
  return names;
}

std::string target_name(int64_t target) {
  return hwy::TargetName(target);
}

Result<int64_t> find_target(const std::string& name) {
  for (const int64_t target : targets_here()) {
    if (name.empty() || name == hwy::TargetName(target)) return target;
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
