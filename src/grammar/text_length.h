// Which lengths a text may still get, for automata whose texts are limited in their units.
//
// "At most 10 characters" beside "ends with .csv" forbids beginnings that no longer can end in
// time. The guard of each state says for which counts an end within the limits remains.
//
// Errors  kInvalidArgument: more states than a grammar may have
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "grammar/automaton.h"

namespace penstock {

// Sets the guards of all states. Errors: kInvalidArgument when no text fits,
// kUnsupported when the lengths that a state can reach leave gaps between the two limits, or are
// too many to look at.
Result<void> limit_length(std::vector<RuleState>& states, uint32_t min, uint32_t max,
                          uint64_t& steps_left);

}  // namespace penstock
