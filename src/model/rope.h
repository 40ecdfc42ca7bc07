// Tables of cos and sin for rotary positions, plain and YaRN.
//
// Angles are formed in float32 (position times frequency, one rounding), as the reference forms
// them; cos and sin are then taken to full float32 precision, the same bits on every processor
// (compute/exact_f64.h). YaRN's amplitude is in the tables.
//
// Shapes   cos, sin: [positions, rotary_dim / 2]
// Source   docs/model.md, Rotary embedding
#pragma once

#include <span>
#include <vector>

#include "model/config.h"

namespace penstock {

// Frequencies of the rotated pairs, [rotary_dim / 2].
std::vector<float> rope_frequencies(const ModelConfig& config);

// Amplitude of cos and sin: 1, or YaRN's attention factor.
float rope_amplitude(const ModelConfig& config);

// Fills positions 0 .. cos.size() / (rotary_dim / 2).
void fill_rope_table(const ModelConfig& config, std::span<float> cos, std::span<float> sin);

}  // namespace penstock
