#include "engine/knobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace penstock {
namespace {

constexpr int64_t kKibibyte = 1024;

// A row whose number is the field that `Field` finds, a lambda without captures.
template <class Field>
constexpr Knob knob(std::string_view name, std::string_view term, int64_t low, int64_t high,
                    std::string_view help, Field) {
  return {name,
          term,
          low,
          high,
          help,
          [](const EngineOptions& options) { return static_cast<int64_t>(Field{}(options)); },
          [](EngineOptions& options, int64_t value) {
            auto& field = Field{}(options);
            field = static_cast<std::remove_reference_t<decltype(field)>>(value);
          }};
}

constexpr Knob kKnobs[] = {
    knob(
        "reads_in_flight", "flash", 8, 1024, "reads that the disk is given at a time",
        [](auto& options) -> auto& { return options.reader.depth; }),
    knob(
        "experts_ahead", "flash", 1, 16, "experts of the next layer whose reads are begun",
        [](auto& options) -> auto& { return options.tuning.ahead.experts_ahead; }),
    {"guesses_right_percent", "flash", 0, 90,
     "reading ahead goes on while so many of its guesses are right",
     [](const EngineOptions& options) {
       return int64_t{std::lround(options.tuning.ahead.share_min * 100)};
     },
     [](EngineOptions& options, int64_t value) {
       options.tuning.ahead.share_min = static_cast<float>(value) / 100;
     }},
    knob(
        "half_life_runs", "misses", 8, 100,
        "runs of a layer after which a use counts half when an expert has to go",
        [](auto& options) -> auto& { return options.tuning.half_life_runs; }),
    {"task_kib", "dense", 16, 1024, "KiB of weights of one task of a decoded token, at most",
     [](const EngineOptions& options) { return options.tuning.tasks.task_bytes / kKibibyte; },
     [](EngineOptions& options, int64_t value) {
       options.tuning.tasks.task_bytes = value * kKibibyte;
     }},
    knob(
        "tasks_of_thread", "dense", 1, 32, "tasks that an op is cut into for each thread, at least",
        [](auto& options) -> auto& { return options.tuning.tasks.tasks_of_thread; }),
    knob(
        "spins", "fixed", 0, 64000, "looks for the next loop before a worker sleeps",
        [](auto& options) -> auto& { return options.tuning.spins; }),
    knob(
        "chunk_tokens_max", "prompt", 8, 4096, "tokens of a prompt in one pass, at most",
        [](auto& options) -> auto& { return options.tuning.chunk_tokens_max; }),
    {"gpu_prompts", "prompt", 0, 2,
     "calls of many tokens beside a GPU: 0 whichever takes less time, 1 the processors, 2 the GPU",
     [](const EngineOptions& options) { return static_cast<int64_t>(options.gpu.prompts); },
     [](EngineOptions& options, int64_t value) {
       options.gpu.prompts = static_cast<SideRule>(value);
     }},
    {"gpu_matrix_least_kib", "dense", 0, 65536,
     "matrices of fewer KiB, of a shared expert all together, stay with the processors beside a "
     "GPU",
     [](const EngineOptions& options) {
       return static_cast<int64_t>(options.gpu.trunk_matrix_least) / kKibibyte;
     },
     [](EngineOptions& options, int64_t value) {
       options.gpu.trunk_matrix_least = static_cast<uint64_t>(value * kKibibyte);
     }},
    knob(
        "gpu_guests", "prompt", 0, 1,
        "whether experts in RAM go to a GPU for calls of many tokens that it computes",
        [](auto& options) -> auto& { return options.gpu.takes_guests; }),
    knob(
        "list_ahead_part", "prompt", 1, 16,
        "one part in so many of a prompt's next list is read ahead at a time",
        [](auto& options) -> auto& { return options.tuning.ahead.list_ahead_part; }),
    knob(
        "list_left_part", "prompt", 2, 64,
        "reading ahead begins when one part in so many of the list is left in flight",
        [](auto& options) -> auto& { return options.tuning.ahead.list_left_part; }),
};

const Knob* find_knob(std::string_view name) {
  const auto found = std::ranges::find(kKnobs, name, &Knob::name);
  return found == std::end(kKnobs) ? nullptr : &*found;
}

}  // namespace

std::span<const Knob> all_knobs() {
  return kKnobs;
}

int64_t built_in_value(const Knob& knob) {
  return knob.get(EngineOptions{});
}

Result<void> check_knob(const KnobSetting& setting) {
  const Knob* knob = find_knob(setting.name);
  if (knob == nullptr) {
    std::string names;
    for (const Knob& known : kKnobs) names += fmt::format(" {}", known.name);
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("there is no knob \"{}\"; there are:{}", setting.name, names)};
  }
  if (setting.value >= knob->low && setting.value <= knob->high) return {};
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected {} to {}", knob->name,
                                                        setting.value, knob->low, knob->high)};
}

Result<void> set_knob(EngineOptions& options, const KnobSetting& setting) {
  PENSTOCK_TRY(check_knob(setting));
  find_knob(setting.name)->set(options, setting.value);
  return {};
}

Result<std::vector<KnobSetting>> parse_knobs(const std::string& text) {
  std::vector<KnobSetting> settings;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string word = text.substr(begin, comma - begin);
    begin = comma + 1;
    const size_t equals = word.find('=');
    KnobSetting setting{word.substr(0, equals), 0};
    const char* const end = word.data() + word.size();
    const char* const number = equals == std::string::npos ? end : word.data() + equals + 1;
    const auto [stopped, failure] = std::from_chars(number, end, setting.value);
    if (number == end || failure != std::errc{} || stopped != end) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("\"{}\" is not NAME=VALUE, such as experts_ahead=5", word)};
    }
    PENSTOCK_TRY(check_knob(setting));
    if (std::ranges::find(settings, setting.name, &KnobSetting::name) != settings.end()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} is given twice", setting.name)};
    }
    settings.push_back(std::move(setting));
  }
  return settings;
}

}  // namespace penstock
