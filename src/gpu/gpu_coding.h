// Which weights a device multiplies, and what its kernels are told of how they lie (shaders/weights.glsl).
//
//   const GpuCoding coding = gpu_coding_of(matrix);
//   if (!coding.is_there()) ...                          // the processors'
//
// In panels of our own types (compute/panel.h) or of a file's coding (quant/row_panels.h), as they lie
// here: nothing is changed on the way to a device. Other codings, and coded rows, stay here.
//
// Threads  plain data and pure functions
// Source   shaders/weights.glsl, quant/row_panels.h
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compute/panel.h"
#include "quant/coding.h"

namespace penstock {

struct GpuCoding {
  // By the numbers of shaders/weights.glsl. kPanels: q8, q4, q3, q2. Those from kQ4K on have units of
  // 256 columns.
  enum class Kind : uint8_t {
    kPanels,
    kAffine,
    kQ4_0,
    kQ8_0,
    kMxfp4,
    kMlxMxfp4,
    kQ4K,
    kQ5K,
    kQ6K,
    kNone
  };
  Kind kind = Kind::kNone;
  uint8_t bits = 0;  // of kPanels and kAffine
  // Of kAffine: scales and biases, and how many columns share one.
  DType numbers = DType::kBF16;
  uint16_t scale_columns = kGroupColumns;

  GpuCoding() = default;
  GpuCoding(DType dtype);  // NOLINT: a type of our own is one; others are none
  explicit GpuCoding(const Coding& coding);

  bool is_there() const { return kind != Kind::kNone; }
  Coding of_file() const;  // not of kPanels
  auto operator<=>(const GpuCoding&) const = default;

  // Groups of equal scale in a block of 64 columns, and whether they have minima.
  uint32_t groups() const;
  bool has_minima() const;
  // Terms that a block adds to a sum: of each group one, or two. Even.
  uint32_t addends() const { return groups() * (has_minima() ? 2 : 1); }
  // Whether has_tiny_scales() may say so.
  bool may_have_tiny_scales() const {
    return kind == Kind::kMxfp4 || kind == Kind::kMlxMxfp4 ||
           (kind == Kind::kAffine && numbers != DType::kF16);
  }
  // Fours of codes in a word, which is in which order the kernels take columns (shaders/fixed.glsl).
  uint32_t fours_in_word() const;
};

// As messages have them.
inline constexpr std::string_view kGpuCodingNames =
    "q8, q4, q3 and q2 of a packed model, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, MXFP4 and MLX's groups";

// "q4", "Q4_K", "affine 4 bits in 64"
std::string name_of(const GpuCoding& coding);

// What a matrix is of, whoever multiplies it: "Q3_K", "bf16".
std::string weights_name(const Matrix& matrix);

GpuCoding gpu_coding_of(const Matrix& matrix);
inline bool has_gpu_product(const Matrix& matrix) {
  return gpu_coding_of(matrix).is_there();
}

// Each once.
std::vector<GpuCoding> gpu_codings_of(std::span<const Matrix> matrices);

// One of every kind and of each width in bits that models commonly have: what a device is asked about
// where no model says what it needs.
std::vector<GpuCoding> common_gpu_codings();

// Bytes of a panel in each plane; our own types have one plane.
RowBytes gpu_panel_bytes(const Matrix& matrix);
uint64_t gpu_matrix_bytes(const Matrix& matrix);  // of all panels and planes

// Whether some scale or minimum is so small that a product with it may be subnormal, which devices
// replace by zero (compute/coded_panels.h): below 2^-28, and not of zeros alone. Only scales that are
// bf16, f32 or powers of two can be. Such a matrix stays with the processors. Looks at every scale.
bool has_tiny_scales(const Matrix& matrix);

// Addresses on a device. Only codings with planes of scales and biases have these.
struct GpuPlanes {
  uint64_t codes = 0, scales = 0, biases = 0;
};

}  // namespace penstock
