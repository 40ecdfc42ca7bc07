// Gates of where experts are computed, in the manner of gates_test.cc, on Mesa's software device with
// the validation layers listening:
//
//   G27 experts in a GPU's memory: in any number of slots, for any choice of who computes what,
//       whatever is copied over and when, late or not; a device that is lost, silent or out of memory
//       at any point: the logits of the processors alone, within the memory that was allowed
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "engine/gpu_setup.h"
#include "gates/gpu_answer.h"
#include "gpu/test_gpu.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Answer = GpuAnswer;

Answer gpu_answer(Engine& engine) {
  return answer_to(engine, 14);
}

struct GpuModel {
  const char* name;
  DType experts;  // of the small checkpoint; the other one has four bits
  bool is_small = true;
};

class GpuGate : public ::testing::TestWithParam<GpuModel> {
 protected:
  static std::string model() {
    const GpuModel& param = GetParam();
    return param.is_small ? packed(data_path("random/r2-top1"), param.experts) : model_with_block();
  }
  static EngineOptions options() { return small_options(model()); }

  // Told lines go to lines_.
  EngineOptions on_gpu(int64_t slots) {
    EngineOptions with = options();
    with.gpu.device = kSoftwareGpu;
    with.gpu.vram_bytes = kPlentyOfVram;
    with.gpu.num_slots = slots;
    with.gpu.prompts = SideRule::kDevice;
    with.gpu.probe_inputs = 64;
    with.gpu.validate = true;
    with.tell = [this](const std::string& line) { lines_.push_back(line); };
    return with;
  }

  static const Answer& without_gpu() {
    static std::map<std::string, Answer> known;
    auto [place, is_new] = known.try_emplace(model());
    if (is_new) place->second = gpu_answer(*open_engine(options()));
    return place->second;
  }

  // Nobody waits for a copy: on a busy machine an answer may be over before the first one arrives.
  static void answer_until(Engine& engine, const std::function<bool(const GpuReport&)>& is_seen) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (!is_seen(*engine.gpu_report()) && std::chrono::steady_clock::now() < end) {
      ASSERT_TRUE(gpu_answer(engine) == without_gpu());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  static bool has_computed(const GpuReport& report) { return report.experts > 0; }

  std::vector<std::string> lines_;
};

constexpr GpuModel kGpuModels[] = {{"small_q8", DType::kQ8},
                                   {"small_q4", DType::kQ4},
                                   {"small_q3", DType::kQ3},
                                   {"small_q2", DType::kQ2},
                                   {"eight_of_24", DType::kQ4, false}};

std::string name_of_model(const ::testing::TestParamInfo<GpuModel>& test) {
  return test.param.name;
}

// Those of all types, and what does not depend on the type.
using GpuTypes = GpuGate;
INSTANTIATE_TEST_SUITE_P(Models, GpuTypes, ::testing::ValuesIn(kGpuModels), name_of_model);
class GpuPlaces : public GpuGate {};
INSTANTIATE_TEST_SUITE_P(Models, GpuPlaces, ::testing::Values(kGpuModels[1], kGpuModels[4]),
                         name_of_model);

TEST_P(GpuPlaces, g27_calls_of_many_tokens_are_the_processors_as_far_as_experts_are_here) {
  EngineOptions with = on_gpu(1000);
  with.gpu.few_tokens = 0;
  with.gpu.prompts = SideRule::kProcessors;
  const auto here = open_engine(with);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(gpu_answer(*here) == without_gpu());
  EXPECT_EQ(here->gpu_report()->experts, 0u);
  EXPECT_GT(here->gpu_report()->promotions, 0u);
  with.num_slots = 9;
  const auto elsewhere = open_engine(with);
  answer_until(*elsewhere, has_computed);  // what went from RAM is computed there
  EXPECT_GT(elsewhere->gpu_report()->experts, 0u);
}

TEST_P(GpuTypes, g27_any_number_of_slots) {
  for (const int64_t slots : {int64_t{1}, int64_t{7}, int64_t{1000}}) {
    for (const int64_t in_memory : {int64_t{0}, int64_t{9}}) {
      EngineOptions with = on_gpu(slots);
      with.num_slots = in_memory;
      const auto engine = open_engine(with);
      EXPECT_TRUE(gpu_answer(*engine) == without_gpu()) << slots << " slots";
      answer_until(*engine, has_computed);
      const GpuReport report = *engine->gpu_report();
      EXPECT_EQ(report.num_slots, std::min(slots, report.num_experts));
      EXPECT_GT(report.experts, 0u) << slots << " slots";
      EXPECT_GT(report.promotions, 0u);
      EXPECT_EQ(engine->experts().stats().nearer, report.experts);
      EXPECT_FALSE(report.is_lost);
      expect_silent_and_within_its_memory(*engine);
    }
  }
  EXPECT_THAT(lines_, IsEmpty());
}

// Whoever is in RAM goes over for a prompt, few or many of them at a time, into slots or to places that are free
// again afterwards.
TEST_P(GpuPlaces, g27_guests_of_a_prompt) {
  struct Case {
    int64_t slots, in_memory, late;
  };
  for (const auto& [slots, in_memory, late] : {Case{1, 0, 2}, {1, 9, 0}, {1000, 0, 0}}) {
    EngineOptions with = on_gpu(slots);
    with.gpu.few_tokens = late > 0 ? 0 : kGpuFewTokens;
    with.gpu.waits_for_blocks = true;
    with.gpu.faults.late_answers = late;
    with.num_slots = in_memory;
    with.chunk_tokens = slots == 1 ? 0 : 9;
    const auto engine = open_engine(with);
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(gpu_answer(*engine) == without_gpu()) << slots << " slots";
    }
    const GpuReport report = *engine->gpu_report();
    EXPECT_GT(report.guests, 0u) << slots << " slots, " << in_memory << " in memory";
    EXPECT_FALSE(report.is_lost);
    expect_silent_and_within_its_memory(*engine);
  }
  EXPECT_THAT(lines_, IsEmpty());
}

