// The programs for devices, as SPIR-V that was compiled while building (shaders/*.comp).
//
// Threads  constants
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace penstock {

enum class Shader : uint8_t { kPackRows, kProbe, kProduct, kProductWide, kRead };
inline constexpr Shader kShaders[] = {Shader::kPackRows, Shader::kProbe, Shader::kProduct,
                                      Shader::kProductWide, Shader::kRead};

std::string_view name_of(Shader shader);
std::span<const uint32_t> spirv_of(Shader shader);

}  // namespace penstock
