// Rows through experts that lie in files in any way: the same bits as a call of the ops with all
// matrices at hand.

#include "experts/local_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_values.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr int kLayers = 3, kExperts = 6, kTopK = 2;
constexpr int64_t kHidden = 128, kWidth = 64, kTokensMax = 9;

// The types of a layer's matrices.
struct Types {
  DType gate, up, down;
};
constexpr Types kTypes[kLayers] = {{DType::kQ4, DType::kQ4, DType::kQ8},
                                   {DType::kQ4, DType::kBF16, DType::kQ3},
                                   {DType::kF32, DType::kF32, DType::kF32}};

struct Expert {
  OwnedMatrix gate, up, down;
};

// How the experts lie: three parts in two files, at odd offsets; or gate and up below each other in
// the one part, where their types allow it.
struct Laid {
  bool gate_up_together = false;
  uint64_t first = 0, gap = 0;  // before the first expert of a layer, and after each
};

// A tier that has the odd experts of every layer, until it is lost: at a call, before or after it has
// written rows. Experts are computed by a backend of its own.
class OddTier final : public ExpertTier {
 public:
  explicit OddTier(const std::vector<Expert>& experts) : experts_(experts) {
    backend_ = *CpuBackend::create(1, {.tokens = kTokensMax,
                                       .hidden_size = kHidden,
                                       .width = kHidden,
                                       .top_k = kTopK,
                                       .expert_width = kWidth});
  }
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
      const Expert& expert = experts_[static_cast<size_t>(layer_ * kExperts + rows_->experts()[i])];
      const ExpertWork work{.gate = expert.gate.matrix,
                            .up = expert.up.matrix,
                            .down = expert.down.matrix,
                            .tokens = rows_->tokens(i),
                            .places = rows_->places(i)};
      backend_->expert_gate_up(x_, std::span(&work, 1), hidden_.rows);
      backend_->expert_down(hidden_.rows, std::span(&work, 1), out);
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

 private:
  const std::vector<Expert>& experts_;
  std::unique_ptr<CpuBackend> backend_;
  OwnedRows hidden_{kTokensMax * kTopK, kWidth};
  bool is_lost_ = false;
  int layer_ = 0;
  const RoutedRows* rows_ = nullptr;
  Rows x_;
  std::vector<size_t> taken_;
};