// Who computes what is drawn anew each time that somebody asks.
TEST_P(GpuPlaces, g27_any_choice_of_who_computes_what_and_any_traffic) {
  const int64_t half = GetParam().is_small ? 10 : 60;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    std::mt19937 random(seed);
    EngineOptions with = on_gpu(seed == 3 ? 4 : half);
    with.threads = static_cast<int>(seed);
    with.chunk_tokens = seed == 2 ? 5 : 0;
    with.gpu.uses = [&random](ExpertId) { return random() % 3 != 0; };
    with.gpu.keeps_best = seed == 3;
    with.gpu.promotions_max = seed == 2 ? 1 : 100;
    with.gpu.faults.late_answers = seed == 2 ? 9 : 0;
    const auto engine = open_engine(with);
    EXPECT_TRUE(gpu_answer(*engine) == without_gpu()) << "seed " << seed;
    const auto is_seen = [&](const GpuReport& report) {
      return report.experts > 0 && (report.demotions > 0 || seed != 1);
    };
    answer_until(*engine, is_seen);
    EXPECT_TRUE(is_seen(*engine->gpu_report())) << "seed " << seed;
    expect_silent_and_within_its_memory(*engine);
  }
}

// Of choices that are left out nobody computes a row.
TEST_P(GpuPlaces, g27_experts_left_out_are_left_out_there_as_well) {
  EngineOptions with = options();
  with.expert_limits.weight = 0.5;
  const Answer lossy = gpu_answer(*open_engine(with));
  const ExpertLimits limits = with.expert_limits;
  with = on_gpu(1000);
  with.expert_limits = limits;
  const auto engine = open_engine(with);
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!has_computed(*engine->gpu_report()) && std::chrono::steady_clock::now() < end) {
    ASSERT_TRUE(gpu_answer(*engine) == lossy);
  }
  EXPECT_TRUE(has_computed(*engine->gpu_report()));
  expect_silent_and_within_its_memory(*engine);
}

