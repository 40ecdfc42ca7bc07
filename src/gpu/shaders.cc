#include "gpu/shaders.h"

namespace penstock {
namespace {

constexpr uint32_t kAttention[] = {
#include "attention.inc"
};
constexpr uint32_t kAttentionJoin[] = {
#include "attention_join.inc"
};
constexpr uint32_t kDeltaNet[] = {
#include "delta_net.inc"
};
constexpr uint32_t kDeltaNetEnds[] = {
#include "delta_net_ends.inc"
};
constexpr uint32_t kDeltaRule[] = {
#include "delta_rule.inc"
};
constexpr uint32_t kPackRows[] = {
#include "pack_rows.inc"
};
constexpr uint32_t kProbe[] = {
#include "probe.inc"
};
constexpr uint32_t kProbeFused[] = {
#include "probe_fused.inc"
};
constexpr uint32_t kProduct[] = {
#include "product.inc"
};
constexpr uint32_t kProductWide[] = {
#include "product_wide.inc"
};
constexpr uint32_t kRead[] = {
#include "read.inc"
};

struct Row {
  std::string_view name;
  std::span<const uint32_t> words;
};
// In the order of Shader.
constexpr Row kRows[] = {{"attention", kAttention},
                         {"attention_join", kAttentionJoin},
                         {"delta_net", kDeltaNet},
                         {"delta_net_ends", kDeltaNetEnds},
                         {"delta_rule", kDeltaRule},
                         {"pack_rows", kPackRows},
                         {"probe", kProbe},
                         {"probe_fused", kProbeFused},
                         {"product", kProduct},
                         {"product_wide", kProductWide},
                         {"read", kRead}};

}  // namespace

std::string_view name_of(Shader shader) {
  return kRows[static_cast<size_t>(shader)].name;
}

std::span<const uint32_t> spirv_of(Shader shader) {
  return kRows[static_cast<size_t>(shader)].words;
}

}  // namespace penstock
