// The fields of a request that say how to draw tokens and when to stop, under all their names.
#pragma once

#include "dialogue/stop_strings.h"
#include "server/api/fields.h"
#include "server/api/served_model.h"
#include "server/generator.h"

namespace penstock {

inline constexpr int kChoicesMax = 8;
inline constexpr int kTopLogprobsMax = 20;
inline constexpr size_t kBiasesMax = 1024;

// Everything but logprobs, whose form differs between protocols. Draws the seed.
void read_sampling(Fields& fields, const ServedModel& model, GenerationRequest& request);

// A string, or a list of them.
void read_stop(Fields& fields, std::string_view name, GenerationRequest& request);

// max_tokens under one of these names.
void read_max_tokens(Fields& fields, std::initializer_list<std::string_view> names,
                     const ServedModel& model, GenerationRequest& request);

uint64_t draw_seed();

}  // namespace penstock
