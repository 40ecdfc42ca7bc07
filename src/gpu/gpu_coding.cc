#include "gpu/gpu_coding.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "quant/block_load.h"
#include "quant/row_panels.h"

namespace penstock {
namespace {

using Kind = GpuCoding::Kind;

constexpr float kLeastScale = 0x1p-28f;
constexpr uint32_t kLeastExponent = 100;  // of MXFP4, whose scale is 2^(e - 128)

struct BlockKind {
  Kind kind;
  BlockType block;
};
constexpr BlockKind kBlockKinds[] = {
    {Kind::kQ8_0, BlockType::kQ8_0}, {Kind::kQ4_0, BlockType::kQ4_0},
    {Kind::kQ4K, BlockType::kQ4K},   {Kind::kQ5K, BlockType::kQ5K},
    {Kind::kQ6K, BlockType::kQ6K},   {Kind::kMxfp4, BlockType::kMxfp4}};

Kind kind_of(BlockType block) {
  for (const BlockKind& row : kBlockKinds) {
    if (row.block == block) return row.kind;
  }
  return Kind::kNone;
}

bool has_tiny_numbers(DType dtype, const std::byte* plane, uint64_t bytes) {
  const uint64_t count = bytes * 8 / static_cast<uint64_t>(bits_of(dtype));
  for (uint64_t i = 0; i < count; ++i) {
    const float size = std::fabs(load_float(dtype, plane, i));
    if (size > 0 && size < kLeastScale) return true;
  }
  return false;
}

// A unit of 64 columns of sixteen rows of MXFP4: words 0 to 3 are the codes of the first group, 4 to 7
// those of the second.
bool has_codes(const std::byte* unit, size_t lane, size_t group) {
  uint32_t codes = 0;
  for (size_t w = 4 * group; w < 4 * group + 4; ++w) {
    codes |= load_block<uint32_t>(unit + (w * kPanelRows + lane) * sizeof(uint32_t));
  }
  return (codes & 0x77777777u) != 0;  // without signs
}

bool has_tiny_exponents(const Matrix& matrix) {
  const bool is_mlx = matrix.coded.coding.kind == Coding::Kind::kMlxMxfp4;
  constexpr size_t kLanes = kPanelRows, kCodes = 8 * kLanes * sizeof(uint32_t);
  const size_t unit_bytes = kCodes + (is_mlx ? 0 : 2 * kLanes);
  const auto units = static_cast<size_t>(matrix.num_panels() * matrix.num_blocks());
  for (size_t u = 0; u < units; ++u) {
    const std::byte* unit = matrix.coded.codes + u * unit_bytes;
    const std::byte* exponents = is_mlx ? matrix.coded.scales + u * 2 * kLanes : unit + kCodes;
    for (size_t i = 0; i < 2 * kLanes; ++i) {
      if (std::to_integer<uint32_t>(exponents[i]) >= kLeastExponent) continue;
      // By groups and lanes; GGUF has those of both groups of a lane beside one another.
      if (has_codes(unit, is_mlx ? i % kLanes : i / 2, is_mlx ? i / kLanes : i % 2)) return true;
    }
  }
  return false;
}

}  // namespace

GpuCoding::GpuCoding(DType dtype) {
  if (!is_quantised(dtype)) return;
  kind = Kind::kPanels;
  bits = static_cast<uint8_t>(bits_of(dtype));
}

GpuCoding::GpuCoding(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: kind = kind_of(coding.block); break;
    case Coding::Kind::kAffine:
      kind = Kind::kAffine;
      bits = static_cast<uint8_t>(coding.affine.bits);
      numbers = coding.affine.scales;
      scale_columns = static_cast<uint16_t>(coding.affine.group);
      break;
    case Coding::Kind::kMlxMxfp4: kind = Kind::kMlxMxfp4; break;
    case Coding::Kind::kFp8: break;
  }
}

