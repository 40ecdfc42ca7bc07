#include "quant/coding_name.h"

#include <fmt/format.h>

#include <charconv>
#include <vector>

#include "quant/block_decode.h"

namespace penstock {
namespace {

constexpr std::string_view kAffine = "affine", kFp8 = "fp8", kMlxMxfp4 = "mlx:mxfp4";
constexpr int64_t kGroupMax = int64_t{1} << 16;

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  for (;;) {
    const size_t end = text.find(':');
    words.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return words;
    text.remove_prefix(end + 1);
  }
}

std::optional<int64_t> parse_number(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Of scales.
std::optional<DType> parse_float(std::string_view name) {
  const std::optional<DType> dtype = parse_dtype(name);
  if (!dtype || is_quantised(*dtype)) return std::nullopt;
  return dtype;
}

std::optional<Coding> parse_affine(std::string_view bits, std::string_view group,
                                   std::string_view scales) {
  const std::optional<int64_t> width = parse_number(bits), columns = parse_number(group);
  const std::optional<DType> dtype = parse_float(scales);
  if (!width || !columns || !dtype || !are_affine_bits(*width)) return std::nullopt;
  // Groups begin with a byte of the codes.
  if (*columns < 1 || *columns > kGroupMax || *columns * *width % 8 != 0) return std::nullopt;
  return Coding{.kind = Coding::Kind::kAffine,
                .affine = {static_cast<int>(*width), *columns, *dtype}};
}

std::optional<Coding> parse_blocks(std::string_view name) {
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const auto type = static_cast<BlockType>(i);
    if (name_of(type) == name && is_decodable(type)) return Coding{.block = type};
  }
  return std::nullopt;
}

}  // namespace

std::string exact_name(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return std::string(name_of(coding.block));
    case Coding::Kind::kAffine:
      return fmt::format("{}:{}:{}:{}", kAffine, coding.affine.bits, coding.affine.group,
                         name_of(coding.affine.scales));
    case Coding::Kind::kMlxMxfp4: return std::string(kMlxMxfp4);
    case Coding::Kind::kFp8: return fmt::format("{}:{}", kFp8, name_of(coding.scale));
  }
  return "?";
}

std::optional<Coding> parse_coding(std::string_view name) {
  if (name == kMlxMxfp4) return Coding{.kind = Coding::Kind::kMlxMxfp4};
  const std::vector<std::string_view> words = split(name);
  if (words.size() == 4 && words[0] == kAffine) return parse_affine(words[1], words[2], words[3]);
  if (words.size() == 2 && words[0] == kFp8) {
    const std::optional<DType> scale = parse_float(words[1]);
    if (!scale) return std::nullopt;
    return Coding{.kind = Coding::Kind::kFp8, .scale = *scale};
  }
  return words.size() == 1 ? parse_blocks(name) : std::nullopt;
}

}  // namespace penstock
