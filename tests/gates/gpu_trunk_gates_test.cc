// Gates of where the matrices that every token needs are multiplied, in the manner of gates_test.cc, on
// Mesa's software device with the validation layers listening:
//
//   G30 resident matrices in a GPU's memory: none, some or all of them, experts beside them, prompts in
//       chunks of any size, several sequences, drafts; a device that is lost, silent or out of memory
//       at any point: the logits of the processors alone, within the memory that was allowed
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "engine/batch.h"
#include "engine/gpu_setup.h"
#include "gates/gpu_answer.h"
#include "gpu/test_gpu.h"
#include "model/shapes.h"
#include "pack/synth.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kTrunkSequences = 3;

using Answer = GpuAnswer;

Answer trunk_answer(Engine& engine) {
  return answer_to(engine, 23);
}

// Logits of several sequences in one pass, with prompts of several lengths, and in a second one.
std::vector<float> logits_together(Engine& engine) {
  std::vector<Session> sessions;
  for (int i = 0; i < kTrunkSequences; ++i) sessions.push_back(value_of(engine.new_session()));
  std::vector<float> logits;
  for (int pass = 0; pass < 2; ++pass) {
    Batch batch(engine.parts());
    std::vector<std::vector<TokenId>> tokens;
    for (int i = 0; i < kTrunkSequences; ++i) {
      tokens.push_back(random_tokens(pass == 0 ? 1 + 4 * i : 1, engine.config().vocab_size,
                                     static_cast<uint64_t>(10 * pass + i)));
    }
    for (size_t i = 0; i < sessions.size(); ++i) batch.add(sessions[i].sequence(), tokens[i]);
    value_of(batch.run({}));
    for (Session& session : sessions) {
      logits.insert(logits.end(), session.logits().begin(), session.logits().end());
    }
  }
  return logits;
}

std::string synthetic(DType resident, bool is_tied) {
  static std::map<std::pair<DType, bool>, std::string> made;
  auto [place, is_new] = made.try_emplace({resident, is_tied});
  if (!is_new) return place->second;
  SynthOptions options;
  options.target = temporary_folder() + "/model";
  options.name = "small";
  options.config = value_of(config_of(value_of(find_model_shape("demo")), 4));
  options.config.num_experts = 24;
  options.config.vocab_size = 651;
  options.config.tie_word_embeddings = is_tied;
  options.config.mtp_num_hidden_layers = is_tied ? 0 : 1;
  options.resident = resident;
  value_of(synthesise_model(posix_storage(), options, {}, {}));
  return place->second = options.target;
}

struct TrunkModel {
  const char* name;
  std::function<std::string()> path;
};

const TrunkModel kTrunkModels[] = {
    {"q8_with_block", [] { return synthetic(DType::kQ8, false); }},
    {"q4_tied", [] { return synthetic(DType::kQ4, true); }},
    {"odd_shapes", [] { return packed(data_path("random/r2-top1"), DType::kQ4, DType::kQ4); }}};

class GpuTrunk : public ::testing::TestWithParam<int> {  // of kTrunkModels
 protected:
  static const TrunkModel& model() { return kTrunkModels[GetParam()]; }
  static EngineOptions options() {
    EngineOptions with = small_options(model().path());
    with.parallel = kTrunkSequences;
    return with;
  }
  // Told lines go to lines_.
  EngineOptions on_gpu() {
    EngineOptions with = options();
    with.gpu.device = kSoftwareGpu;
    with.gpu.vram_bytes = kPlentyOfVram;
    with.gpu.trunk = TrunkOnGpu::kOn;
    with.gpu.trunk_matrix_least = 0;
    with.gpu.delta_net_sums = DeltaNetSums::kWhole;
    with.gpu.probe_inputs = 64;
    with.gpu.validate = true;
    with.tell = [this](const std::string& line) { lines_.push_back(line); };
    return with;
  }
  static const Answer& without_gpu() {
    static std::map<std::string, Answer> known;
    auto [place, is_new] = known.try_emplace(model().path());
    if (is_new) place->second = trunk_answer(*open_engine(options()));
    return place->second;
  }
  static void expect_silent_and_within_its_memory(const Engine& engine) {
    test::expect_silent_and_within_its_memory(engine);
    EXPECT_LE(engine.gpu_report()->trunk.bytes, engine.gpu_report()->used_bytes + (2u << 20));
  }

  std::vector<std::string> lines_;
};

std::string name_of_trunk_model(const ::testing::TestParamInfo<int>& test) {
  return kTrunkModels[test.param].name;
}

INSTANTIATE_TEST_SUITE_P(Models, GpuTrunk, ::testing::Range(0, 3), name_of_trunk_model);

// What depends little on the model.
using GpuTrunkOfOne = GpuTrunk;
INSTANTIATE_TEST_SUITE_P(Models, GpuTrunkOfOne, ::testing::Values(0), name_of_trunk_model);

