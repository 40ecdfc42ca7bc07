// What would policy P with S slots have hit on a recorded routing? No model, no disk, no clock: the
// same answer on every machine.
//
//   cache_replay tests/data/eval/routing_text.safetensors
//   cache_replay --slots 64 128 256 --policy lru frequency-recency --chunk 32 run.trace
//
// Reads traces of ours (store/routing_trace.h) and safetensors files with a uint8 tensor layer.N
// [tokens, top_k] per layer and int32 lengths [sequences]. An event is one run of one layer: its
// experts are asked for together and none of them is evicted for another. "belady" evicts what is
// used farthest in the future: no policy can do better, none can know.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <set>
#include <string>
#include <vector>

#include "format/safetensors.h"
#include "store/expert_cache.h"
#include "store/routing_trace.h"

namespace penstock {
namespace {

constexpr double kDefaultShares[] = {0.125, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75};

struct Outcome {
  uint64_t requests = 0;
  uint64_t misses = 0;
};

Result<RoutingTrace> read_safetensors_trace(const std::string& path) {
  const SafetensorsFile file = PENSTOCK_TRY(SafetensorsFile::open(posix_storage(), path));
  const std::vector<int32_t> lengths = PENSTOCK_TRY(file.read<int32_t>("lengths"));
  std::vector<std::vector<uint8_t>> layers;
  while (file.find(fmt::format("layer.{}", layers.size())) != nullptr) {
    layers.push_back(PENSTOCK_TRY(file.read<uint8_t>(fmt::format("layer.{}", layers.size()))));
  }
  const TensorInfo* first = file.find("layer.0");
  if (first == nullptr || first->shape.size() != 2 || first->shape[1] < 1) {
    return Error{ErrorCode::kCorrupt, path + ": layer.0 [tokens, top_k] is missing"};
  }
  const auto top_k = static_cast<size_t>(first->shape[1]);
  int64_t num_tokens = 0;
  for (const int32_t length : lengths) num_tokens += std::max(length, 0);
  uint8_t last_expert = 0;
  for (const auto& layer : layers) {
    if (std::ssize(layer) != num_tokens * static_cast<int64_t>(top_k)) {
      return Error{ErrorCode::kCorrupt, path + ": a layer does not have the tokens of \"lengths\""};
    }
    last_expert = std::max(last_expert, *std::max_element(layer.begin(), layer.end()));
  }
  RoutingTrace trace(static_cast<int>(layers.size()), last_expert + 1);
  size_t token = 0;
  std::vector<int32_t> experts(top_k);
  for (const int32_t length : lengths) {
    trace.begin_sequence();
    for (int32_t i = 0; i < length; ++i, ++token) {
      if (i > 0) trace.begin_step();
      for (size_t layer = 0; layer < layers.size(); ++layer) {
        const auto row = layers[layer].begin() + static_cast<std::ptrdiff_t>(token * top_k);
        std::copy_n(row, top_k, experts.begin());
        trace.add(static_cast<int>(layer), experts);
      }
    }
  }
  return trace;
}

// A prompt is read in chunks: `steps` steps of a sequence in a row become one, with each expert
// once.
RoutingTrace in_chunks(const RoutingTrace& trace, int64_t steps) {
  RoutingTrace result(trace.num_layers(), trace.num_experts());
  std::vector<std::set<int32_t>> wanted(static_cast<size_t>(trace.num_layers()));
  const auto flush = [&] {
    for (int layer = 0; layer < trace.num_layers(); ++layer) {
      auto& experts = wanted[static_cast<size_t>(layer)];
      if (experts.empty()) continue;
      result.add(layer, std::vector<int32_t>(experts.begin(), experts.end()));
      experts.clear();
    }
  };
  int64_t first_step = 0;
  int64_t sequence = 0;
  for (const RoutingEvent& event : trace.events()) {
    if (event.sequence != sequence || event.step >= first_step + steps) {
      flush();
      if (event.sequence != sequence) {
        result.begin_sequence();
      } else {
        result.begin_step();
      }
      sequence = event.sequence;
      first_step = event.step;
    }
    wanted[static_cast<size_t>(event.layer)].insert(event.experts.begin(), event.experts.end());
  }
  flush();
  return result;
}

CacheShape shape_of(const RoutingTrace& trace, int num_slots) {
  return {
      .num_layers = trace.num_layers(), .num_experts = trace.num_experts(), .num_slots = num_slots};
}

Outcome replay(const RoutingTrace& trace, const std::vector<RoutingEvent>& events, int num_slots,
               EvictionPolicy policy) {
  ExpertCache cache(shape_of(trace, num_slots), policy);
  Outcome outcome;
  std::vector<int> pinned;
  for (const RoutingEvent& event : events) {
    cache.begin_run(event.layer);
    pinned.clear();
    for (const uint16_t expert : event.experts) {
      cache.record_use(event.layer, expert);
      const auto slot = cache.find(event.layer, expert);
      if (!slot) continue;
      cache.pin(*slot);
      pinned.push_back(*slot);
    }
    outcome.requests += event.experts.size();
    outcome.misses += event.experts.size() - pinned.size();
    for (const uint16_t expert : event.experts) {
      if (cache.find(event.layer, expert)) continue;
      auto slot = cache.claim(event.layer, expert);
      if (!slot) {  // more experts than slots: the next wave
        for (const int done : pinned) cache.unpin(done);
        pinned.clear();
        slot = cache.claim(event.layer, expert);
      }
      cache.finish(*slot);
      cache.pin(*slot);
      pinned.push_back(*slot);
    }
    for (const int slot : pinned) cache.unpin(slot);
  }
  return outcome;
}

// For each expert of each event the event that uses it next; INT_MAX: none.
std::vector<std::vector<int>> next_uses(const RoutingTrace& trace,
                                        const std::vector<RoutingEvent>& events) {
  std::vector<int> next(
      static_cast<size_t>(trace.num_layers()) * static_cast<size_t>(trace.num_experts()), INT_MAX);
  std::vector<std::vector<int>> uses(events.size());
  for (size_t i = events.size(); i-- > 0;) {
    for (const uint16_t expert : events[i].experts) {
      int& use = next[static_cast<size_t>(events[i].layer * trace.num_experts() + expert)];
      uses[i].push_back(use);
      use = static_cast<int>(i);
    }
  }
  return uses;
}

// Held experts by their next use, farthest last. An event with more experts than slots holds them
// all for its time: still a bound.
Outcome replay_belady(const RoutingTrace& trace, const std::vector<RoutingEvent>& events,
                      int num_slots) {
  const auto uses = next_uses(trace, events);
  std::vector<int> key_of(static_cast<size_t>(trace.num_layers() * trace.num_experts()), -1);
  std::set<std::pair<int, int>> held;
  Outcome outcome;
  for (size_t i = 0; i < events.size(); ++i) {
    const RoutingEvent& event = events[i];
    outcome.requests += event.experts.size();
    size_t missing = 0;
    for (const uint16_t expert : event.experts) {
      const int id = event.layer * trace.num_experts() + expert;
      missing += held.erase({key_of[static_cast<size_t>(id)], id}) == 0;
    }
    outcome.misses += missing;
    while (!held.empty() && held.size() + event.experts.size() > static_cast<size_t>(num_slots)) {
      held.erase(std::prev(held.end()));
    }
    for (size_t k = 0; k < event.experts.size(); ++k) {
      const int id = event.layer * trace.num_experts() + event.experts[k];
      key_of[static_cast<size_t>(id)] = uses[i][k];
      held.insert({uses[i][k], id});
    }
  }
  return outcome;
}

void print_row(const std::string& name, const std::vector<Outcome>& outcomes, int64_t steps) {
  fmt::print("{:<20}", name);
  for (const Outcome& outcome : outcomes) {
    fmt::print("  {:5.1f} {:8.2f}",
               100.0 * (1.0 - static_cast<double>(outcome.misses) /
                                  static_cast<double>(std::max<uint64_t>(outcome.requests, 1))),
               static_cast<double>(outcome.misses) / static_cast<double>(steps));
  }
  fmt::print("\n");
}

struct Options {
  std::vector<std::string> files;
  std::vector<int> slots;
  std::vector<std::string> policies;
  int64_t chunk = 1;
};

Result<void> replay_file(const std::string& path, const Options& options) {
  const bool is_safetensors = path.size() > 12 && path.ends_with(".safetensors");
  RoutingTrace trace = PENSTOCK_TRY(is_safetensors ? read_safetensors_trace(path)
                                                   : RoutingTrace::read(posix_storage(), path));
  if (options.chunk > 1) trace = in_chunks(trace, options.chunk);
  const std::vector<RoutingEvent> events = trace.events();
  if (events.empty()) return Error{ErrorCode::kCorrupt, path + ": no events"};
  const int64_t steps = events.back().step + 1;
  const int all = trace.num_layers() * trace.num_experts();
  std::vector<int> slots = options.slots;
  if (slots.empty()) {
    for (const double share : kDefaultShares) slots.push_back(static_cast<int>(share * all));
  }
  fmt::print("{}\n{} layers of {} experts, {} steps in {} sequences\n", path, trace.num_layers(),
             trace.num_experts(), steps, events.back().sequence + 1);
  fmt::print("{:<20}", "slots (share)");
  for (const int count : slots) fmt::print("{:>9} ({:3.0f}%)", count, 100.0 * count / all);
  fmt::print("\n{:<20}", "");
  for (size_t i = 0; i < slots.size(); ++i) fmt::print("   hit%  misses");
  fmt::print("   (misses per step)\n");

  for (const EvictionPolicy policy : kEvictionPolicies) {
    const auto& chosen = options.policies;
    const bool is_chosen =
        chosen.empty() || std::find(chosen.begin(), chosen.end(), name_of(policy)) != chosen.end();
    if (!is_chosen) continue;
    std::vector<Outcome> row;
    for (const int count : slots) row.push_back(replay(trace, events, count, policy));
    print_row(std::string(name_of(policy)), row, steps);
  }
  std::vector<Outcome> bound;
  for (const int count : slots) bound.push_back(replay_belady(trace, events, count));
  print_row("belady", bound, steps);
  return {};
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  CLI::App app("Replays recorded routing through the expert cache.");
  penstock::Options options;
  app.add_option("traces", options.files, "files of recorded routing")->required();
  app.add_option("--slots", options.slots, "numbers of slots (default: shares of all experts)")
      ->check(CLI::PositiveNumber);
  app.add_option("--policy", options.policies, "only these policies");
  app.add_option("--chunk", options.chunk, "steps taken together, as a prompt is read")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  for (const std::string& path : options.files) {
    const auto replayed = penstock::replay_file(path, options);
    if (!replayed) {
      fmt::print(stderr, "{}\n", replayed.error().message);
      return 1;
    }
  }
  return 0;
}
