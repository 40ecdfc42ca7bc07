#include "pack/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace penstock {
namespace {

constexpr int64_t kPoolBytes = 4 << 20;

float unit_value(uint64_t bits) {
  return static_cast<float>(bits >> 40) * 0x1p-24f;  // [0, 1)
}

// Codes are uniform on 0 .. 2^bits - 1, of variance (4^bits - 1) / 12, around the middle.
void fill_quantised_pool(DType dtype, float deviation, uint64_t seed, std::span<std::byte> pool) {
  const auto block = static_cast<size_t>(block_bytes(dtype));
  const double codes = std::exp2(bits_of(dtype));
  const double step = deviation / std::sqrt((codes * codes - 1) / 12);
  const uint16_t scale = f32_to_bf16(static_cast<float>(step));
  const uint16_t bias = f32_to_bf16(bf16_to_f32(scale) * static_cast<float>(-(codes - 1) / 2));
  constexpr size_t kTailBytes = 2 * kPanelRows * sizeof(uint16_t);
  uint16_t tail[2 * kPanelRows];
  std::fill_n(tail, kPanelRows, scale);
  std::fill_n(tail + kPanelRows, kPanelRows, bias);
  uint64_t index = 0;
  for (size_t begin = 0; begin < pool.size(); begin += block) {
    for (size_t at = 0; at < block - kTailBytes; at += sizeof(uint64_t)) {
      const uint64_t bits = mix_bits(seed, index++);
      std::memcpy(pool.data() + begin + at, &bits, sizeof(bits));
    }
    std::memcpy(pool.data() + begin + block - kTailBytes, tail, kTailBytes);
  }
}

// A uniform distribution on [-width, width) has the deviation width / sqrt(3).
void fill_plain_pool(DType dtype, float deviation, uint64_t seed, std::span<std::byte> pool) {
  const float width = deviation * std::sqrt(3.0f);
  const size_t element = static_cast<size_t>(bits_of(dtype)) / 8;
  for (size_t i = 0; i < pool.size() / element; ++i) {
    const float value = width * (2 * unit_value(mix_bits(seed, i)) - 1);
    const uint16_t narrow = f32_to_bf16(value);
    std::memcpy(pool.data() + i * element,
                dtype == DType::kF32 ? static_cast<const void*>(&value) : &narrow, element);
  }
}

}  // namespace

// The finaliser of SplitMix64 over a Weyl sequence, once more for the second argument.
uint64_t mix_bits(uint64_t a, uint64_t b) {
  const auto mix = [](uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  };
  return mix(mix(a + 0x9e3779b97f4a7c15ull) + (b + 1) * 0x9e3779b97f4a7c15ull);
}

const std::vector<std::byte>& RandomWeights::pool(DType dtype, float deviation) {
  std::vector<std::byte>& pool = pools_[{dtype, deviation}];
  if (!pool.empty()) return pool;
  pool.resize(static_cast<size_t>(kPoolBytes / block_bytes(dtype) * block_bytes(dtype)));
  const uint64_t seed = mix_bits(seed_, static_cast<uint64_t>(dtype));
  if (is_quantised(dtype)) {
    fill_quantised_pool(dtype, deviation, seed, pool);
  } else {
    fill_plain_pool(dtype, deviation, seed, pool);
  }
  return pool;
}

void RandomWeights::fill_blocks(DType dtype, float deviation, uint64_t matrix, int64_t first_block,
                                std::span<std::byte> out) {
  PENSTOCK_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || is_quantised(dtype));
  PENSTOCK_CHECK(first_block % kPieceBlocks == 0);
  const std::vector<std::byte>& blocks = pool(dtype, deviation);
  const auto block = static_cast<size_t>(block_bytes(dtype));
  const size_t piece_bytes = block * kPieceBlocks;
  const uint64_t places = blocks.size() / block - kPieceBlocks + 1;
  const uint64_t stream = mix_bits(seed_, matrix);
  auto piece = static_cast<uint64_t>(first_block / kPieceBlocks);
  for (size_t done = 0; done < out.size(); done += piece_bytes, ++piece) {
    const uint64_t place = mix_bits(stream, piece) % places;
    std::memcpy(out.data() + done, blocks.data() + place * block,
                std::min(piece_bytes, out.size() - done));
  }
}

void RandomWeights::fill_matrix(DType dtype, float deviation, uint64_t matrix, int64_t rows,
                                int64_t columns, std::span<std::byte> out) {
  PENSTOCK_CHECK(columns % kGroupColumns == 0);
  PENSTOCK_CHECK(std::ssize(out) == panel_bytes(dtype, rows, columns));
  fill_blocks(dtype, deviation, matrix, 0, out);
  if (rows % kPanelRows == 0) return;
  const auto panel = static_cast<size_t>(panel_bytes(dtype, kPanelRows, columns));
  clear_missing_rows(dtype, rows % kPanelRows, out.last(panel));
}

void RandomWeights::fill_values(uint64_t matrix, float low, float high,
                                std::span<float> out) const {
  const uint64_t stream = mix_bits(seed_, matrix);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = low + (high - low) * unit_value(mix_bits(stream, i));
  }
}

void clear_missing_rows(DType dtype, int64_t rows, std::span<std::byte> panel) {
  const auto block = static_cast<size_t>(block_bytes(dtype));
  const size_t words = static_cast<size_t>(kGroupColumns * bits_of(dtype) / 32);
  const auto kept = static_cast<size_t>(rows), missing = static_cast<size_t>(kPanelRows - rows);
  for (size_t begin = 0; begin < panel.size(); begin += block) {
    std::byte* data = panel.data() + begin;
    for (size_t word = 0; word < words; ++word, data += kPanelRows * sizeof(uint32_t)) {
      std::memset(data + kept * sizeof(uint32_t), 0, missing * sizeof(uint32_t));
    }
    if (!is_quantised(dtype)) continue;
    for (int vector = 0; vector < 2; ++vector, data += kPanelRows * sizeof(uint16_t)) {
      std::memset(data + kept * sizeof(uint16_t), 0, missing * sizeof(uint16_t));
    }
  }
}

}  // namespace penstock
