// A view of activations: f32 [count, width], row r at data + r * stride, in some place. Owns
// nothing. Only the host's rows can be looked at (row); views of any place can be cut.
#pragma once

#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/place.h"

namespace penstock {

struct Rows {
  float* data = nullptr;
  int64_t count = 0;
  int64_t width = 0;
  int64_t stride = 0;  // in floats, at least width
  Place place = {};

  std::span<float> row(int64_t r) const {
    PENSTOCK_DCHECK(r >= 0 && r < count && place.is_host());
    return {data + r * stride, static_cast<size_t>(width)};
  }
  Rows first(int64_t rows) const { return {data, rows, width, stride, place}; }
  Rows slice(int64_t from, int64_t rows) const {
    PENSTOCK_DCHECK(from >= 0 && from + rows <= count);
    return {data + from * stride, rows, width, stride, place};
  }
  // Columns [from, from + columns) of every row; a row may have more behind its width.
  Rows columns(int64_t from, int64_t columns) const {
    PENSTOCK_DCHECK(from >= 0 && from + columns <= stride);
    return {data + from, count, columns, stride, place};
  }
  Rows last(int64_t rows) const {
    return {data + (count - rows) * stride, rows, width, stride, place};
  }
};

}  // namespace penstock
