// The programs for devices, as SPIR-V that was compiled while building (shaders/*.comp).
//
// Threads  constants
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace penstock {

enum class Shader : uint8_t {
  kAttention,
  kAttentionJoin,
  kDeltaNet,
  kDeltaNetEnds,
  kDeltaRule,
  kPackRows,
  kProbe,
  kProbeFused,
  kProduct,
  kProductWide,
  kRead
};
inline constexpr Shader kShaders[] = {
    Shader::kAttention, Shader::kAttentionJoin, Shader::kDeltaNet, Shader::kDeltaNetEnds,
    Shader::kDeltaRule, Shader::kPackRows,      Shader::kProbe,    Shader::kProbeFused,
    Shader::kProduct,   Shader::kProductWide,   Shader::kRead};
// Those with the device's own fused multiply-add, which is used where it was seen to be right.
constexpr bool has_own_fused(Shader shader) {
  return shader == Shader::kAttention || shader == Shader::kDeltaNet ||
         shader == Shader::kDeltaRule || shader == Shader::kProbeFused;
}

std::string_view name_of(Shader shader);
std::span<const uint32_t> spirv_of(Shader shader);

}  // namespace penstock
