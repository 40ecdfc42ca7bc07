#include "model/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/config_sections.h"
#include "model/families/families.h"

namespace penstock {
namespace {

const Family* find_family(std::string_view model_type) {
  for (const Family* family : families()) {
    if (std::ranges::find(family->model_types, model_type) != family->model_types.end()) {
      return family;
    }
  }
  return nullptr;
}

std::string known_names() {
  std::string names;
  for (const Family* family : families()) {
    names += (names.empty() ? "" : ", ") + std::string(family->name);
  }
  return names;
}

// What stands beside "text_config": most of it is of images.
void read_outer(ConfigReader& outer) {
  ignore_bookkeeping(outer);
  outer.ignore({"text_config", "vision_config", "image_token_id", "video_token_id",
                "vision_start_token_id", "vision_end_token_id"});
}

}  // namespace

std::span<const Family* const> families() {
  static const Family* const kFamilies[] = {
      &qwen3_5_moe_family(),
      &qwen3_moe_family(),
  };
  return kFamilies;
}

const Family& family_of(const ModelConfig& config) {
  const Family* family = find_family(config.model_type);
  PENSTOCK_CHECK(family != nullptr);
  return *family;
}

TensorList list_tensors(const ModelConfig& config) {
  return list_tensors(config, family_of(config).text_prefixes.front());
}

TensorList list_tensors(const ModelConfig& config, std::string_view prefix) {
  return family_of(config).list_tensors(config, prefix);
}

Result<std::unique_ptr<Model>> bind_model(const ModelConfig& config,
                                          const ResidentWeights& resident, RopeTable rope) {
  const TensorList list = list_tensors(config);
  WeightBinder weights(list, resident);
  std::unique_ptr<Model> model = PENSTOCK_TRY(family_of(config).bind(config, weights, rope));
  PENSTOCK_TRY(weights.expect_all_bound());
  return model;
}

Result<ModelConfig> parse_model_config(const Json& config, const std::string& what) {
  ConfigReader outer(config, what);
  if (!config.is_object()) return outer.corrupt("is not an object");
  const Json* nested = outer.find("text_config");
  if (nested != nullptr && !nested->is_object()) {
    return outer.corrupt("\"text_config\" is no object");
  }
  ConfigReader text(nested != nullptr ? *nested : config,
                    nested != nullptr ? what + ": \"text_config\"" : what);
  const std::string outer_type = PENSTOCK_TRY(outer.word("model_type"));
  const std::string type =
      text.has("model_type") ? PENSTOCK_TRY(text.word("model_type")) : outer_type;
  const Family* family = find_family(type);
  if (family == nullptr) {
    return text.unsupported(fmt::format("\"model_type\" {} is not supported; supported are {}",
                                        to_text(Json(type)), known_names()));
  }
  const bool tied_outside = PENSTOCK_TRY(outer.flag_or("tie_word_embeddings", false));
  ModelConfig result = PENSTOCK_TRY(family->read_config(text, type));
  result.tie_word_embeddings = PENSTOCK_TRY(text.flag_or("tie_word_embeddings", tied_outside));
  PENSTOCK_TRY(check_geometry(text, result));
  ignore_bookkeeping(text);
  for (std::string& key : text.unknown_keys()) result.unknown_keys.push_back(std::move(key));
  if (nested != nullptr) {
    read_outer(outer);
    const std::vector<std::string> more = outer.unknown_keys();
    result.unknown_keys.insert(result.unknown_keys.end(), more.begin(), more.end());
  }
  return result;
}

Json normal_config(const ModelConfig& config) {
  return family_of(config).write_config(config);
}

}  // namespace penstock
