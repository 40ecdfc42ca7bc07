#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "compute/exact_f64.h"

namespace penstock {
namespace {

// The pair index at which `rotations` full turns fit into the original context.
double correction_index(const ModelConfig& config, double rotations) {
  const double length = static_cast<double>(config.rope.original_max_position_embeddings);
  return static_cast<double>(config.rotary_dim()) *
         exact_log64(length / (rotations * 2 * std::numbers::pi)) /
         (2 * exact_log64(config.rope.theta));
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const int64_t width = config.rotary_dim();
  std::vector<float> frequencies(static_cast<size_t>(width / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(width);
    frequencies[i] = static_cast<float>(1.0 / exact_power64(config.rope.theta, exponent));
  }
  if (!config.rope.yarn) return frequencies;

  double low = correction_index(config, config.rope.beta_fast);
  double high = correction_index(config, config.rope.beta_slow);
  if (config.rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(width - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double plain = frequencies[i];
    frequencies[i] = static_cast<float>(plain / config.rope.factor * ramp + plain * (1 - ramp));
  }
  return frequencies;
}

float rope_amplitude(const ModelConfig& config) {
  if (!config.rope.yarn) return 1.0f;
  if (config.rope.attention_factor > 0) return static_cast<float>(config.rope.attention_factor);
  if (config.rope.factor <= 1) return 1.0f;
  return static_cast<float>(0.1 * exact_log64(config.rope.factor) + 1.0);
}

void fill_rope_table(const ModelConfig& config, std::span<float> cos, std::span<float> sin) {
  const std::vector<float> frequencies = rope_frequencies(config);
  const float amplitude = rope_amplitude(config);
  PENSTOCK_CHECK(cos.size() == sin.size());
  if (frequencies.empty()) return;
  for (size_t i = 0; i < cos.size(); ++i) {
    const float position = static_cast<float>(i / frequencies.size());
    const float angle = position * frequencies[i % frequencies.size()];
    const SineCosine turned = exact_sine_cosine64(static_cast<double>(angle));
    cos[i] = static_cast<float>(turned.cosine) * amplitude;
    sin[i] = static_cast<float>(turned.sine) * amplitude;
  }
}

}  // namespace penstock
