#include "cli/sampling_flags.h"

#include <fmt/format.h>

#include <charconv>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "cli/suggest.h"

namespace penstock {
namespace {

constexpr const char* kNames[] = {
    "temp",           "top-k",         "top-p", "min-p", "presence-penalty", "frequency-penalty",
    "repeat-penalty", "repeat-last-n", "seed"};

double to_number(const std::string& text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

double value_of(const SamplingOptions& options, std::string_view name) {
  if (name == "temp") return options.temperature;
  if (name == "top-k") return options.top_k;
  if (name == "top-p") return options.top_p;
  if (name == "min-p") return options.min_p;
  if (name == "presence-penalty") return options.presence_penalty;
  if (name == "frequency-penalty") return options.frequency_penalty;
  if (name == "repeat-penalty") return options.repetition_penalty;
  if (name == "repeat-last-n") return options.repeat_last_n;
  return static_cast<double>(options.seed);
}

void assign(SamplingOptions& options, std::string_view name, double value) {
  const auto number = static_cast<float>(value);
  if (name == "temp") options.temperature = number;
  if (name == "top-k") options.top_k = static_cast<int>(value);
  if (name == "top-p") options.top_p = number;
  if (name == "min-p") options.min_p = number;
  if (name == "presence-penalty") options.presence_penalty = number;
  if (name == "frequency-penalty") options.frequency_penalty = number;
  if (name == "repeat-penalty") options.repetition_penalty = number;
  if (name == "repeat-last-n") options.repeat_last_n = static_cast<int>(value);
  if (name == "seed") options.seed = static_cast<uint64_t>(value);
}

// --greedy counts unless a temperature was given at a place that wins over it.
bool greedy_wins(const Settings& settings) {
  return settings.is_on("greedy") && settings.get("greedy").origin >= settings.get("temp").origin;
}

uint64_t fresh_seed() {
  // 53 bits survive the way through JSON, where the seed is reported.
  std::random_device device;
  return (uint64_t{device()} << 21) ^ (device() & 0x1fffff);
}

std::string describe(const Settings& settings, const SamplingOptions& options) {
  if (options.temperature == 0) {
    const bool asked = settings.is_on("greedy") || settings.is_given("temp");
    return asked ? "greedy (as asked)" : "greedy (the model names no temperature)";
  }
  std::string text;
  for (const char* name : kNames) {
    const double value = value_of(options, name);
    if (std::string_view(name) == "seed" || value == value_of(SamplingOptions{}, name)) continue;
    text += fmt::format("{} {:.6g} ({}), ", name, value,
                        settings.is_given(name) ? settings.get(name).place : "model");
  }
  return text + fmt::format("seed {}", options.seed);
}

}  // namespace

Result<SamplingChoice> choose_sampling(const Settings& settings, const SamplingOptions& model) {
  SamplingChoice choice{model, ""};
  for (const char* name : kNames) {
    if (settings.is_given(name)) assign(choice.options, name, settings.number(name));
  }
  if (greedy_wins(settings)) choice.options.temperature = 0;
  if (choice.options.temperature > 0 && !settings.is_given("seed")) {
    choice.options.seed = fresh_seed();
  }
  PENSTOCK_TRY(choice.options.check());
  choice.text = describe(settings, choice.options);
  return choice;
}

Json sampling_json(const SamplingOptions& options) {
  return Json{{"temperature", options.temperature},
              {"top_k", options.top_k},
              {"top_p", options.top_p},
              {"min_p", options.min_p},
              {"presence_penalty", options.presence_penalty},
              {"frequency_penalty", options.frequency_penalty},
              {"repetition_penalty", options.repetition_penalty},
              {"repeat_last_n", options.repeat_last_n},
              {"seed", options.seed}};
}

std::set<std::string> given_sampling(const Settings& settings) {
  std::set<std::string> names;
  for (const char* name : kNames) {
    if (settings.is_given(name)) names.insert(name);
  }
  if (greedy_wins(settings)) names.insert("temp");
  return names;
}

Json asked_sampling(const SamplingOptions& options, const std::set<std::string>& names) {
  constexpr std::pair<const char*, const char*> kFields[] = {
      {"temp", "temperature"},
      {"top-k", "top_k"},
      {"top-p", "top_p"},
      {"min-p", "min_p"},
      {"presence-penalty", "presence_penalty"},
      {"frequency-penalty", "frequency_penalty"},
      {"repeat-penalty", "repeat_penalty"},
      {"repeat-last-n", "repeat_last_n"}};
  Json fields = Json::object();
  for (const auto& [name, field] : kFields) {
    if (!names.contains(name)) continue;
    const double value = value_of(options, name);
    // Six digits are what a float holds: 0.7 and not 0.699999988079071.
    fields[field] = std::stod(fmt::format("{:.6g}", value));
    if (std::string_view(name) == "top-k") fields[field] = options.top_k;
    if (std::string_view(name) == "repeat-last-n") fields[field] = options.repeat_last_n;
  }
  if (names.contains("seed")) fields["seed"] = options.seed;
  return fields;
}

Result<void> set_sampling(SamplingOptions& options, const std::string& name,
                          const std::string& text) {
  for (const char* known : kNames) {
    if (name != known) continue;
    PENSTOCK_TRY(check_value(*find_option(Verb::kChat, name), text));
    assign(options, name, to_number(text));
    return {};
  }
  std::vector<std::string_view> names(std::begin(kNames), std::end(kNames));
  names.push_back("max-tokens");
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("there is no setting \"{}\"{}", name, suggestion(name, names))};
}

}  // namespace penstock
