#include "store/slot_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace penstock {
namespace {

// Measured on a disk of 1 to 2 GB/s, where a request costs 15 us beside its bytes (docs/performance/in_place.md):
// so much is read for nothing rather than asked for apart,
constexpr uint64_t kGapBytesMax = 8 << 10;
// and a part of so many bytes has come soon enough with its neighbour.
constexpr uint64_t kSmallBytesMax = 64 << 10;

constexpr uint64_t kPartAlignment = 64;  // of parts that are laid out anew, as of panels

uint64_t align_up(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Whether, in every expert, `second` begins where `first` ends, or a little further on.
bool are_neighbours(const PartPlace& first, const PartPlace& second, int num_experts) {
  for (int expert = 0; expert < num_experts; ++expert) {
    const FilePlace a = first.of(expert), b = second.of(expert);
    const uint64_t end = a.offset + first.bytes;
    if (a.file != b.file || b.offset < end || b.offset - end > kGapBytesMax) return false;
  }
  return true;
}

// Laid out anew both, or left where they are: else one would have to move for the other's sake.
bool are_placed_alike(const PartPlace& first, const PartPlace& second) {
  if (first.form != nullptr) return second.form != nullptr;
  return second.form == nullptr && first.alignment == 1 && second.alignment == 1;
}

// Lists of parts, each in the order of the file; lists by their first needed part.
std::vector<JoinedRead> join_parts(const LayerPlaces& layer, int num_experts) {
  std::vector<int> order(layer.parts.size());
  std::iota(order.begin(), order.end(), 0);
  const auto part_of = [&](int index) -> const PartPlace& {
    return layer.parts[static_cast<size_t>(index)];
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const FilePlace first = part_of(a).of(0), second = part_of(b).of(0);
    return std::pair(first.file, first.offset) < std::pair(second.file, second.offset);
  });
  std::vector<JoinedRead> reads;
  uint64_t bytes = 0;  // of the latest read
  for (const int index : order) {
    const PartPlace& part = part_of(index);
    if (!reads.empty()) {
      const PartPlace& before = part_of(reads.back().parts.back());
      if (std::min(bytes, part.bytes) <= kSmallBytesMax && are_placed_alike(before, part) &&
          are_neighbours(before, part, num_experts)) {
        reads.back().parts.push_back(index);
        bytes += part.bytes;
        continue;
      }
    }
    reads.push_back({.parts = {index}});
    bytes = part.bytes;
  }
  const auto first_needed = [](const JoinedRead& read) {
    return *std::ranges::min_element(read.parts);
  };
  std::stable_sort(reads.begin(), reads.end(), [&](const JoinedRead& a, const JoinedRead& b) {
    return first_needed(a) < first_needed(b);
  });
  return reads;
}

struct AreaNeeds {
  uint64_t pad = 0;     // before the window
  uint64_t window = 0;  // bytes of it
  uint64_t end = 0;     // of what is laid out
};

// Of several parts with forms in one window, in their order: each is laid out behind the one before
// it, not behind its own first byte, and ends before the first byte of the next.
AreaNeeds needs_of(const ExpertTable& table, int layer, int expert, std::span<const int> parts) {
  const ReadWindow window = table.window(layer, expert, parts);
  AreaNeeds needs = {.window = window.bytes};
  const auto begin_of = [&](size_t i) {
    return table.part(layer, parts[i]).of(expert).offset - window.offset;
  };
  const auto stay_before = [&](uint64_t place, uint64_t begin) {
    if (place > begin) needs.pad = std::max(needs.pad, place - begin);
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    const PartPlace& part = table.part(layer, parts[i]);
    if (part.form == nullptr) continue;
    const uint64_t place = place_behind(needs.end);
    needs.end = place + part.form->bytes();
    stay_before(place, begin_of(i));
    if (i + 1 < parts.size()) stay_before(needs.end, begin_of(i + 1));
  }
  return needs;
}

}  // namespace

uint64_t place_behind(uint64_t end) {
  return align_up(end, kPartAlignment);
}

uint64_t bytes_in_slot(const PartPlace& part) {
  return part.form == nullptr ? part.bytes : part.form->bytes();
}

SlotLayout::SlotLayout(const ExpertTable& table) {
  for (const LayerPlaces& layer : table.layers) {
    num_parts_max_ = std::max(num_parts_max_, layer.num_parts());
    reads_.push_back(join_parts(layer, table.num_experts));
    num_reads_max_ = std::max(num_reads_max_, static_cast<int>(reads_.back().size()));
  }
  read_of_.resize(table.layers.size() * static_cast<size_t>(num_parts_max_));
  for (int layer = 0; layer < table.num_layers(); ++layer) {
    uint64_t end = 0;
    int index = 0;
    for (JoinedRead& read : reads_[static_cast<size_t>(layer)]) {
      AreaNeeds most;
      for (int expert = 0; expert < table.num_experts; ++expert) {
        const AreaNeeds needs = needs_of(table, layer, expert, read.parts);
        most = {std::max(most.pad, needs.pad), std::max(most.window, needs.window),
                std::max(most.end, needs.end)};
      }
      const uint64_t pad = align_up(most.pad, kReadAlignment);
      read.area_offset = end;
      read.window_offset = end + pad;
      end += std::max(pad + most.window, align_up(most.end, kReadAlignment));
      for (const int part : read.parts) {
        read_of_[static_cast<size_t>(layer * num_parts_max_ + part)] = index;
      }
      ++index;
    }
    slot_bytes_ = std::max(slot_bytes_, end);
  }
}

uint64_t SlotLayout::read_bytes(const ExpertTable& table, int layer, int expert) const {
  uint64_t bytes = 0;
  for (const JoinedRead& read : reads(layer)) {
    bytes += table.window(layer, expert, read.parts).bytes;
  }
  return bytes;
}

}  // namespace penstock
