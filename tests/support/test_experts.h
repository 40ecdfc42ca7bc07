// Files of made-up experts for the store's tests: every byte follows from (layer, expert, part).
//
// As our own models have them (records of two parts in one file), or laid out as any table says.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/expert_store.h"

namespace penstock {

// The first `bytes` bytes of a part.
inline std::span<const std::byte> test_payload(int layer, int expert, int part, uint64_t bytes) {
  static std::map<std::array<int, 3>, std::vector<std::byte>> known;
  std::vector<std::byte>& payload = known[{layer, expert, part}];
  if (payload.size() < bytes) {
    payload.resize(bytes);
    uint32_t state = static_cast<uint32_t>((layer * 1000 + expert) * 16 + part + 1) * 2654435761u;
    for (std::byte& byte : payload) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<std::byte>(state >> 24);
    }
  }
  return std::span(payload).first(bytes);
}

class TestExperts {
 public:
  static constexpr int kLayers = 5;
  static constexpr int kExperts = 12;
  static constexpr uint64_t kFirst = 2 * kReadAlignment;
  static constexpr uint64_t kRecord = 4 * kReadAlignment;
  static constexpr uint64_t kModelId = 77;

  // Part 0 ends inside its second block, part 1 fills its blocks; each needs its alignment, as in our
  // own models, and so a read of its own.
  static std::vector<LayerPlaces> records() {
    std::vector<LayerPlaces> layers(kLayers);
    for (uint64_t i = 0; i < kLayers; ++i) {
      const uint64_t first = kFirst + i * kExperts * kRecord;
      layers[i].parts = {
          {.first = {0, first}, .stride = kRecord, .bytes = kReadAlignment + 1000, .alignment = 64},
          {.first = {0, first + 2 * kReadAlignment},
           .stride = kRecord,
           .bytes = 2 * kReadAlignment,
           .alignment = 64}};
    }
    return layers;
  }

  // File 0 is `path`, the others are path.1 and so on; each ends with its last part.
  TestExperts(Storage& disk, const std::string& path, std::vector<LayerPlaces> layers = records(),
              int num_experts = kExperts, OpenMode mode = OpenMode::kReadDirect) {
    table_ = {.num_experts = num_experts, .layers = std::move(layers), .model_id = kModelId};
    std::vector<std::unique_ptr<StorageFile>> written;
    for (int layer = 0; layer < table_.num_layers(); ++layer) {
      LayerPlaces& places = table_.layers[static_cast<size_t>(layer)];
      for (int expert = 0; expert < num_experts; ++expert) {
        for (int part = 0; part < places.num_parts(); ++part) {
          const FilePlace place = places.parts[static_cast<size_t>(part)].of(expert);
          const auto bytes =
              test_payload(layer, expert, part, places.parts[static_cast<size_t>(part)].bytes);
          const auto file = static_cast<size_t>(place.file);
          while (written.size() <= file) {
            written.push_back(*disk.open(path_of(path, written.size()), OpenMode::kCreate));
          }
          written[file]->write(place.offset, bytes).value();
          places.checksums.push_back(part_checksum(kModelId, layer, expert, part, bytes));
        }
      }
    }
    for (size_t file = 0; file < written.size(); ++file) {
      written[file]->sync().value();
      files_.push_back(*disk.open(path_of(path, file), mode));
      table_.files.push_back(files_.back().get());
    }
  }

  const ExpertTable& table() const { return table_; }
  uint64_t offset(int layer, int expert, int part = 0) const {
    return table_.part(layer, part).of(expert).offset;
  }

 private:
  static std::string path_of(const std::string& path, size_t file) {
    return file == 0 ? path : path + "." + std::to_string(file);
  }

  std::vector<std::unique_ptr<StorageFile>> files_;
  ExpertTable table_;
};

inline bool is_right(const ExpertStore& store, const ExpertArrival& arrival, int layer,
                     int expert) {
  const PartPlace& place = store.table().part(layer, arrival.part);
  const auto truth = test_payload(layer, expert, arrival.part, place.bytes);
  if (place.form == nullptr) return std::ranges::equal(arrival.data, truth);
  const auto laid_out = static_cast<size_t>(place.form->bytes());
  std::vector<std::byte> area(std::max<size_t>(truth.size(), laid_out));
  std::ranges::copy(truth, area.begin());
  place.form->lay_out(std::span(area).first(truth.size()), std::span(area).first(laid_out));
  return std::ranges::equal(arrival.data, std::span(area).first(laid_out));
}

inline std::vector<int32_t> all_experts() {
  std::vector<int32_t> experts(TestExperts::kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  return experts;
}

// What a layer of a model does: takes every part as it comes, compares its bytes with the truth,
// releases each expert after its last part. The number of experts received, or the error.
inline Result<int> run_layer(ExpertStore& store, int layer, const std::vector<int32_t>& experts,
                             std::stop_token stop = {}) {
  ExpertStream stream = store.stream(layer, experts);
  const int num_parts = store.table().layer(layer).num_parts();
  int received = 0;
  std::set<std::pair<int, int>> seen;
  for (;;) {
    const auto arrived = PENSTOCK_TRY(stream.next(stop));
    if (arrived.empty()) break;
    for (const ExpertArrival& arrival : arrived) {
      const int expert = experts[static_cast<size_t>(arrival.index)];
      EXPECT_TRUE(is_right(store, arrival, layer, expert))
          << "layer " << layer << " expert " << expert << " part " << arrival.part;
      EXPECT_TRUE(seen.insert({arrival.index, arrival.part}).second);
      EXPECT_TRUE(arrival.part == 0 || seen.count({arrival.index, arrival.part - 1}) > 0);
      if (arrival.part + 1 < num_parts) continue;
      stream.release(arrival.index);
      ++received;
    }
  }
  EXPECT_EQ(received, static_cast<int>(experts.size()));
  return received;
}

}  // namespace penstock