TEST_P(GpuTrunk, g30_none_some_and_all_matrices_and_any_chunk) {
  std::mt19937 random(7);
  const std::function<bool(const std::string&)> places[] = {
      {},
      [](const std::string&) { return false; },
      [](const std::string& name) { return name == "lm_head" || name == "embed_tokens"; },
      [](const std::string& name) { return name.find("proj") != std::string::npos; },
      [](const std::string& name) { return name.find("mlp") != std::string::npos; },
      [&random](const std::string&) { return random() % 2 == 0; }};
  int64_t i = 0;
  for (const auto& takes : places) {
    EngineOptions with = on_gpu();
    with.gpu.trunk_takes = takes;
    const int64_t chunks[] = {0, 1, 5, 64, 9, 16};
    with.chunk_tokens = chunks[i];
    with.threads = 1 + static_cast<int>(i % 3);
    with.gpu.num_slots = i % 2 == 0 ? 0 : 3;
    with.num_slots = i % 2 == 0 ? 0 : 9;
    constexpr SideRule kRules[] = {SideRule::kDevice, SideRule::kCheaper, SideRule::kProcessors};
    with.gpu.prompts = kRules[i % 3];
    const auto engine = open_engine(with);
    EXPECT_TRUE(trunk_answer(*engine) == without_gpu()) << i;
    const GpuReport report = *engine->gpu_report();
    EXPECT_EQ(report.trunk.matrices, report.trunk_fit) << i;
    EXPECT_EQ(report.trunk.products > 0, i != 1 && i != 4) << i;
    if (GetParam() < 2 && i != 5) {  // what belongs to a delta-net lies there together, or not
      EXPECT_EQ(report.trunk.delta_nets > 0, i == 0 || i == 3) << i;
    }
    if (GetParam() < 2 && i != 5) {  // of the odd one's shared experts a matrix is no whole block
      EXPECT_EQ(report.trunk.ffns > 0, i == 0 || i == 3 || i == 4) << i;
    }
    EXPECT_FALSE(report.is_lost);
    expect_silent_and_within_its_memory(*engine);
    ++i;
  }
  EXPECT_THAT(lines_, IsEmpty());
}

// The trunk comes before experts, and of both there is what fits.
TEST_P(GpuTrunkOfOne, g30_any_memory) {
  EngineOptions with = on_gpu();
  const auto whole = open_engine(with);
  const GpuReport most = *whole->gpu_report();
  with.gpu.vram_bytes = 1;
  const auto refused = Engine::open(posix_storage(), with, {});
  ASSERT_FALSE(refused.has_value());
  const std::string& message = refused.error().message;
  const size_t at = message.find("give --vram ");
  ASSERT_NE(at, std::string::npos) << message;
  const uint64_t least = std::stoull(message.substr(at + 12));
  int64_t matrices = 0;
  for (const uint64_t part : {0u, 1u, 4u, 7u, 8u}) {
    with.gpu.vram_bytes = least + most.trunk.bytes * part / 8;
    const auto engine = open_engine(with);
    const GpuReport report = *engine->gpu_report();
    EXPECT_GE(report.trunk.matrices, matrices);
    EXPECT_GE(report.num_slots, 1);
    matrices = report.trunk.matrices;
    EXPECT_LE(report.used_bytes, report.vram_bytes);
    if (part == 0) {
      EXPECT_EQ(matrices, 0);
    }
    if (part == 7) {
      EXPECT_GT(matrices, 0);
      EXPECT_TRUE(trunk_answer(*engine) == without_gpu());
    }
  }
  EXPECT_EQ(matrices, most.trunk.matrices);
}

TEST_P(GpuTrunk, g30_several_sequences) {
  const std::vector<float> expected = logits_together(*open_engine(options()));
  EngineOptions with = on_gpu();
  with.gpu.prompts = SideRule::kDevice;
  const auto engine = open_engine(with);
  EXPECT_TRUE(same_bits(logits_together(*engine), expected));
  EXPECT_GT(engine->gpu_report()->trunk.products, 0u);
  expect_silent_and_within_its_memory(*engine);
}

// States that lie there are those of whoever goes on from them: the next conversation, one that was
// begun before, one that is found again on disk.
TEST_P(GpuTrunk, g30_states_of_one_conversation_after_another) {
  EngineOptions with = on_gpu();
  with.gpu.prompts = SideRule::kDevice;
  with.num_checkpoints = 2;
  with.prefix_store.directory = temporary_folder();
  for (int opened = 0; opened < 2; ++opened) {
    const auto engine = open_engine(with);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(trunk_answer(*engine) == without_gpu()) << i;
    expect_silent_and_within_its_memory(*engine);
  }
}