class ExpertsByRows : public testing::TestWithParam<Laid> {
 protected:
  ExpertsByRows() {
    Values source(5);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int expert = 0; expert < kExperts; ++expert) {
        experts_.push_back({{kTypes[layer].gate, source, kWidth, kHidden},
                            {kTypes[layer].up, source, kWidth, kHidden},
                            {kTypes[layer].down, source, kHidden, kWidth}});
      }
    }
    lay_out();
    backend_ = *CpuBackend::create(2, {.tokens = kTokensMax,
                                       .hidden_size = kHidden,
                                       .width = kHidden,
                                       .top_k = kTopK,
                                       .expert_width = kWidth});
  }

  const Expert& expert_of(int layer, int expert) const {
    return experts_[static_cast<size_t>(layer * kExperts + expert)];
  }

  static std::span<const std::byte> bytes_of(const OwnedMatrix& matrix) {
    const Matrix& m = matrix.matrix;
    return {m.panels, static_cast<size_t>(panel_bytes(m.dtype, m.rows, m.columns))};
  }

  void lay_out() {
    for (int file = 0; file < 2; ++file) {
      written_.push_back(*disk_.open(path_of(file), OpenMode::kCreate));
    }
    uint64_t ends[2] = {GetParam().first, GetParam().first / 2};
    for (int layer = 0; layer < kLayers; ++layer) {
      const bool together = GetParam().gate_up_together && kTypes[layer].gate == kTypes[layer].up;
      LayerPlaces places;
      const auto add = [&](int file, DType type, const auto& bytes_at) {
        const uint64_t bytes = bytes_at(0).size();
        const int part = places.num_parts();
        places.parts.push_back({.first = {file, ends[file]},
                                .stride = bytes + GetParam().gap,
                                .bytes = bytes,
                                .tag = static_cast<uint32_t>(type),
                                .alignment = kPanelAlignment});
        for (int e = 0; e < kExperts; ++e) {
          written_[static_cast<size_t>(file)]->write(ends[file], bytes_at(e)).value();
          ends[file] += bytes + GetParam().gap;
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
      for (int e = 0; e < kExperts; ++e) {
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
    table_.num_experts = kExperts;
    table_.model_id = 3;
    for (int file = 0; file < 2; ++file) {
      files_.push_back(*disk_.open(path_of(file), OpenMode::kReadDirect));
      table_.files.push_back(files_.back().get());
    }
  }

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
      const auto first = static_cast<int32_t>(random() % kExperts);
      made.experts.push_back(first);
      made.experts.push_back((first + 1 + static_cast<int32_t>(random() % (kExperts - 1))) %
                             kExperts);
    }
    return made;
  }

  // One row after the other, with the matrices as they were made.
  OwnedRows expected(int layer, const Routing& routing, Rows x) {
    const OwnedRows out(kTokensMax * kTopK, kHidden);
    const OwnedRows hidden(kTokensMax * kTopK, kWidth);
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

  static std::string path_of(int file) { return file == 0 ? "/gate" : "/up"; }

  std::vector<Expert> experts_;
  SimStorage disk_{7};
  std::vector<std::unique_ptr<StorageFile>> written_, files_;
  ExpertTable table_;
  std::vector<ExpertForm> forms_;
  FakeFaults faults_;
  std::unique_ptr<CpuBackend> backend_;
  OwnedRows hidden_{kTokensMax * kTopK, kWidth};
  std::unique_ptr<ExpertStore> store_;
  std::optional<LocalExperts> local_;
};

INSTANTIATE_TEST_SUITE_P(Laid, ExpertsByRows,
                         testing::Values(Laid{.gate_up_together = true},
                                         Laid{.gate_up_together = true, .first = 4099, .gap = 13},
                                         Laid{.first = 96, .gap = 0}, Laid{.first = 8191, .gap = 1},
                                         Laid{.first = 4096, .gap = 4096}),
                         [](const auto& test) {
                           return std::string(test.param.gate_up_together ? "together" : "apart") +
                                  "_from_" + std::to_string(test.param.first);
                         });

TEST_P(ExpertsByRows, rows_are_the_same_bits_wherever_the_experts_lie) {
  Values source(9);
  const OwnedRows x(source, kTokensMax, kHidden);
  for (const int num_slots : {1, 3, kLayers * kExperts}) {
    make(num_slots, static_cast<uint64_t>(num_slots));
    std::mt19937 random(static_cast<uint32_t>(num_slots));
    for (int run = 0; run < 18; ++run) {
      const int layer = run % kLayers;
      const Routing chosen = routing(run % 4 == 0 ? 1 : kTokensMax - run % 3, random);
      const OwnedRows out(kTokensMax * kTopK, kHidden);
      ExpertRun begun = local_->begin(layer, chosen, x.rows);
      const auto times = begun.finish(out.rows, {});
      ASSERT_TRUE(times.has_value()) << times.error().message;
      EXPECT_TRUE(same_bits(out.values, expected(layer, chosen, x.rows).values)) << run;
    }
    EXPECT_EQ(store_->stats().evictions > 0, num_slots < kLayers * kExperts);
    EXPECT_GT(store_->stats().bytes_verified, 0u);
  }
}

TEST_P(ExpertsByRows, a_run_that_is_dropped_or_cancelled_leaves_nothing_behind) {
  make(4);
  Values source(2);
  std::mt19937 random(2);
  const OwnedRows x(source, kTokensMax, kHidden), out(kTokensMax * kTopK, kHidden);
  const Routing chosen = routing(kTokensMax, random);
  for (int round = 0; round < 5; ++round) {
    { const ExpertRun dropped = local_->begin(1, chosen, x.rows); }
    EXPECT_EQ(store_->resize(2 + round % 2), 2 + round % 2);  // nobody holds a slot
    std::stop_source stop;
    stop.request_stop();
    {
      ExpertRun cancelled = local_->begin(2, chosen, x.rows);
      EXPECT_EQ(cancelled.finish(out.rows, stop.get_token()).error().code, ErrorCode::kCancelled);
    }
    ExpertRun whole = local_->begin(0, chosen, x.rows);
    ASSERT_TRUE(whole.finish(out.rows, {}).has_value());
    EXPECT_TRUE(same_bits(out.values, expected(0, chosen, x.rows).values));
  }
}

TEST_P(ExpertsByRows, a_read_that_fails_is_an_error_with_its_place_and_heals) {
  Values source(4);
  std::mt19937 random(4);
  const OwnedRows x(source, kTokensMax, kHidden), out(kTokensMax * kTopK, kHidden);
  const Routing chosen = routing(kTokensMax, random);
  make(kExperts);
  faults_.fail_read(faults_.reads_submitted() + 1, EIO, Lasting::kForGood);
  {
    ExpertRun failed = local_->begin(1, chosen, x.rows);
    const auto times = failed.finish(out.rows, {});
    ASSERT_FALSE(times.has_value());
    EXPECT_EQ(times.error().code, ErrorCode::kIo);
    EXPECT_NE(times.error().message.find("layer 1 expert"), std::string::npos);
  }
  faults_.heal();
  ExpertRun healed = local_->begin(1, chosen, x.rows);
  ASSERT_TRUE(healed.finish(out.rows, {}).has_value());
  EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
}

TEST_P(ExpertsByRows, a_tier_computes_what_it_has_and_may_be_lost_at_any_call) {
  Values source(12);
  const OwnedRows x(source, kTokensMax, kHidden);
  constexpr int kRuns = 10;
  for (int lost_at = 0; lost_at <= kRuns; ++lost_at) {
    OddTier tier(experts_);
    tier.calls_before_loss = lost_at;
    make(lost_at % 2 == 0 ? 2 : kLayers * kExperts, 3, &tier);
    std::mt19937 random(4);
    for (int run = 0; run < kRuns; ++run) {
      const int layer = run % kLayers;
      const Routing chosen = routing(run % 3 == 0 ? 1 : kTokensMax, random);
      const OwnedRows out(kTokensMax * kTopK, kHidden);
      ExpertRun begun = local_->begin(layer, chosen, x.rows);
      const auto times = begun.finish(out.rows, {});
      ASSERT_TRUE(times.has_value()) << times.error().message;
      EXPECT_TRUE(same_bits(out.values, expected(layer, chosen, x.rows).values)) << run;
    }
    EXPECT_EQ(tier.ends, kRuns);
    EXPECT_GT(tier.offers, 0);
    EXPECT_TRUE(tier.computed > 0 || lost_at < 3);
    EXPECT_GE(store_->stats().nearer, static_cast<uint64_t>(tier.computed));
    { const ExpertRun dropped = local_->begin(0, routing(3, random), x.rows); }
    EXPECT_EQ(tier.ends, kRuns + 1);
    local_.reset();
  }
}

TEST_P(ExpertsByRows, nothing_is_read_ahead_that_a_tier_has) {
  OddTier tier(experts_);
  make(kLayers * kExperts - 1, 1, &tier);
  Values source(6);
  const OwnedRows x(source, kTokensMax, kHidden), y(kTokensMax, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  const Routing guess{.num_tokens = 3, .top_k = 2, .experts = {4, 2, 4, 5, 4, 1}, .weights = {}};
  local_->foresee(1, guess);
  for (int op = 0; op < 20; ++op) backend_->matmul(x.rows, projection);
  EXPECT_EQ(store_->stats().prefetches, 2u);
  local_.reset();
}

TEST_P(ExpertsByRows, what_is_foreseen_is_read_between_ops) {
  make(kLayers * kExperts - 1);
  Values source(6);
  const OwnedRows x(source, kTokensMax, kHidden), y(kTokensMax, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  EXPECT_TRUE(local_->wants_foresight());
  Routing guess{.num_tokens = 3, .top_k = 2, .experts = {4, 2, 4, 5, 4, 1}, .weights = {}};
  local_->foresee(1, guess);
  const uint64_t at_once = store_->stats().prefetches;
  EXPECT_LT(at_once, 4u);
  for (int op = 0; op < 20; ++op) backend_->matmul(x.rows, projection);
  EXPECT_EQ(store_->stats().prefetches, 4u);
  const Routing chosen{.num_tokens = 1, .top_k = 2, .experts = {4, 5}, .weights = {}};
  const OwnedRows out(kTokensMax * kTopK, kHidden);
  ExpertRun run = local_->begin(1, chosen, x.rows);
  ASSERT_TRUE(run.finish(out.rows, {}).has_value());
  EXPECT_EQ(store_->stats().prefetches_used, 2u);
  EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
}

TEST_P(ExpertsByRows, nobody_is_called_between_ops_once_the_experts_are_gone) {
  make(4);
  local_.reset();
  store_.reset();
  Values source(8);
  const OwnedRows x(source, 2, kHidden), y(2, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  backend_->matmul(x.rows, projection);
}

}  // namespace
}  // namespace penstock