uint32_t GpuCoding::groups() const {
  switch (kind) {
    case Kind::kPanels: return 1;
    case Kind::kAffine: return scale_columns < kGroupColumns ? 2 : 1;
    case Kind::kQ6K: return 4;
    default: return 2;
  }
}

bool GpuCoding::has_minima() const {
  return kind == Kind::kPanels || kind == Kind::kAffine || kind == Kind::kQ4K || kind == Kind::kQ5K;
}

uint32_t GpuCoding::fours_in_word() const {
  if (kind == Kind::kMlxMxfp4) return 2;
  if (kind != Kind::kPanels && kind != Kind::kAffine) return 1;
  return bits == 8 ? 1 : bits >= 4 ? 2 : 4;
}

Coding GpuCoding::of_file() const {
  Coding coding;
  if (kind == Kind::kAffine) {
    coding.kind = Coding::Kind::kAffine;
    coding.affine = {.bits = bits, .group = scale_columns, .scales = numbers};
  } else if (kind == Kind::kMlxMxfp4) {
    coding.kind = Coding::Kind::kMlxMxfp4;
  }
  for (const BlockKind& row : kBlockKinds) {
    if (row.kind == kind) coding.block = row.block;
  }
  return coding;
}

std::string name_of(const GpuCoding& coding) {
  if (!coding.is_there()) return "none";
  if (coding.kind == Kind::kPanels) return "q" + std::to_string(coding.bits);
  return name_of(coding.of_file());
}

std::string weights_name(const Matrix& matrix) {
  return matrix.is_coded() ? name_of(matrix.coded.coding) : std::string(name_of(matrix.dtype));
}

GpuCoding gpu_coding_of(const Matrix& matrix) {
  if (matrix.columns % kGroupColumns != 0) return {};
  if (!matrix.is_coded()) return GpuCoding(matrix.dtype);
  return is_in_panels(matrix.coded) ? GpuCoding(matrix.coded.coding) : GpuCoding();
}

std::vector<GpuCoding> gpu_codings_of(std::span<const Matrix> matrices) {
  std::vector<GpuCoding> codings;
  for (const Matrix& matrix : matrices) {
    const GpuCoding coding = gpu_coding_of(matrix);
    if (std::ranges::find(codings, coding) == codings.end()) codings.push_back(coding);
  }
  return codings;
}

std::vector<GpuCoding> common_gpu_codings() {
  std::vector<GpuCoding> codings = {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2};
  for (const int bits : {8, 4}) codings.emplace_back(affine_coding(bits));
  codings.emplace_back(Coding{.kind = Coding::Kind::kMlxMxfp4});
  for (const BlockKind& row : kBlockKinds) codings.emplace_back(Coding{.block = row.block});
  return codings;
}

RowBytes gpu_panel_bytes(const Matrix& matrix) {
  if (matrix.is_coded()) return row_panel_bytes(matrix.coded.coding, matrix.columns);
  return {.codes = static_cast<uint64_t>(panel_bytes(matrix.dtype, kPanelRows, matrix.columns))};
}

uint64_t gpu_matrix_bytes(const Matrix& matrix) {
  const RowBytes panel = gpu_panel_bytes(matrix);
  return static_cast<uint64_t>(matrix.num_panels()) * (panel.codes + panel.scales + panel.biases);
}

bool has_tiny_scales(const Matrix& matrix) {
  const GpuCoding coding = gpu_coding_of(matrix);
  if (!coding.may_have_tiny_scales()) return false;
  if (coding.kind != Kind::kAffine) return has_tiny_exponents(matrix);
  const RowBytes panel = gpu_panel_bytes(matrix);
  const auto panels = static_cast<uint64_t>(matrix.num_panels());
  return has_tiny_numbers(coding.numbers, matrix.coded.scales, panels * panel.scales) ||
         has_tiny_numbers(coding.numbers, matrix.coded.biases, panels * panel.biases);
}

}  // namespace penstock
