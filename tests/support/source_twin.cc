#include "support/source_twin.h"

#include <fmt/format.h>

#include "source/normal_tensors.h"
#include "support/gguf_checkpoint.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace

std::string write_f32_twin(const std::string& path, const std::string& folder) {
  ModelSource source = value_of(ModelSource::open(posix_storage(), path));
  const ModelConfig& config = source.config();
  GgufSpec spec;
  spec.keys = gguf_keys(config);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions,
                       const std::vector<float>& values) {
    spec.tensors.push_back({name, 0, std::move(dimensions), bytes_of(values)});
  };
  for (const SourceTensor& tensor : source.tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.columns));
    value_of(source.read_rows(tensor, 0, values));
    std::vector<uint64_t> dimensions = {static_cast<uint64_t>(tensor.columns)};
    if (tensor.rows > 1) dimensions.push_back(static_cast<uint64_t>(tensor.rows));
    add(gguf_name(tensor.name, config), dimensions, values);
  }
  const std::vector<int64_t> layers = expert_layers(config);
  constexpr const char* kParts[] = {"gate", "up", "down"};
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (int part = 0; part < kNumExpertParts; ++part) {
      const ExpertMatrices& matrices = source.experts()[layer].parts[part];
      const auto rows = static_cast<uint64_t>(matrices.first.rows);
      const auto columns = static_cast<uint64_t>(matrices.first.columns);
      std::vector<float> all;
      for (int64_t expert = 0; expert < config.num_experts; ++expert) {
        std::vector<float> values(rows * columns);
        value_of(source.read_rows(matrices.of(expert), 0, values));
        all.insert(all.end(), values.begin(), values.end());
      }
      add(fmt::format("blk.{}.ffn_{}_exps.weight", layers[layer], kParts[part]),
          {columns, rows, static_cast<uint64_t>(config.num_experts)}, all);
    }
  }
  const std::string twin = folder + "/twin.gguf";
  store(posix_storage(), twin, spec.bytes());
  return twin;
}

}  // namespace penstock::test
