// Experts of a test that lie in files in any way, a store of them, what their rows become one by one, and a
// tier that has some of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_values.h"
#include "experts/local_experts.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"

namespace penstock::test {

// How the experts lie: three parts in two files, at odd offsets; or gate and up below each other in
// the one part, where their types allow it.
struct Laid {
  bool gate_up_together = false;
  uint64_t first = 0, gap = 0;  // before the first expert of a layer, and after each
};

class LaidExperts {
 public:
  static constexpr int kLayers = 3, kTopK = 2;
  static constexpr int64_t kHidden = 128, kWidth = 64;
  struct Expert {
    OwnedMatrix gate, up, down;
  };

  // For calls of so many tokens.
  LaidExperts(const Laid& laid, int num_experts, int64_t tokens_max)
      : laid_(laid), num_experts_(num_experts), tokens_max_(tokens_max) {
    Values source(5);
    for (const Types& types : kTypes) {
      for (int expert = 0; expert < num_experts; ++expert) {
        experts_.push_back({{types.gate, source, kWidth, kHidden},
                            {types.up, source, kWidth, kHidden},
                            {types.down, source, kHidden, kWidth}});
      }
    }
    lay_out();
    backend_ = new_backend(2);
  }

  std::unique_ptr<CpuBackend> new_backend(int threads) const {
    return *CpuBackend::create(threads, {.tokens = tokens_max_,
                                         .hidden_size = kHidden,
                                         .width = kHidden,
                                         .top_k = kTopK,
                                         .expert_width = kWidth});
  }
  const Expert& expert_of(int layer, int expert) const {
    return experts_[static_cast<size_t>(layer * num_experts_ + expert)];
  }
  const ExpertForm& form_of(int layer) const { return forms_[static_cast<size_t>(layer)]; }
  int64_t tokens_max() const { return tokens_max_; }

 protected:
  void make(int num_slots, uint64_t seed = 1, ExpertTier* tier = nullptr) {
    local_.reset();
    store_ = *ExpertStore::create(
        table_,
        std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed, .depth = 16}, &faults_),
        {.num_slots = num_slots, .team = &backend_->team()});
    local_.emplace(*store_, *backend_, forms_, hidden_.rows, tier);
  }

  Routing routing(int64_t tokens, std::mt19937& random) const {
    Routing made{.num_tokens = tokens, .top_k = kTopK, .experts = {}, .weights = {}};
    for (int64_t t = 0; t < tokens; ++t) {
      const auto first = static_cast<int32_t>(random() % num_experts_);
      made.experts.push_back(first);
      made.experts.push_back((first + 1 + static_cast<int32_t>(random() % (num_experts_ - 1))) %
                             num_experts_);
    }
    return made;
  }

  // One row after the other, with the matrices as they were made.
  OwnedRows expected(int layer, const Routing& routing, Rows x) {
    const OwnedRows out(tokens_max_ * kTopK, kHidden);
    const OwnedRows hidden(tokens_max_ * kTopK, kWidth);
    for (int32_t place = 0; place < routing.num_tokens * kTopK; ++place) {
      const int32_t token = place / kTopK;
      const Expert& expert = expert_of(layer, routing.experts[static_cast<size_t>(place)]);
      const ExpertWork work{.gate = expert.gate.matrix,
                            .up = expert.up.matrix,
                            .down = expert.down.matrix,
                            .tokens = std::span(&token, 1),
                            .places = std::span(&place, 1)};
      backend_->expert_gate_up(x, std::span(&work, 1), hidden.rows);
      backend_->expert_down(hidden.rows, std::span(&work, 1), out.rows);
    }
    return out;
  }

 private:
  // The types of a layer's matrices.
  struct Types {
    DType gate, up, down;
  };
  static constexpr Types kTypes[kLayers] = {{DType::kQ4, DType::kQ4, DType::kQ8},
                                            {DType::kQ4, DType::kBF16, DType::kQ3},
                                            {DType::kF32, DType::kF32, DType::kF32}};

  static std::span<const std::byte> bytes_of(const OwnedMatrix& matrix) {
    const Matrix& m = matrix.matrix;
    return {m.panels, static_cast<size_t>(panel_bytes(m.dtype, m.rows, m.columns))};
  }

  void lay_out() {
    for (int file = 0; file < 2; ++file) {
      written_.push_back(*disk_.open(path_of(file), OpenMode::kCreate));
    }
    uint64_t ends[2] = {laid_.first, laid_.first / 2};
    for (int layer = 0; layer < kLayers; ++layer) {
      const bool together = laid_.gate_up_together && kTypes[layer].gate == kTypes[layer].up;
      LayerPlaces places;
      const auto add = [&](int file, DType type, const auto& bytes_at) {
        const uint64_t bytes = bytes_at(0).size();
        const int part = places.num_parts();
        places.parts.push_back({.first = {file, ends[file]},
                                .stride = bytes + laid_.gap,
                                .bytes = bytes,
                                .tag = static_cast<uint32_t>(type),
                                .alignment = kPanelAlignment});
        for (int e = 0; e < num_experts_; ++e) {
          written_[static_cast<size_t>(file)]->write(ends[file], bytes_at(e)).value();
          ends[file] += bytes + laid_.gap;
        }
        return part;
      };
      const Types& types = kTypes[layer];
      ExpertForm form;
      form.gate.matrix = {types.gate, kWidth, kHidden, nullptr};
      form.up.matrix = {types.up, kWidth, kHidden, nullptr};
      form.down.matrix = {types.down, kHidden, kWidth, nullptr};
      if (together) {
        form.gate.matrix.rows = form.up.matrix.rows = 2 * kWidth;
        form.up.first_row = kWidth;
        form.gate.part = form.up.part = add(0, types.gate, [&](int e) {
          std::vector<std::byte> both(bytes_of(expert_of(layer, e).gate).begin(),
                                      bytes_of(expert_of(layer, e).gate).end());
          const auto up = bytes_of(expert_of(layer, e).up);
          both.insert(both.end(), up.begin(), up.end());
          return both;
        });
      } else {
        form.gate.part =
            add(0, types.gate, [&](int e) { return bytes_of(expert_of(layer, e).gate); });
        form.up.part = add(1, types.up, [&](int e) { return bytes_of(expert_of(layer, e).up); });
        places.first_parts = 2;
      }
      form.down.part =
          add(0, types.down, [&](int e) { return bytes_of(expert_of(layer, e).down); });
      for (int e = 0; e < num_experts_; ++e) {
        for (int part = 0; part < places.num_parts(); ++part) {
          const PartPlace& place = places.parts[static_cast<size_t>(part)];
          std::vector<std::byte> payload(place.bytes);
          read_exactly(*written_[static_cast<size_t>(place.of(e).file)], place.of(e).offset,
                       payload)
              .value();
          places.checksums.push_back(part_checksum(3, layer, e, part, payload));
        }
      }
      table_.layers.push_back(std::move(places));
      forms_.push_back(form);
    }
    table_.num_experts = num_experts_;
    table_.model_id = 3;
    for (int file = 0; file < 2; ++file) {
      files_.push_back(*disk_.open(path_of(file), OpenMode::kReadDirect));
      table_.files.push_back(files_.back().get());
    }
  }

  static std::string path_of(int file) { return file == 0 ? "/gate" : "/up"; }

  const Laid laid_;
  const int num_experts_;
  const int64_t tokens_max_;
  std::vector<Expert> experts_;
  SimStorage disk_{7};
  std::vector<std::unique_ptr<StorageFile>> written_, files_;
  ExpertTable table_;
  std::vector<ExpertForm> forms_;
  OwnedRows hidden_{tokens_max_ * kTopK, kWidth};

 protected:
  FakeFaults faults_;
  std::unique_ptr<CpuBackend> backend_;
  std::unique_ptr<ExpertStore> store_;
  std::optional<LocalExperts> local_;
};

