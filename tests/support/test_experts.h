// A file of made-up experts for the store's tests: every byte follows from (layer, expert, part).
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "store/expert_store.h"

namespace penstock {

class TestExperts {
 public:
  static constexpr int kLayers = 5;
  static constexpr int kExperts = 12;
  static constexpr uint64_t kFirst = 2 * kRecordAlignment;
  static constexpr uint64_t kRecord = 4 * kRecordAlignment;
  static constexpr uint64_t kModelId = 77;

  // Part 0 ends inside its second block, part 1 fills its blocks.
  static std::vector<PartExtent> parts() {
    return {{.offset = 0, .bytes = kRecordAlignment + 1000},
            {.offset = 2 * kRecordAlignment, .bytes = 2 * kRecordAlignment}};
  }

  static const std::vector<std::byte>& payload(int layer, int expert, int part) {
    static const auto payloads = [] {
      std::vector<std::vector<std::byte>> all;
      for (uint32_t i = 0; i < kLayers * kExperts * 2; ++i) {
        all.emplace_back(parts()[i % 2].bytes);
        uint32_t state = (i + 1) * 2654435761u;
        for (std::byte& byte : all.back()) {
          state = state * 1664525u + 1013904223u;
          byte = static_cast<std::byte>(state >> 24);
        }
      }
      return all;
    }();
    return payloads[static_cast<size_t>((layer * kExperts + expert) * 2 + part)];
  }

  static bool is_right(const ExpertArrival& arrival, int layer, int expert) {
    const std::vector<std::byte>& truth = payload(layer, expert, arrival.part);
    return arrival.data.size() == truth.size() &&
           std::memcmp(arrival.data.data(), truth.data(), truth.size()) == 0;
  }

  TestExperts(Storage& disk, const std::string& path) {
    const auto file = *disk.open(path, OpenMode::kCreate);
    table_ = {.num_layers = kLayers,
              .num_experts = kExperts,
              .first_record_offset = kFirst,
              .record_bytes = kRecord,
              .parts = parts(),
              .model_id = kModelId};
    // To the end of the last record, so that every window of a direct read lies in the file.
    file->write(0, std::vector<std::byte>(table_.record_offset(kLayers, 0))).value();
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int expert = 0; expert < kExperts; ++expert) {
        for (int part = 0; part < table_.num_parts(); ++part) {
          const auto& bytes = payload(layer, expert, part);
          const uint64_t offset =
              table_.record_offset(layer, expert) + table_.parts[static_cast<size_t>(part)].offset;
          file->write(offset, bytes).value();
          table_.checksums.push_back(part_checksum(kModelId, layer, expert, part, bytes));
        }
      }
    }
    file->sync().value();
    file_ = *disk.open(path, OpenMode::kReadDirect);
    table_.file = file_.get();
  }

  const ExpertTable& table() const { return table_; }
  const StorageFile& file() const { return *file_; }

 private:
  std::unique_ptr<StorageFile> file_;
  ExpertTable table_;
};

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
  int received = 0;
  std::set<std::pair<int, int>> seen;
  for (;;) {
    const auto arrived = PENSTOCK_TRY(stream.next(stop));
    if (arrived.empty()) break;
    for (const ExpertArrival& arrival : arrived) {
      const int expert = experts[static_cast<size_t>(arrival.index)];
      EXPECT_TRUE(TestExperts::is_right(arrival, layer, expert))
          << "layer " << layer << " expert " << expert << " part " << arrival.part;
      EXPECT_TRUE(seen.insert({arrival.index, arrival.part}).second);
      EXPECT_TRUE(arrival.part == 0 || seen.count({arrival.index, arrival.part - 1}) > 0);
      if (arrival.part + 1 < static_cast<int>(TestExperts::parts().size())) continue;
      stream.release(arrival.index);
      ++received;
    }
  }
  EXPECT_EQ(received, static_cast<int>(experts.size()));
  return received;
}

}  // namespace penstock
