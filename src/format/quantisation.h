// What a config.json says about how its weights are quantised, looked at before any weight is.
//
// Read are: plain weights, FP8 E4M3 with squares of 128 by 128, and what MLX writes (affine groups
// and mxfp4). Everything else is refused by the name that the config gives it, because its tensors
// would otherwise fail one by one, or worse, be taken for something they are not.
//
// MLX says it under "quantization", repeated under "quantization_config" without a "quant_method";
// both, or either, may be there. Single modules may have an entry of their own, of which `true`
// means as all others and `false` left alone.
//
// Errors  kUnsupported, with what to do instead; kCorrupt for entries of the wrong kind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

struct MlxModule {
  bool is_mxfp4 = false;
  int64_t group = 64;
  int64_t bits = 4;
};

struct Quantisation {
  enum class Kind : uint8_t { kNone, kFp8, kMlx };
  Kind kind = Kind::kNone;
  MlxModule mlx = {};                                   // unless a module has its own
  std::unordered_map<std::string, MlxModule> own = {};  // by the name of the module

  const MlxModule& of(const std::string& module) const {
    const auto found = own.find(module);
    return found == own.end() ? mlx : found->second;
  }
};

// `what` names the config in errors.
Result<Quantisation> read_quantisation(const Json& config, const std::string& what);

}  // namespace penstock
