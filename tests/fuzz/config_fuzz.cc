// Any bytes as config.json: refused, or a configuration within its ranges that survives being
// written in normal form and read back.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "model/config.h"
#include "pack/identity.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<Json> json = parse_json(text, "config.json");
  if (!json) return 0;
  const Result<ModelConfig> config = parse_model_config(*json, "config.json");
  if (!config) return 0;
  PENSTOCK_CHECK(config->num_hidden_layers <= 1024);
  PENSTOCK_CHECK(static_cast<int64_t>(config->layer_types.size()) == config->num_hidden_layers);
  PENSTOCK_CHECK(config->num_experts_per_tok <= config->num_experts);
  PENSTOCK_CHECK(config->rotary_dim() % 2 == 0 && config->rotary_dim() <= config->head_dim);
  PENSTOCK_CHECK(config->conv_channels() > 0);
  const Json normal = normal_config(*config);
  const Result<ModelConfig> again = parse_model_config(normal, "normal form");
  PENSTOCK_CHECK(again.has_value());
  PENSTOCK_CHECK(to_text(normal_config(*again)) == to_text(normal));
  return 0;
}
