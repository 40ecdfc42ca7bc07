#include "pack/loss_survey.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/thread.h"
#include "base/thread_pool.h"
#include "compute/panel.h"

namespace penstock {
namespace {

constexpr size_t kTypes = kPlannedTypes.size();

// Of several experts.
struct PartLosses {
  std::array<double, kTypes> lost{};
  std::array<double, kTypes> whole{};

  void add(size_t type, double some_lost, double some_whole) {
    lost[type] += some_lost;
    whole[type] += some_whole;
  }
  std::array<double, kTypes> shares() const {
    std::array<double, kTypes> shares{};
    for (size_t i = 0; i < kTypes; ++i) shares[i] = whole[i] > 0 ? lost[i] / whole[i] : 0;
    return shares;
  }
};

class Survey {
 public:
  explicit Survey(const SurveyWork& work) : work_(work), pool_(work.num_threads) {}

  Result<std::vector<LayerLosses>> run();

 private:
  Result<LayerLosses> of_layer(int64_t layer);
  void add_alone(std::span<const float> values, PartLosses& losses);
  Result<void> add_calibrated(int64_t layer, int64_t expert, PartLosses& gate_up, PartLosses& down);
  Result<void> read(int64_t layer, int64_t expert);

  const SurveyWork& work_;
  ThreadPool pool_;
  std::vector<float> gate_up_, down_;
  uint64_t done_ = 0;
};

// Panels of groups are tasks; what each lost is added up in their order.
void Survey::add_alone(std::span<const float> values, PartLosses& losses) {
  constexpr size_t kTaskValues = kGroupColumns * 256;
  const size_t num_tasks = (values.size() + kTaskValues - 1) / kTaskValues;
  std::vector<std::array<double, kTypes + 1>> sums(num_tasks);
  pool_.run(static_cast<int64_t>(num_tasks), [&](int64_t task, int) {
    const auto at = static_cast<size_t>(task);
    const auto some =
        values.subspan(at * kTaskValues, std::min(kTaskValues, values.size() - at * kTaskValues));
    std::array<double, kTypes + 1> sum{};
    for (size_t begin = 0; begin < some.size(); begin += kGroupColumns) {
      const auto group = some.subspan(begin).first<kGroupColumns>();
      for (size_t i = 0; i < kTypes; ++i) {
        const int bits = bits_of(kPlannedTypes[i]);
        const AffineGroup stored = work_.quantiser == Quantiser::kSearch
                                       ? search_group(group, bits)
                                       : quantise_group(group, bits);
        sum[i] += group_error(group, stored);
      }
      for (const float value : group) sum[kTypes] += double{value} * double{value};
    }
    sums[at] = sum;
  });
  for (const auto& sum : sums) {
    for (size_t i = 0; i < kTypes; ++i) losses.add(i, sum[i], sum[kTypes]);
  }
}

Result<void> Survey::add_calibrated(int64_t layer, int64_t expert, PartLosses& gate_up,
                                    PartLosses& down) {
  const auto add = [](const std::vector<FeedbackLoss>& from, PartLosses& to) {
    for (size_t i = 0; i < kTypes; ++i) to.add(i, from[i].stored, from[i].whole);
  };
  add(PENSTOCK_TRY(work_.calibrated->survey_gate_up(layer, expert, kPlannedTypes, gate_up_)),
      gate_up);
  add(PENSTOCK_TRY(work_.calibrated->survey_down(layer, expert, kPlannedTypes, gate_up_, down_)),
      down);
  return {};
}

Result<void> Survey::read(int64_t layer, int64_t expert) {
  if (work_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
  PENSTOCK_TRY(work_.read(layer, expert, kGateUpPart, gate_up_));
  return work_.read(layer, expert, kDownPart, down_);
}

Result<LayerLosses> Survey::of_layer(int64_t layer) {
  const bool is_calibrated = work_.calibrated != nullptr && work_.calibrated->has(layer);
  const int64_t count = std::min(kSurveyExperts, work_.shape.num_experts);
  PartLosses gate_up, down, gate_up_alone, down_alone;
  bool has_seen = false;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t expert = i * work_.shape.num_experts / count;
    PENSTOCK_TRY(read(layer, expert));
    if (is_calibrated && PENSTOCK_TRY(work_.calibrated->has_seen(layer, expert))) {
      PENSTOCK_TRY(add_calibrated(layer, expert, gate_up, down));
      has_seen = true;
    } else if (!has_seen) {
      add_alone(gate_up_, gate_up_alone);
      add_alone(down_, down_alone);
    }
    ++done_;
    if (work_.on_progress) {
      work_.on_progress(done_, static_cast<uint64_t>(count * work_.shape.num_layers));
    }
  }
  if (has_seen) return LayerLosses{gate_up.shares(), down.shares()};
  return LayerLosses{gate_up_alone.shares(), down_alone.shares()};
}

Result<std::vector<LayerLosses>> Survey::run() {
  PENSTOCK_TRY(check_team(pool_, work_.num_threads));
  std::vector<LayerLosses> losses;
  for (int64_t layer = 0; layer < work_.shape.num_layers; ++layer) {
    losses.push_back(PENSTOCK_TRY(of_layer(layer)));
  }
  return losses;
}

}  // namespace

Result<std::vector<LayerLosses>> survey_losses(const SurveyWork& work) {
  return Survey(work).run();
}

Result<void> check_target_bytes(const ExpertShape& shape, uint64_t target_bytes) {
  const std::vector<LayerLosses> none(static_cast<size_t>(shape.num_layers));
  PENSTOCK_TRY(plan_bits(shape, none, target_bytes));
  return {};
}

SurveyWork survey_work(const PackOptions& options, const ExpertShape& shape, std::stop_token stop) {
  return {.shape = shape,
          .quantiser = options.quantiser,
          .num_threads = options.num_threads,
          .read = {},
          .on_progress = options.on_survey,
          .stop = std::move(stop)};
}

Result<std::vector<LayerTypes>> survey_and_plan(const SurveyWork& work,
                                                const PackOptions& options) {
  const std::vector<LayerLosses> losses = PENSTOCK_TRY(survey_losses(work));
  const BitPlan plan = PENSTOCK_TRY(plan_bits(work.shape, losses, *options.target_bytes));
  if (options.on_plan) options.on_plan(plan);
  return plan.layers;
}

}  // namespace penstock
