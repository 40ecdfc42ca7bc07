// What a run tells about itself: the plan before it, the figures after it, both as text and JSON.
#pragma once

#include <string>

#include "base/json.h"
#include "engine/engine.h"

namespace penstock {

// "NAME: 1.2 GiB model, 512 MiB of 600 MiB (--memory); 100 of 400 experts in memory; ..."
std::string plan_line(Engine& engine);

// "NVIDIA X: 900 slots for 10240 experts that it can compute, 6.9 GiB of 7.0 GiB"
std::string gpu_line(const GpuReport& gpu);
Json gpu_json(const GpuReport& gpu);

// Other experts per token than the trained ones, some of them or keys and values in fewer bits; empty where
// nothing is lossy. low_bits: as low_bits_text() has it.
std::string lossy_words(const ModelConfig& config, int64_t experts_per_token,
                        const ExpertLimits& limits, KvForm kv_form, const std::string& low_bits);
std::string lossy_words(const Engine& engine);

// The same, and what that means.
std::string lossy_text(const ModelConfig& config, int64_t experts_per_token,
                       const ExpertLimits& limits, KvForm kv_form, const std::string& low_bits);
std::string lossy_text(const Engine& engine);

// "prompt 12 tokens, 35.2 tok/s; answer 64 tokens, 8.1 tok/s; ..."
std::string last_line(const GenerationMetrics& metrics);

// "memory ran short: 40 slots (1.2 GiB) were given back; 60 of 100 are in use"
std::string shrink_text(Engine& engine);

// Where the time went, by name; several lines.
std::string waits_text(const GenerationMetrics& metrics);

std::string_view name_of(FinishReason reason);  // stop, length, cancelled

// {"token_ids", "finish_reason", "timings", "penstock"}
Json result_json(Engine& engine, const GenerateResult& result);

// What the "penstock" object says about the engine, apart from a run's own figures.
Json engine_json(Engine& engine);

}  // namespace penstock