// Keys and values are copied there from whoever's cache is asked for: in chunks, of several sequences, of a
// conversation that goes on from a prefix; and a device that is lost meanwhile takes none along.
TEST_P(GpuTrunkOfOne, g30_attention) {
  const std::vector<float> expected = logits_together(*open_engine(options()));
  for (const int64_t submits : {-1, 260, 480}) {
    EngineOptions with = on_gpu();
    with.gpu.prompts = SideRule::kDevice;
    with.gpu.attention_work_least = 0;
    with.gpu.faults.submits_before_loss = submits;
    with.gpu.validate = submits < 0;
    with.num_checkpoints = 2;
    with.prefix_store.directory = temporary_folder();
    with.chunk_tokens = 16;
    for (int opened = 0; opened < (submits < 0 ? 2 : 1); ++opened) {
      const auto engine = open_engine(with);
      EXPECT_TRUE(same_bits(logits_together(*engine), expected)) << submits;
      for (int i = 0; i < 2; ++i) EXPECT_TRUE(trunk_answer(*engine) == without_gpu()) << submits;
      EXPECT_GT(engine->gpu_report()->trunk.attentions, 0u) << submits;
      EXPECT_EQ(engine->gpu_report()->is_lost, submits >= 0) << submits;
      if (submits < 0) expect_silent_and_within_its_memory(*engine);
    }
  }
}

TEST_P(GpuTrunkOfOne, g30_drafts) {
  EngineOptions with = on_gpu();
  with.gpu.attention_work_least = 0;
  with.chunk_tokens = 16;
  with.speculation = Speculation::kOn;
  const auto engine = open_engine(with);
  ASSERT_TRUE(engine->can_draft());
  EXPECT_EQ(trunk_answer(*engine).tokens, without_gpu().tokens);
  EXPECT_GT(engine->gpu_report()->trunk.attentions, 0u);
  expect_silent_and_within_its_memory(*engine);
}

// The probe of its bits hands over 23 pieces of work, the copy of the matrices some tens more.
TEST_P(GpuTrunkOfOne, g30_a_device_that_is_lost_or_silent_at_any_point) {
  std::vector<GpuFaults> faults;
  for (const int64_t work : {40, 60, 130, 230}) faults.push_back({.submits_before_loss = work});
  for (const int64_t waits : {70, 180, 260, 460}) faults.push_back({.waits_before_silence = waits});
  int losses_at_work = 0;
  for (size_t i = 0; i < faults.size(); ++i) {
    EngineOptions with = on_gpu();
    with.gpu.validate = false;  // a device that is said to be lost goes on, unheard
    with.gpu.faults = faults[i];
    lines_.clear();
    const auto engine = open_engine(with);
    ASSERT_NE(engine->gpu(), nullptr) << i;
    // How much experts ask of it is a matter of time: in the second answer at the latest it is lost.
    for (int answer = 0; answer < 3; ++answer) {
      EXPECT_TRUE(trunk_answer(*engine) == without_gpu()) << i;
    }
    EXPECT_TRUE(engine->gpu_report()->is_lost) << i;
    ASSERT_EQ(lines_.size(), 1u) << i;
    EXPECT_THAT(lines_[0], HasSubstr("the GPU is not used any more: llvmpipe"));
    losses_at_work += engine->gpu_report()->trunk.products > 0;
  }
  EXPECT_GE(losses_at_work, 1);
}

TEST_P(GpuTrunkOfOne, g30_memory_that_is_refused_at_any_allocation) {
  int refused = 0;
  for (int64_t n = 0;; n += 10) {  // each one: gpu/gpu_backend_test.cc
    EngineOptions with = on_gpu();
    with.gpu.faults.allocations_before_failure = n;
    lines_.clear();
    const auto engine = open_engine(with);
    if (engine->gpu() != nullptr) break;
    ++refused;
    ASSERT_EQ(lines_.size(), 1u);
    EXPECT_THAT(lines_[0], HasSubstr("no GPU is used: "));
    if (n == 10) {
      EXPECT_TRUE(trunk_answer(*engine) == without_gpu());
    }
  }
  EXPECT_GT(refused, 4);
}

// A device whose memory is this machine's holds no copies of matrices unless that is asked for.
TEST_P(GpuTrunkOfOne, by_itself_only_where_the_gpu_has_memory_of_its_own) {
  EngineOptions with = on_gpu();
  with.gpu.trunk = TrunkOnGpu::kAuto;
  const auto engine = open_engine(with);
  EXPECT_EQ(engine->gpu_report()->trunk.matrices, 0);
  EXPECT_TRUE(takes_trunk(TrunkOnGpu::kAuto, false));
  EXPECT_FALSE(takes_trunk(TrunkOnGpu::kOff, false));
}

}  // namespace
}  // namespace penstock::test
