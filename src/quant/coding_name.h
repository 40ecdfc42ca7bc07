// Codings by name, as manifests of packed models write them: exact, and read back to the same coding.
//
//   blocks "Q4_K";  MLX affine "affine:4:64:bf16" (bits, group, type of scales), "mlx:mxfp4";
//   FP8 "fp8:bf16" (type of scales)
//
// Threads  Plain functions.
// Limits   Only codings that can be decoded have names that are read.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "quant/coding.h"

namespace penstock {

std::string exact_name(const Coding& coding);
std::optional<Coding> parse_coding(std::string_view name);

}  // namespace penstock
