#include "source/coding.h"

#include <fmt/format.h>

#include "quant/fp8.h"

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

uint64_t stored_bytes(const Coding& coding, int64_t rows, int64_t columns) {
  const RowBytes bytes = row_bytes(coding, columns);
  const bool is_fp8 = coding.kind == Coding::Kind::kFp8;
  const int64_t scale_rows = is_fp8 ? (rows + kFp8Square - 1) / kFp8Square : rows;
  return static_cast<uint64_t>(rows) * bytes.codes +
         static_cast<uint64_t>(scale_rows) * (bytes.scales + bytes.biases);
}

}  // namespace penstock
