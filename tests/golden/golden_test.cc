// Logits, routing and greedy continuations against the reference implementation in float32.
//
// The tiny random checkpoints cover unusual shapes, the demo model is the one that users run (its
// quantised weights were widened and fed to the reference), and the BF16 master is used where it is
// at hand: PENSTOCK_MASTER names its folder. tests/data/README.md tells how the values were made.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "format/safetensors.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

// The bound, of the largest logit. What is reached is printed.
constexpr double kToleranceOfLargest = 2e-4;

struct Golden {
  std::vector<TokenId> input_ids, greedy_ids;
  std::vector<double> greedy_margin;
  // Rows belong to the last positions of the prompt, as many as there are.
  std::vector<float> logits;          // [rows, vocab]
  std::vector<float> sampled_logits;  // [p, vocab / 32]: every 32nd column; may be empty
  std::vector<float> logsumexp;       // [p]
  std::vector<std::vector<int32_t>> experts;
  std::vector<std::vector<float>> weights;
};

Json read_json(const std::string& path) {
  return value_of(parse_json(value_of(read_text(posix_storage(), path, 64 << 20)), path));
}

Golden read_golden(const std::string& tensors, const std::string& json, int64_t layers) {
  const SafetensorsFile file = value_of(SafetensorsFile::open(posix_storage(), tensors));
  Golden golden;
  golden.input_ids = value_of(file.read<int32_t>("input_ids"));
  golden.greedy_ids = value_of(file.read<int32_t>("greedy_ids"));
  golden.logits = value_of(file.read<float>("logits"));
  if (file.find("sampled.logits") != nullptr) {
    golden.sampled_logits = value_of(file.read<float>("sampled.logits"));
    golden.logsumexp = value_of(file.read<float>("logsumexp"));
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = "router." + std::to_string(layer);
    golden.experts.push_back(value_of(file.read<int32_t>(prefix + ".ids")));
    golden.weights.push_back(value_of(file.read<float>(prefix + ".weights")));
  }
  const Json recorded = read_json(json);
  for (const Json& margin : recorded.at("greedy_margin")) {
    golden.greedy_margin.push_back(margin.get<double>());
  }
  return golden;
}

void expect_same_logits(const Evaluation& ours, const Golden& golden, const std::string& name) {
  double largest = 0, difference = 0;
  const auto compare = [&](double theirs, double mine) {
    largest = std::max(largest, std::abs(theirs));
    difference = std::max(difference, std::abs(theirs - mine));
  };
  ASSERT_GE(ours.logits.size(), golden.logits.size());
  const std::span<const float> last = std::span(ours.logits).last(golden.logits.size());
  for (size_t i = 0; i < last.size(); ++i) compare(golden.logits[i], last[i]);

  constexpr size_t kSampleStep = 32;
  const auto vocab = static_cast<size_t>(ours.vocab_size);
  const size_t positions = golden.logsumexp.size();
  const size_t samples = vocab / kSampleStep;
  ASSERT_EQ(golden.sampled_logits.size(), positions * samples);
  const std::span<const float> sampled = std::span(ours.logits).last(positions * vocab);
  for (size_t position = 0; position < positions; ++position) {
    const std::span<const float> row = sampled.subspan(position * vocab, vocab);
    for (size_t i = 0; i < samples; ++i) {
      compare(golden.sampled_logits[position * samples + i], row[i * kSampleStep]);
    }
    double total = 0;
    for (const float logit : row) total += std::exp(static_cast<double>(logit));
    EXPECT_NEAR(std::log(total), golden.logsumexp[position], 1e-3) << name << " " << position;
  }
  std::printf("%s: max |difference| %.3g of max |logit| %.4g = %.2g\n", name.c_str(), difference,
              largest, difference / largest);
  EXPECT_GT(largest, 0);
  EXPECT_LE(difference, kToleranceOfLargest * largest) << name;
}

// Ids are compared as sets with their weights: two equal weights may be listed in either order.
void expect_same_routes(const Evaluation& ours, const Golden& golden, int64_t top_k) {
  for (size_t layer = 0; layer < golden.experts.size(); ++layer) {
    const size_t rows = golden.experts[layer].size() / static_cast<size_t>(top_k);
    const size_t skip = ours.experts[layer].size() - golden.experts[layer].size();
    for (size_t row = 0; row < rows; ++row) {
      std::vector<std::pair<int32_t, float>> mine, theirs;
      for (size_t k = 0; k < static_cast<size_t>(top_k); ++k) {
        const size_t at = row * static_cast<size_t>(top_k) + k;
        mine.emplace_back(ours.experts[layer][skip + at], ours.weights[layer][skip + at]);
        theirs.emplace_back(golden.experts[layer][at], golden.weights[layer][at]);
      }
      std::sort(mine.begin(), mine.end());
      std::sort(theirs.begin(), theirs.end());
      for (size_t k = 0; k < mine.size(); ++k) {
        ASSERT_EQ(mine[k].first, theirs[k].first) << "layer " << layer << " row " << row;
        ASSERT_NEAR(mine[k].second, theirs[k].second, 1e-4) << "layer " << layer << " row " << row;
      }
    }
  }
}