// A tier that has the odd experts of every layer, until it is lost: at a call, before or after it has
// written rows. Experts are computed by a backend of its own.
class OddTier : public ExpertTier {
 public:
  explicit OddTier(const LaidExperts& experts)
      : experts_(experts),
        backend_(experts.new_backend(1)),
        hidden_(experts.tokens_max() * LaidExperts::kTopK, LaidExperts::kWidth) {}
  bool has(int, int expert) const override { return !is_lost_ && expert % 2 == 1; }
  void choose(int layer, const RoutedRows& rows, std::vector<int32_t>& left) override {
    layer_ = layer;
    rows_ = &rows;
    left.clear();
    for (size_t i = 0; i < rows.experts().size(); ++i) {
      if (has(layer, rows.experts()[i])) {
        taken_.push_back(i);
      } else {
        left.push_back(static_cast<int32_t>(i));
      }
    }
  }
  void begin(Rows x) override { x_ = x; }
  void offer(int expert, std::span<const std::byte* const> parts) override {
    EXPECT_FALSE(has(layer_, expert));
    EXPECT_FALSE(parts.empty());
    EXPECT_EQ(std::ranges::count(parts, nullptr), 0);
    ++offers;
  }
  bool finish(Rows out) override {
    is_lost_ = is_lost_ || calls_before_loss-- == 0;
    for (const size_t i : taken_) {
      if (is_lost_ && i == taken_.back()) break;
      const LaidExperts::Expert& expert = experts_.expert_of(layer_, rows_->experts()[i]);
      compute({.gate = expert.gate.matrix,
               .up = expert.up.matrix,
               .down = expert.down.matrix,
               .tokens = rows_->tokens(i),
               .places = rows_->places(i)},
              out);
      ++computed;
    }
    return !is_lost_ || taken_.empty();
  }
  void end() override {
    taken_.clear();
    ++ends;
  }

  int calls_before_loss = -1;
  int offers = 0, computed = 0, ends = 0;

 protected:
  void compute(const ExpertWork& work, Rows out) {
    backend_->expert_gate_up(x_, std::span(&work, 1), hidden_.rows);
    backend_->expert_down(hidden_.rows, std::span(&work, 1), out);
  }

  const LaidExperts& experts_;
  bool is_lost_ = false;
  int layer_ = 0;
  const RoutedRows* rows_ = nullptr;

 private:
  std::unique_ptr<CpuBackend> backend_;
  OwnedRows hidden_;
  Rows x_;
  std::vector<size_t> taken_;
};

}  // namespace penstock::test
