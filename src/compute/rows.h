// A view of activations: f32 [count, width], row r at data + r * stride. Owns nothing.
#pragma once

#include <cstdint>
#include <span>

#include "base/check.h"

namespace penstock {

struct Rows {
  float* data = nullptr;
  int64_t count = 0;
  int64_t width = 0;
  int64_t stride = 0;  // in floats, at least width

  std::span<float> row(int64_t r) const {
    PENSTOCK_DCHECK(r >= 0 && r < count);
    return {data + r * stride, static_cast<size_t>(width)};
  }
  Rows first(int64_t rows) const { return {data, rows, width, stride}; }
  Rows slice(int64_t from, int64_t rows) const {
    PENSTOCK_DCHECK(from >= 0 && from + rows <= count);
    return {data + from * stride, rows, width, stride};
  }
  // Columns [from, from + columns) of every row; a row may have more behind its width.
  Rows columns(int64_t from, int64_t columns) const {
    PENSTOCK_DCHECK(from >= 0 && from + columns <= stride);
    return {data + from, count, columns, stride};
  }
  Rows last(int64_t rows) const { return {data + (count - rows) * stride, rows, width, stride}; }
};

}  // namespace penstock
