#include "quant/coding.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "quant/block_decode.h"
#include "quant/fp8.h"
#include "quant/row_panels.h"

namespace penstock {

std::string name_of(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return std::string(name_of(coding.block));
    case Coding::Kind::kAffine:
      return fmt::format("affine {} bits in {}", coding.affine.bits, coding.affine.group);
    case Coding::Kind::kMlxMxfp4: return "MXFP4";
    case Coding::Kind::kFp8: return "FP8 E4M3 in 128x128";
  }
  return "?";
}

int64_t group_columns(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return layout_of(coding.block).elements;
    case Coding::Kind::kAffine: return coding.affine.group;
    case Coding::Kind::kMlxMxfp4: return kMlxMxfp4Group;
    case Coding::Kind::kFp8: return 1;
  }
  return 1;
}

bool is_float(const Coding& coding) {
  return coding.kind == Coding::Kind::kBlocks &&
         (coding.block == BlockType::kF32 || coding.block == BlockType::kF16 ||
          coding.block == BlockType::kBF16);
}

RowBytes row_bytes(const Coding& coding, int64_t columns) {
  const auto width = static_cast<uint64_t>(columns);
  switch (coding.kind) {
    case Coding::Kind::kBlocks:
      return {static_cast<uint64_t>(bytes_of(layout_of(coding.block), columns)), 0, 0};
    case Coding::Kind::kAffine: {
      const uint64_t groups = width / static_cast<uint64_t>(coding.affine.group);
      const uint64_t scales = groups * static_cast<uint64_t>(bits_of(coding.affine.scales)) / 8;
      return {width * static_cast<uint64_t>(coding.affine.bits) / 8, scales, scales};
    }
    case Coding::Kind::kMlxMxfp4:
      return {width / 2, width / static_cast<uint64_t>(kMlxMxfp4Group), 0};
    case Coding::Kind::kFp8: {
      const uint64_t squares = (width + kFp8Square - 1) / kFp8Square;
      return {width, squares * static_cast<uint64_t>(bits_of(coding.scale)) / 8, 0};
    }
  }
  return {};
}

int64_t rows_of_scales(const Coding& coding) {
  return coding.kind == Coding::Kind::kFp8 ? kFp8Square : 1;
}

RowBytes plane_bytes(const Coding& coding, int64_t rows, int64_t columns) {
  const RowBytes bytes = row_bytes(coding, columns);
  const int64_t shared = rows_of_scales(coding);
  const auto scale_rows = static_cast<uint64_t>((rows + shared - 1) / shared);
  return {static_cast<uint64_t>(rows) * bytes.codes, scale_rows * bytes.scales,
          scale_rows * bytes.biases};
}

uint64_t stored_bytes(const Coding& coding, int64_t rows, int64_t columns) {
  const RowBytes bytes = plane_bytes(coding, rows, columns);
  return bytes.codes + bytes.scales + bytes.biases;
}

void decode_row(const Coding& coding, std::span<const std::byte> codes,
                std::span<const std::byte> scales, std::span<const std::byte> biases,
                std::span<float> values) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return decode_blocks(coding.block, codes, values);
    case Coding::Kind::kAffine:
      return decode_affine_row(coding.affine, codes, scales, biases, values);
    case Coding::Kind::kMlxMxfp4: return decode_mlx_mxfp4_row(codes, scales, values);
    case Coding::Kind::kFp8: return decode_fp8_row(codes, coding.scale, scales, values);
  }
}

void put_in_order(const ColumnOrder& order, std::span<const float> stored, std::span<float> row) {
  const auto width = static_cast<size_t>(order.width);
  PENSTOCK_CHECK(stored.size() == row.size() && order.stored.size() * width == row.size());
  for (size_t b = 0; b < order.stored.size(); ++b) {
    const auto from = stored.begin() + static_cast<int64_t>(order.stored[b] * order.width);
    std::copy_n(from, width, row.begin() + static_cast<int64_t>(b * width));
  }
}

void decode_row(const CodedRows& rows, int64_t row, std::span<float> values,
                std::span<float> stored) {
  const bool is_moved = rows.order != nullptr && !rows.order->is_natural();
  const std::span<float> target = is_moved ? stored.first(values.size()) : values;
  if (is_in_panels(rows)) {
    decode_panel_row(rows, row, target);
    if (is_moved) put_in_order(*rows.order, target, values);
    return;
  }
  const RowBytes bytes = row_bytes(rows.coding, std::ssize(values));
  const auto at = [](const std::byte* plane, int64_t index, uint64_t length) {
    const std::byte* place = length == 0 ? nullptr : plane + static_cast<uint64_t>(index) * length;
    return std::span(place, static_cast<size_t>(length));
  };
  const int64_t scale_row = row / rows.scale_rows;
  decode_row(rows.coding, at(rows.codes, row, bytes.codes),
             at(rows.scales, scale_row, bytes.scales), at(rows.biases, scale_row, bytes.biases),
             target);
  if (is_moved) put_in_order(*rows.order, target, values);
}

}  // namespace penstock
