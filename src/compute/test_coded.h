// Random matrices in every coding, for the tests of this room.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "compute/coded_panels.h"
#include "compute/test_values.h"
#include "quant/block_decode.h"

namespace penstock::test {

// A coded matrix with planes of its own, and the f32 matrix of what it stands for.
struct CodedMatrix {
  std::vector<std::byte> codes, scales, biases;
  ColumnOrder order;
  Matrix matrix;
  std::unique_ptr<OwnedMatrix> plain;
};

inline std::vector<Coding> all_codings() {
  std::vector<Coding> list;
  for (int type = 0; type < kNumBlockTypes; ++type) {
    const auto block = static_cast<BlockType>(type);
    if (is_decodable(block)) list.push_back({.block = block});
  }
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int64_t group : {32, 64, 128}) {
      list.push_back({.kind = Coding::Kind::kAffine,
                      .affine = {bits, group, bits % 2 == 0 ? DType::kBF16 : DType::kF16}});
    }
  }
  list.push_back({.kind = Coding::Kind::kMlxMxfp4});
  list.push_back({.kind = Coding::Kind::kFp8, .scale = DType::kBF16});
  list.push_back({.kind = Coding::Kind::kFp8, .scale = DType::kF32});
  return list;
}

// Random bytes that are no weights a file could hold are drawn again: what is not a number has
// many patterns of bits.
inline bool is_sane(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::fabs(v) < 1e6f; });
}

class Coded {
 public:
  explicit Coded(uint64_t seed) : random_(seed) {}

  CodedMatrix matrix(const Coding& coding, int64_t rows, int64_t columns,
                     const ColumnOrder& order = {}) {
    CodedMatrix made;
    const RowBytes row = row_bytes(coding, columns);
    const RowBytes plane = plane_bytes(coding, rows, columns);
    // One byte in front: nothing may count on an address.
    made.codes.resize(plane.codes + 1);
    made.scales.resize(plane.scales + 1);
    made.biases.resize(plane.biases + 1);
    made.order = order;
    CodedRows coded{.coding = coding,
                    .codes = made.codes.data() + 1,
                    .scales = made.scales.data() + 1,
                    .biases = made.biases.data() + 1,
                    .scale_rows = rows_of_scales(coding),
                    .order = nullptr};
    std::vector<float> values(static_cast<size_t>(rows * columns));
    std::vector<float> stored(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      const auto target =
          std::span(values).subspan(static_cast<size_t>(r * columns), stored.size());
      for (int attempt = 0;; ++attempt) {
        fill(coding, made, r, row, r % coded.scale_rows == 0);
        decode_row(coded, r, target, stored);
        if (is_sane(target)) break;
        check_attempt(attempt);
      }
      if (!order.is_natural()) {
        stored.assign(target.begin(), target.end());
        put_in_order(order, stored, target);
      }
    }
    made.plain = std::make_unique<OwnedMatrix>(DType::kF32, values, rows, columns);
    made.matrix = {.rows = rows, .columns = columns, .coded = coded};
    return made;
  }

 private:
  static void check_attempt(int attempt) {
    if (attempt > 10000) throw std::runtime_error("no weights in random bytes");
  }

  std::byte small_exponent() { return static_cast<std::byte>(118 + random_() % 12); }
  std::byte random_byte() { return static_cast<std::byte>(random_() & 0xff); }

  void put_number(DType dtype, std::byte* place, float value) {
    if (dtype == DType::kF32) {
      std::memcpy(place, &value, 4);
      return;
    }
    const uint16_t half =
        dtype == DType::kBF16 ? f32_to_bf16(value) : static_cast<uint16_t>(0x2000 + random_() % 64);
    std::memcpy(place, &half, 2);
  }

  void fill_numbers(DType dtype, std::span<std::byte> row) {
    const auto bytes = static_cast<size_t>(bits_of(dtype)) / 8;
    std::normal_distribution<float> normal(0, 0.01f);
    for (size_t at = 0; at < row.size(); at += bytes) {
      put_number(dtype, row.data() + at, normal(random_));
    }
  }

  static DType float_type(BlockType block) {
    if (block == BlockType::kF32) return DType::kF32;
    return block == BlockType::kF16 ? DType::kF16 : DType::kBF16;
  }

  void fill(const Coding& coding, CodedMatrix& made, int64_t r, const RowBytes& row,
            bool with_scales) {
    const auto of = [&](std::vector<std::byte>& plane, int64_t index, uint64_t bytes) {
      return std::span(plane).subspan(1 + static_cast<uint64_t>(index) * bytes, bytes);
    };
    const auto codes = of(made.codes, r, row.codes);
    for (std::byte& byte : codes) byte = random_byte();
    if (is_float(coding)) fill_numbers(float_type(coding.block), codes);
    if (coding.kind == Coding::Kind::kBlocks && coding.block == BlockType::kMxfp4) {
      // A block begins with its exponent.
      const auto bytes = static_cast<size_t>(layout_of(coding.block).bytes);
      for (size_t at = 0; at < codes.size(); at += bytes) codes[at] = small_exponent();
    }
    if (!with_scales || row.scales == 0) return;
    const int64_t scale_row = r / rows_of_scales(coding);
    const auto scales = of(made.scales, scale_row, row.scales);
    if (coding.kind == Coding::Kind::kMlxMxfp4) {
      for (std::byte& byte : scales) byte = small_exponent();
      return;
    }
    const DType dtype = coding.kind == Coding::Kind::kFp8 ? coding.scale : coding.affine.scales;
    fill_numbers(dtype, scales);
    if (row.biases > 0) fill_numbers(dtype, of(made.biases, scale_row, row.biases));
  }

  std::mt19937_64 random_;
};

// The same rows side by side, where the coding can lie so.
struct PanelMatrix {
  std::vector<std::byte> codes, scales, biases;
  Matrix matrix;
};
inline PanelMatrix in_panels(const CodedMatrix& from) {
  const Matrix& rows = from.matrix;
  const Coding& coding = rows.coded.coding;
  const RowBytes row = row_bytes(coding, rows.columns);
  const RowBytes panel = row_panel_bytes(coding, rows.columns);
  PanelMatrix made;
  made.matrix = rows;
  const auto lay_out = [&](CodedPlane plane, const std::byte* bytes, std::vector<std::byte>& out) {
    const uint64_t size = bytes_of(panel, plane);
    out.resize(size * static_cast<uint64_t>(rows.num_panels()));
    if (size == 0) return;
    for (int64_t p = 0; p < rows.num_panels(); ++p) {
      const int64_t each = plane == CodedPlane::kCodes ? 1 : rows_of_scales(coding);
      make_row_panel(coding, plane, rows.columns,
                     {.rows = bytes,
                      .stride = bytes_of(row, plane),
                      .count = std::min(kPanelRows, rows.rows - p * kPanelRows),
                      .first = p * kPanelRows,
                      .rows_each = each},
                     std::span(out).subspan(static_cast<uint64_t>(p) * size, size));
    }
  };
  const CodedRows& coded = rows.coded;
  lay_out(CodedPlane::kCodes, coded.codes, made.codes);
  lay_out(CodedPlane::kScales, coded.scales, made.scales);
  lay_out(CodedPlane::kBiases, coded.biases, made.biases);
  made.matrix.coded.codes = made.codes.data();
  made.matrix.coded.scales = made.scales.data();
  made.matrix.coded.biases = made.biases.data();
  made.matrix.coded.scale_rows = 0;
  return made;
}

}  // namespace penstock::test
