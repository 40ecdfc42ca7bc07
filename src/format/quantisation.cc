#include "format/quantisation.h"

#include <fmt/format.h>

#include "format/text.h"

namespace penstock {
namespace {

constexpr std::string_view kInstead =
    "use the model's BF16 or FP8 repository, an MLX one, or a GGUF file";

Error unsupported(const std::string& what, const std::string& how) {
  return {ErrorCode::kUnsupported,
          fmt::format("{}: the weights are quantised with {}, which is not read; {}", what, how,
                      kInstead)};
}

// In the config, or in the part of it that describes the language model.
const Json* find_either(const Json& config, std::string_view key) {
  const Json* found = json_find(config, key);
  if (found != nullptr) return found;
  const Json* text = json_find(config, "text_config");
  return text == nullptr ? nullptr : json_find(*text, key);
}

Result<MlxModule> read_mlx_module(const Json& entry, const MlxModule& otherwise,
                                  const std::string& what) {
  MlxModule module = otherwise;
  if (json_find(entry, "mode") != nullptr) {
    const std::string mode = PENSTOCK_TRY(json_string(entry, "mode", what));
    if (mode != "affine" && mode != "mxfp4") {
      return unsupported(what, fmt::format("MLX mode {}", escaped(mode)));
    }
    module.is_mxfp4 = mode == "mxfp4";
    if (module.is_mxfp4) module = {.is_mxfp4 = true, .group = 32, .bits = 4};  // unless it says so
  }
  if (json_find(entry, "group_size") != nullptr) {
    module.group = PENSTOCK_TRY(json_int(entry, "group_size", what, 1, 1 << 16));
  }
  if (json_find(entry, "bits") != nullptr) {
    module.bits = PENSTOCK_TRY(json_int(entry, "bits", what, 1, 16));
  }
  const bool is_known = module.bits == 2 || module.bits == 3 || module.bits == 4 ||
                        module.bits == 5 || module.bits == 6 || module.bits == 8;
  if (!is_known || (module.is_mxfp4 && (module.bits != 4 || module.group != 32))) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: {} bits in groups of {} are not read; read are 2, 3, 4, 5, 6 and "
                             "8 bits, and mxfp4 of 4 bits in 32",
                             what, module.bits, module.group)};
  }
  return module;
}

Result<Quantisation> read_mlx(const Json& json, const std::string& what) {
  Quantisation result;
  result.kind = Quantisation::Kind::kMlx;
  for (const std::string_view key : {"group_size", "bits"}) {
    PENSTOCK_TRY(json_int(json, key, what, 1, 1 << 16));
  }
  result.mlx = PENSTOCK_TRY(read_mlx_module(json, {}, what));
  for (const auto& [key, value] : json.items()) {
    const std::string place = fmt::format("{}: module {}", what, escaped(key));
    if (value.is_object()) {
      result.own[key] = PENSTOCK_TRY(read_mlx_module(value, result.mlx, place));
    }
  }
  return result;
}

// "compressed-tensors" as it stands there, and what it is better known by.
std::string spoken(std::string method, const Json& json) {
  const Json* format = json_find(json, "format");
  const Json* algorithm = json_find(json, "quant_algo");
  if (format != nullptr && format->is_string()) {
    method += " (" + format->get<std::string>() + ")";
  } else if (algorithm != nullptr && algorithm->is_string()) {
    method += " (" + algorithm->get<std::string>() + ")";
  }
  return escaped(method);
}

Result<Quantisation> read_fp8(const Json& json, const std::string& what) {
  const Json* format = json_find(json, "fmt");
  if (format != nullptr && *format != "e4m3" && *format != "float8_e4m3fn") {
    return unsupported(what, fmt::format("FP8 in format {}", escaped(to_text(*format))));
  }
  const Json* block = json_find(json, "weight_block_size");
  if (block == nullptr || *block != Json::array({128, 128})) {
    return unsupported(what, fmt::format("FP8 in blocks of {} (read are blocks of [128,128])",
                                         block == nullptr ? "whole tensors" : to_text(*block)));
  }
  Quantisation result;
  result.kind = Quantisation::Kind::kFp8;
  return result;
}

}  // namespace

Result<Quantisation> read_quantisation(const Json& config, const std::string& what) {
  const Json* mlx = find_either(config, "quantization");
  const Json* other = find_either(config, "quantization_config");
  for (const Json* json : {mlx, other}) {
    if (json == nullptr || json->is_object()) continue;
    return Error{ErrorCode::kCorrupt,
                 what + ": \"quantization\" or \"quantization_config\" is not an object"};
  }
  // NVIDIA's tools and some others name their method only by a producer or an algorithm.
  if (other != nullptr && json_find(*other, "quant_method") != nullptr) {
    const std::string place = what + ": \"quantization_config\"";
    const std::string method = PENSTOCK_TRY(json_string(*other, "quant_method", place));
    if (method == "fp8") return read_fp8(*other, place);
    return unsupported(place, spoken(method, *other));
  }
  const Json* json = mlx != nullptr ? mlx : other;
  if (json == nullptr) return Quantisation{};
  const std::string place =
      fmt::format("{}: \"{}\"", what, mlx != nullptr ? "quantization" : "quantization_config");
  if (json_find(*json, "group_size") != nullptr && json_find(*json, "bits") != nullptr) {
    return read_mlx(*json, place);
  }
  const Json* algorithm = json_find(*json, "quant_algo");
  return unsupported(place, algorithm != nullptr ? escaped(to_text(*algorithm))
                                                 : std::string("a method that has no name there"));
}

}  // namespace penstock
