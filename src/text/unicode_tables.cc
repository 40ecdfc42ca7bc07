#include "text/unicode_tables.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace penstock {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
  uint8_t value;
};

constexpr CodePointRange kRanges[] = {
#include "text/unicode_ranges.inc"
};

}  // namespace

const UnicodeTables& UnicodeTables::get() {
  static const UnicodeTables tables;
  return tables;
}

UnicodeTables::UnicodeTables() {
  using Block = std::array<uint8_t, kBlockSize>;
  std::map<Block, uint8_t> known;
  const auto* range = std::begin(kRanges);
  for (uint32_t index = 0; index < block_of_.size(); ++index) {
    Block block{};
    for (uint32_t i = 0; i < kBlockSize; ++i) {
      const char32_t code_point = index * kBlockSize + i;
      while (range != std::end(kRanges) && range->last < code_point) ++range;
      if (range != std::end(kRanges) && range->first <= code_point) block[i] = range->value;
    }
    const auto [found, is_new] = known.try_emplace(block, static_cast<uint8_t>(known.size()));
    if (is_new) values_.insert(values_.end(), block.begin(), block.end());
    block_of_[index] = found->second;
  }
  PENSTOCK_CHECK(known.size() <= 256);
}

}  // namespace penstock