TEST_P(GpuPlaces, g27_a_device_that_is_lost_or_silent_at_any_point) {
  // The probe of its bits hands over 23 pieces of work.
  std::vector<GpuFaults> faults = {{.submits_before_loss = 4}, {.waits_before_silence = 9}};
  for (const int64_t work : {23, 31, 39, 47, 57}) faults.push_back({.submits_before_loss = work});
  for (const int64_t waits : {40, 60, 90}) faults.push_back({.waits_before_silence = waits});
  int losses_at_work = 0;
  for (size_t i = 0; i < faults.size(); ++i) {
    EngineOptions with = on_gpu(1000);
    with.gpu.validate = false;  // a device that is said to be lost goes on, unheard
    with.gpu.faults = faults[i];
    lines_.clear();
    const auto engine = open_engine(with);
    EXPECT_EQ(engine->gpu() == nullptr, i < 2) << i;
    EXPECT_TRUE(gpu_answer(*engine) == without_gpu()) << i;
    if (engine->gpu() != nullptr) {
      answer_until(*engine, [](const GpuReport& report) { return report.is_lost; });
    }
    ASSERT_EQ(lines_.size(), 1u) << i;
    EXPECT_THAT(lines_[0],
                HasSubstr(i < 2 ? "no GPU is used: " : "the GPU is not used any more: "));
    EXPECT_THAT(lines_[0], HasSubstr("llvmpipe"));
    if (engine->gpu() == nullptr) continue;
    EXPECT_TRUE(engine->gpu_report()->is_lost) << i;
    losses_at_work += engine->gpu_report()->experts > 0;
  }
  EXPECT_GE(losses_at_work, 1);
}

class GpuRefusals : public ::testing::Test {
 protected:
  static EngineOptions options() {
    return small_options(packed(data_path("random/r2-top1"), DType::kQ4));
  }
  static EngineOptions on_gpu() {
    EngineOptions with = options();
    with.gpu.device = kSoftwareGpu;
    with.gpu.vram_bytes = kPlentyOfVram;
    with.gpu.probe_inputs = 64;
    return with;
  }
};

TEST_F(GpuRefusals, g27_memory_that_is_refused_at_any_allocation) {
  const Answer expected = gpu_answer(*open_engine(options()));
  int refused = 0;
  for (int64_t n = 0;; n += 3) {  // each one: gpu/gpu_experts_test.cc
    std::vector<std::string> lines;
    EngineOptions with = on_gpu();
    with.gpu.faults.allocations_before_failure = n;
    with.tell = [&](const std::string& line) { lines.push_back(line); };
    const auto engine = open_engine(with);
    if (engine->gpu() != nullptr) break;
    ++refused;
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_THAT(lines[0], HasSubstr("no GPU is used: "));
    if (n == 12) {
      EXPECT_TRUE(gpu_answer(*engine) == expected);
    }
  }
  EXPECT_GT(refused, 6);
}

TEST_F(GpuRefusals, too_little_memory_is_refused_with_the_numbers) {
  EngineOptions with = on_gpu();
  with.gpu.vram_bytes = 1 << 20;
  const auto engine = Engine::open(posix_storage(), with, {});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(engine.error().message, HasSubstr("1.00 MiB of llvmpipe"));
  const std::string& message = engine.error().message;
  const size_t at = message.find("give --vram ");
  ASSERT_NE(at, std::string::npos) << message;
  with.gpu.vram_bytes = std::stoull(message.substr(at + 12));
  EXPECT_EQ(open_engine(with)->gpu_report()->num_slots, 1);
}

TEST_F(GpuRefusals, what_cannot_be_is_an_error_for_a_name_and_a_line_for_auto) {
  struct Case {
    EngineOptions with;
    std::string says;
  };
  std::vector<Case> cases(4, {on_gpu(), ""});
  cases[0].with.gpu.device = "no such device";
  cases[0].says = "no GPU is called \"no such device\"; this machine has";
  cases[1].with.arithmetic = Arithmetic::kFloat32;
  cases[1].says = "fixed16 alone";
  cases[2].with.gpu.vram_bytes = 0;
  cases[2].says = "this machine's own memory";
  cases[3].with.model = packed_random("r2-top1");
  cases[3].says = "experts cannot be computed there";
  for (const Case& c : cases) {
    const auto engine = Engine::open(posix_storage(), c.with, {});
    ASSERT_FALSE(engine.has_value()) << c.says;
    EXPECT_THAT(engine.error().message, HasSubstr(c.says));
  }
  // A software device is never taken by itself.
  EngineOptions with = cases[2].with;
  with.gpu.device = "auto";
  std::vector<std::string> lines;
  with.tell = [&](const std::string& line) { lines.push_back(line); };
  const auto engine = open_engine(with);
  if (engine->gpu() != nullptr) GTEST_SKIP() << "this machine has a GPU";
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], HasSubstr("no GPU is used: no GPU can be used; this machine has"));
}

}  // namespace
}  // namespace penstock::test
