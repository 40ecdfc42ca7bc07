// The knobs of an engine: numbers that time depends on and answers do not, with what each may be.
//
// One table, from which everything else is made: `--knob NAME=VALUE`, the knobs of a machine's
// profile, `penstock config knobs`, the gate that holds the bits at both ends of every range, and
// the list that `lab/auto` searches. A built-in value is that of EngineOptions, told nowhere twice.
//
// To add one: a field in EngineTuning (engine/options.h), and a row in knobs.cc.
//
// Threads  functions of their arguments alone
// Errors   kInvalidArgument naming the knob and what it takes
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/options.h"

namespace penstock {

struct Knob {
  std::string_view name;
  std::string_view term;  // of the cost model that it should move, as in lab/ledger.py
  int64_t low, high;
  std::string_view help;
  int64_t (*get)(const EngineOptions& options);
  void (*set)(EngineOptions& options, int64_t value);
};

std::span<const Knob> all_knobs();
int64_t built_in_value(const Knob& knob);

struct KnobSetting {
  std::string name;
  int64_t value = 0;

  bool operator==(const KnobSetting&) const = default;
};

// An unknown name, or a value out of the knob's range.
Result<void> check_knob(const KnobSetting& setting);
Result<void> set_knob(EngineOptions& options, const KnobSetting& setting);

// "experts_ahead=5,spins=2000"; each knob once.
Result<std::vector<KnobSetting>> parse_knobs(const std::string& text);

}  // namespace penstock
