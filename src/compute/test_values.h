// Matrices, rows and error bounds for the tests of this room.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/memory.h"
#include "compute/backend.h"

namespace penstock::test {

class Values {
 public:
  explicit Values(uint32_t seed) : engine_(seed) {}

  std::vector<float> normal(int64_t count, float scale = 1) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = distribution(engine_);
    return values;
  }

 private:
  std::mt19937 engine_;
};

// Rows that own their values, with a gap between them.
struct OwnedRows {
  std::vector<float> values;
  Rows rows;

  OwnedRows(int64_t count, int64_t width, int64_t gap = 5)
      : values(static_cast<size_t>(count * (width + gap)), 0.0f),
        rows{values.data(), count, width, width + gap} {}
  OwnedRows(Values& source, int64_t count, int64_t width, float scale = 1)
      : OwnedRows(count, width) {
    values = source.normal(std::ssize(values), scale);
    rows.data = values.data();
  }
  OwnedRows(const OwnedRows& other) : values(other.values), rows(other.rows) {
    rows.data = values.data();
  }
  OwnedRows& operator=(const OwnedRows&) = delete;
};

// A matrix that owns its panels.
struct OwnedMatrix {
  AlignedMemory memory;
  Matrix matrix;

  OwnedMatrix(DType dtype, const std::vector<float>& values, int64_t rows, int64_t columns) {
    const auto bytes = static_cast<uint64_t>(panel_bytes(dtype, rows, columns));
    memory = AlignedMemory::create(bytes, "a test").value();
    make_panels(dtype, values, rows, columns, memory.bytes());
    matrix = {dtype, rows, columns, memory.bytes().data()};
  }
  OwnedMatrix(DType dtype, Values& source, int64_t rows, int64_t columns)
      : OwnedMatrix(dtype,
                    source.normal(rows * columns, 1 / std::sqrt(static_cast<float>(columns))), rows,
                    columns) {}
};

// What rounding can do to a product of one row at worst: every term passes through at most 64
// additions in its block and two per block after that, each with a relative error of 2^-24.
inline double product_error_bound(const Matrix& matrix, int64_t row, std::span<const float> x) {
  std::vector<float> weights(x.size());
  panel_row(matrix, row, weights);
  double terms = 0;
  for (size_t c = 0; c < x.size(); ++c) {
    double size = std::fabs(weights[c]);
    if (is_quantised(matrix.dtype)) {
      // scale * code and bias are summed apart and may cancel.
      const AffineGroup group = panel_group(matrix, row, static_cast<int64_t>(c) / kGroupColumns);
      size += 2 * std::fabs(double{bf16_to_f32(group.bias)});
    }
    terms += size * std::fabs(double{x[c]});
  }
  return terms * 0x1p-24 * static_cast<double>(kGroupColumns + 2 * matrix.num_blocks() + 2);
}

inline std::span<const float, kGroupColumns> group_of(const std::vector<float>& values) {
  return std::span<const float, kGroupColumns>(values);
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// While it lives, this thread takes subnormal numbers for zeros and makes none, as some devices do.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(control()) { set_control(before_ | kFlush); }
  ~FlushSubnormals() { set_control(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // FTZ and DAZ
  static uint64_t control() {
    return __builtin_ia32_stmxcsr();
  }
  static void set_control(uint64_t value) {
    __builtin_ia32_ldmxcsr(static_cast<unsigned>(value));
  }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = uint64_t{1} << 24;  // FZ
  static uint64_t control() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set_control(uint64_t value) {
    asm volatile("msr fpcr, %0" : : "r"(value));
  }
#endif

  uint64_t before_;
};

inline constexpr DType kPanelTypes[] = {DType::kF32, DType::kBF16, DType::kQ8,
                                        DType::kQ4,  DType::kQ3,   DType::kQ2};

}  // namespace penstock::test
