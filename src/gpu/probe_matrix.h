// Weights of a coding that a device is asked to multiply: any codes, with scales that are numbers of
// usual size.
//
// Memory  owns its planes
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "gpu/gpu_coding.h"
#include "quant/row_panels.h"

namespace penstock {

struct ProbeMatrix {
  static constexpr int64_t kRows = 100;

  GpuCoding coding;
  int64_t columns;                               // whole units of every coding
  std::array<std::vector<std::byte>, 3> planes;  // codes, scales, biases

  ProbeMatrix(const GpuCoding& what, int64_t width, std::mt19937& engine)
      : coding(what), columns(width) {
    const RowBytes panel = gpu_panel_bytes(matrix());
    const auto panels = static_cast<uint64_t>(matrix().num_panels());
    planes[0] = random_bytes(panels * panel.codes, engine);
    planes[1] = random_bytes(panels * panel.scales, engine);
    planes[2] = random_bytes(panels * panel.biases, engine);
    // Our own types have scales and biases behind their codes, a file's blocks halves or exponents.
    const bool is_ours = coding.kind == GpuCoding::Kind::kPanels;
    const uint64_t unit_width = is_ours ? kGroupColumns : unit_columns(coding.of_file());
    const uint64_t unit = panel.codes * unit_width / static_cast<uint64_t>(columns);
    const uint64_t scales = panel.scales > 0 ? 0 : is_ours || unit % 64 == 0 ? 64 : 32;
    for (uint64_t end = unit; end <= planes[0].size(); end += unit) {
      make_sane(std::span(planes[0]).subspan(end - scales, scales));
    }
    make_sane(planes[1]);
    make_sane(planes[2]);
  }

  // A view of it.
  Matrix matrix() const {
    const std::byte* codes = planes[0].data();
    Matrix made{.rows = kRows, .columns = columns};
    if (coding.kind == GpuCoding::Kind::kPanels) {
      made.dtype = coding.bits == 8   ? DType::kQ8
                   : coding.bits == 4 ? DType::kQ4
                   : coding.bits == 3 ? DType::kQ3
                                      : DType::kQ2;
      made.panels = codes;
      return made;
    }
    made.coded = {.coding = coding.of_file(),
                  .codes = codes != nullptr ? codes : kNowhere,
                  .scales = planes[1].data(),
                  .biases = planes[2].data(),
                  .scale_rows = 0};
    return made;
  }

 private:
  static constexpr std::byte kNowhere[1] = {};  // before there are codes

  static std::vector<std::byte> random_bytes(uint64_t count, std::mt19937& engine) {
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine());
    return bytes;
  }

  // Of numbers of two bytes or four the last has the exponent, which becomes about 2^-6.
  void make_sane(std::span<std::byte> bytes) const {
    using Kind = GpuCoding::Kind;
    if (coding.kind == Kind::kMxfp4 || coding.kind == Kind::kMlxMxfp4) {
      for (std::byte& byte : bytes) byte = (byte & std::byte{0x0f}) | std::byte{0x70};
      return;
    }
    const bool has_planes = coding.kind == Kind::kAffine;
    const bool is_half = !has_planes ? coding.kind != Kind::kPanels : coding.numbers == DType::kF16;
    const size_t each = has_planes && coding.numbers == DType::kF32 ? 4 : 2;
    for (size_t i = each - 1; i < bytes.size(); i += each) {
      const std::byte exponent = is_half ? std::byte{0x20} : std::byte{0x3c};
      const std::byte rest = is_half ? std::byte{0x83} : std::byte{0x80};
      bytes[i] = (bytes[i] & rest) | exponent;
    }
  }
};

}  // namespace penstock
