#include "support/test_model.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "model/shapes.h"
#include "pack/pack.h"
#include "pack/synth.h"

namespace penstock::test {
namespace {

namespace fs = std::filesystem;

class TemporaryRoot {
 public:
  TemporaryRoot() {
    std::string pattern = (fs::temp_directory_path() / "penstock-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryRoot() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

std::string data_path(const std::string& relative) {
  return std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/" + relative;
}

std::string temporary_folder() {
  static const TemporaryRoot root;
  static int count = 0;
  const std::string folder = fmt::format("{}/{}", root.path(), count++);
  fs::create_directories(folder);
  return folder;
}

std::string packed(const std::string& source, std::optional<DType> experts,
                   std::optional<DType> resident) {
  static std::map<std::string, std::string> made;
  const std::string key = fmt::format("{}|{}|{}", source, experts ? name_of(*experts) : "keep",
                                      resident ? name_of(*resident) : "keep");
  auto [place, is_new] = made.try_emplace(key);
  if (is_new) {
    PackOptions options;
    options.source = source;
    options.target = temporary_folder() + "/model";
    options.experts = experts;
    if (resident) options.resident = panel_form(*resident);
    value_of(pack_model(posix_storage(), options, {}, {}));
    place->second = options.target;
  }
  return place->second;
}

std::string packed_random(const std::string& name) {
  return packed(data_path("random/" + name));
}

std::string model_with_block(DType experts, uint64_t seed) {
  static std::map<std::pair<DType, uint64_t>, std::string> made;
  auto [place, is_new] = made.try_emplace({experts, seed});
  if (!is_new) return place->second;
  SynthOptions options;
  options.target = temporary_folder() + "/model";
  options.name = "small, with a prediction block";
  options.config = value_of(config_of(value_of(find_model_shape("demo")), 4));
  options.config.num_experts = 24;
  options.config.vocab_size = 640;
  options.config.mtp_num_hidden_layers = 1;
  options.experts = experts;
  options.seed = seed;
  value_of(synthesise_model(posix_storage(), options, {}, {}));
  return place->second = options.target;
}

EngineOptions small_options(const std::string& model) {
  EngineOptions options;
  options.model = model;
  options.memory_bytes = 1ull << 40;
  options.threads = 1;
  options.memory_watch.is_on = false;  // what else runs on the machine is no part of a test
  return options;
}

std::unique_ptr<Engine> open_engine(const EngineOptions& options) {
  return value_of(Engine::open(posix_storage(), options, {}));
}

Evaluation evaluate(Engine& engine, std::span<const TokenId> tokens) {
  Evaluation result;
  result.vocab_size = engine.config().vocab_size;
  const auto layers = static_cast<size_t>(engine.config().num_expert_layers());
  result.experts.resize(layers);
  result.weights.resize(layers);
  Session session = value_of(engine.new_session());
  const auto on_logits = [&](int64_t row, std::span<const float> logits) {
    EXPECT_EQ(row * result.vocab_size, std::ssize(result.logits));
    result.logits.insert(result.logits.end(), logits.begin(), logits.end());
  };
  const auto on_route = [&](int64_t layer, const Routing& routing, Rows) {
    const auto count = routing.num_tokens * routing.top_k;
    auto& experts = result.experts[static_cast<size_t>(layer)];
    auto& weights = result.weights[static_cast<size_t>(layer)];
    experts.insert(experts.end(), routing.experts.begin(), routing.experts.begin() + count);
    weights.insert(weights.end(), routing.weights.begin(), routing.weights.begin() + count);
  };
  result.metrics = value_of(session.evaluate(tokens, on_logits, on_route, {}));
  return result;
}

GenerateResult continue_greedily(Session& session, std::span<const TokenId> prompt,
                                 int64_t tokens) {
  GenerateOptions options;
  options.max_tokens = tokens;
  return value_of(session.generate(prompt, options, {}));
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

std::vector<TokenId> random_tokens(int64_t n, int64_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(n));
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(random() % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

}  // namespace penstock::test