void check_golden(const std::string& model, const std::string& tensors, const std::string& json,
                  const std::string& name, Arithmetic arithmetic = Arithmetic::kFloat32) {
  EngineOptions options = small_options(model);
  options.arithmetic = arithmetic;
  const auto engine = open_engine(options);
  const Golden golden = read_golden(tensors, json, engine->config().num_expert_layers());
  const Evaluation ours = evaluate(*engine, golden.input_ids);
  expect_same_logits(ours, golden, name);
  expect_same_routes(ours, golden, engine->config().num_experts_per_tok);
  Session session = value_of(engine->new_session());
  const GenerateResult result =
      continue_greedily(session, golden.input_ids, std::ssize(golden.greedy_ids));
  for (size_t i = 0; i < golden.greedy_ids.size(); ++i) {
    ASSERT_EQ(result.tokens[i], golden.greedy_ids[i])
        << name << ": greedy token " << i << ", margin " << golden.greedy_margin[i];
  }
}

class RandomCheckpoint : public ::testing::TestWithParam<const char*> {};

TEST_P(RandomCheckpoint, agrees_with_the_reference) {
  const std::string folder = data_path(GetParam());
  check_golden(packed(folder), folder + "/expected.safetensors", folder + "/case.json", GetParam());
}

INSTANTIATE_TEST_SUITE_P(All, RandomCheckpoint,
                         ::testing::Values("random/r0-gva2", "random/r1-tied", "random/r2-top1",
                                           "random/r3-wrapped", "random/m0-plain", "random/m1-raw",
                                           "random/m2-dense", "random/m3-tied"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(Layouts, qwen3_next_packing_gives_the_logits_of_the_plain_one) {
  const std::string plain = data_path("random/r0-gva2");
  check_golden(packed(data_path("layouts/r0-next")), plain + "/expected.safetensors",
               plain + "/case.json", "r0-next");
}

TEST(Yarn, long_context_frequencies_agree_with_the_reference) {
  namespace fs = std::filesystem;
  const std::string yarn = data_path("random/r4-yarn");
  const std::string source = temporary_folder();  // the case has r0's weights
  fs::copy(yarn + "/config.json", source + "/config.json");
  fs::copy(data_path("random/r0-gva2/model.safetensors"), source + "/model.safetensors");
  check_golden(packed(source), yarn + "/expected.safetensors", yarn + "/case.json", "r4-yarn");
}

TEST(PredictionBlock, drafts_agree_with_the_reference) {
  namespace fs = std::filesystem;
  const std::string block = data_path("random/r5-mtp");
  const std::string source = temporary_folder();  // the case has r0's weights
  fs::copy(block + "/config.json", source + "/config.json");
  fs::copy(data_path("random/r0-gva2/model.safetensors"),
           source + "/model-00001-of-00002.safetensors");
  fs::copy(block + "/mtp.safetensors", source + "/model-00002-of-00002.safetensors");
  Json names = Json::object();
  for (const char* shard :
       {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    const auto file = value_of(SafetensorsFile::open(posix_storage(), source + "/" + shard));
    for (const TensorInfo& tensor : file.tensors()) names[tensor.name] = shard;
  }
  std::ofstream(source + "/model.safetensors.index.json") << Json{{"weight_map", names}}.dump();

  EngineOptions options = small_options(packed(source));
  options.arithmetic = Arithmetic::kFloat32;
  const auto engine = open_engine(options);
  ASSERT_TRUE(engine->can_draft());
  const SafetensorsFile golden =
      value_of(SafetensorsFile::open(posix_storage(), block + "/expected.safetensors"));
  const auto expected = value_of(golden.read<float>("draft_logits"));
  const std::vector<TokenId> ids = value_of(golden.read<int32_t>("input_ids"));
  std::vector<float> ours;
  Session session = value_of(engine->new_session());
  value_of(session.evaluate_drafts(ids,
                                   [&](int64_t, std::span<const float> logits) {
                                     ours.insert(ours.end(), logits.begin(), logits.end());
                                   },
                                   {}));
  ASSERT_EQ(ours.size(), expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    difference = std::max(difference, std::abs(double{expected[i]} - double{ours[i]}));
  }
  std::printf("r5-mtp: max |difference| %.3g of max |logit| %.4g = %.2g\n", difference, largest,
              difference / largest);
  EXPECT_LE(difference, kToleranceOfLargest * largest);
}

// The demo model as it is shipped: 4-bit experts, 8-bit resident weights.
class Demo : public ::testing::TestWithParam<const char*> {};

TEST_P(Demo, agrees_with_the_reference_on_the_same_quantised_weights) {
  const std::string stem = data_path("golden/demo_") + GetParam();
  check_golden(PENSTOCK_DEMO_MODEL, stem + ".safetensors", stem + ".json",
               std::string("demo ") + GetParam());
}

// The same bound for the arithmetic that is used unless another one is asked for.
TEST_P(Demo, agrees_with_the_reference_in_fixed_point) {
  const std::string stem = data_path("golden/demo_") + GetParam();
  check_golden(PENSTOCK_DEMO_MODEL, stem + ".safetensors", stem + ".json",
               std::string("demo in fixed point, ") + GetParam(), Arithmetic::kFixed16);
}

INSTANTIATE_TEST_SUITE_P(All, Demo, ::testing::Values("plain", "chat", "long"));

class Master : public ::testing::TestWithParam<const char*> {};

TEST_P(Master, agrees_with_the_reference_at_bf16) {
  const char* folder = std::getenv("PENSTOCK_MASTER");
  if (folder == nullptr) {
    GTEST_SKIP() << "PENSTOCK_MASTER does not name the folder of the BF16 model";
  }
  const std::string stem = data_path("golden/") + GetParam();
  check_golden(packed(folder), stem + ".safetensors", stem + ".json",
               std::string("master ") + GetParam());
}

INSTANTIATE_TEST_SUITE_P(All, Master, ::testing::Values("plain", "chat", "long"));

}  // namespace
}  // namespace penstock::test
