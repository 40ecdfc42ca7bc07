#include "engine/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

double milliseconds(int64_t ns) {
  return static_cast<double>(ns) / 1e6;
}

Json waits_json(const PhaseMetrics& phase) {
  Json waits = Json::object();
  waits["wall"] = milliseconds(phase.wall_ns);
  for (const StepPart& part : kStepParts) waits[part.key] = milliseconds(phase.times.*part.ns);
  waits["unaccounted"] = milliseconds(phase.unaccounted_ns());
  return waits;
}

template <class Operation>
StoreStats combine(const StoreStats& a, const StoreStats& b, const Operation& apply) {
  static_assert(sizeof(StoreStats) == 20 * sizeof(uint64_t), "a figure is missing below");
  return {.requests = apply(a.requests, b.requests),
          .hits = apply(a.hits, b.hits),
          .misses = apply(a.misses, b.misses),
          .nearer = apply(a.nearer, b.nearer),
          .prefetches = apply(a.prefetches, b.prefetches),
          .prefetches_used = apply(a.prefetches_used, b.prefetches_used),
          .prefetch_bytes = apply(a.prefetch_bytes, b.prefetch_bytes),
          .evictions = apply(a.evictions, b.evictions),
          .reads = apply(a.reads, b.reads),
          .bytes_read = apply(a.bytes_read, b.bytes_read),
          .io_retries = apply(a.io_retries, b.io_retries),
          .checksum_failures = apply(a.checksum_failures, b.checksum_failures),
          .waves = apply(a.waves, b.waves),
          .steps = apply(a.steps, b.steps),
          .shrinks = apply(a.shrinks, b.shrinks),
          .slots_given_back = apply(a.slots_given_back, b.slots_given_back),
          .wait_ns = apply(a.wait_ns, b.wait_ns),
          .verify_ns = apply(a.verify_ns, b.verify_ns),
          .bytes_verified = apply(a.bytes_verified, b.bytes_verified),
          .checksums_learned = apply(a.checksums_learned, b.checksums_learned)};
}

// The part of a total that lies between two of its shares: parts add up to the total.
template <class Count>
Count part_of(Count total, int64_t from, int64_t to, int64_t all) {
  const auto upto = [&](int64_t share) {
    return static_cast<Count>(static_cast<long double>(total) * static_cast<long double>(share) /
                              static_cast<long double>(all));
  };
  return upto(to) - upto(from);
}

double per_token(int64_t ns, int64_t tokens) {
  return tokens == 0 ? 0 : milliseconds(ns) / static_cast<double>(tokens);
}

}  // namespace

StoreStats operator-(const StoreStats& after, const StoreStats& before) {
  return combine(after, before, [](auto a, auto b) { return a - b; });
}

StoreStats operator+(const StoreStats& a, const StoreStats& b) {
  return combine(a, b, [](auto x, auto y) { return x + y; });
}

void PhaseMetrics::add(const PassFigures& pass, size_t segment, int64_t evaluated) {
  tokens += evaluated;
  wall_ns += pass.wall_ns;
  times += pass.times;
  loop_ends_ns += pass.loop_ends_ns;
  if (pass.asked.size() <= 1) {
    store = store + pass.store;
    return;
  }
  int64_t from = 0, all = 0;
  for (size_t i = 0; i < pass.asked.size(); ++i) {
    if (i < segment) from += pass.asked[i];
    all += pass.asked[i];
  }
  const int64_t to = from + pass.asked[segment];
  store = store + combine(pass.store, pass.store, [&](auto total, auto) {
            return part_of(total, from, to, std::max<int64_t>(all, 1));
          });
}

Json timings_json(const GenerationMetrics& metrics) {
  Json timings = {
      {"cache_n", metrics.cached_tokens},
      {"prompt_n", metrics.prompt.tokens},
      {"prompt_ms", milliseconds(metrics.prompt.wall_ns)},
      {"prompt_per_token_ms", per_token(metrics.prompt.wall_ns, metrics.prompt.tokens)},
      {"prompt_per_second", metrics.prompt.tokens_per_second()},
      {"predicted_n", metrics.answer_tokens},
      {"predicted_ms", milliseconds(metrics.answer.wall_ns)},
      {"predicted_per_token_ms", per_token(metrics.answer.wall_ns, metrics.answer.tokens)},
      {"predicted_per_second", metrics.answer.tokens_per_second()},
      {"first_token_ms", milliseconds(metrics.first_token_ns)}};
  if (metrics.drafts > 0) {
    timings["draft_n"] = metrics.drafts;
    timings["draft_n_accepted"] = metrics.drafts_accepted;
  }
  return timings;
}

Json penstock_json(const GenerationMetrics& metrics) {
  const StoreStats& prompt = metrics.prompt.store;
  const StoreStats& answer = metrics.answer.store;
  const uint64_t bytes = prompt.bytes_read + answer.bytes_read;
  const int64_t tokens = metrics.prompt.tokens + metrics.answer.tokens;
  const auto rate = [](const StoreStats& stats) {
    const uint64_t all = stats.hits + stats.misses;
    return all == 0 ? 0.0 : static_cast<double>(stats.hits) / static_cast<double>(all);
  };
  const auto each = [](uint64_t total, int64_t count) {
    return count == 0 ? 0.0 : static_cast<double>(total) / static_cast<double>(count);
  };
  return Json{{"expert_hits", prompt.hits + answer.hits},
              {"expert_misses", prompt.misses + answer.misses},
              {"gpu_experts", prompt.nearer + answer.nearer},
              {"expert_evictions", prompt.evictions + answer.evictions},
              {"prefetches", prompt.prefetches + answer.prefetches},
              {"prefetches_used", prompt.prefetches_used + answer.prefetches_used},
              {"prefetch_bytes", prompt.prefetch_bytes + answer.prefetch_bytes},
              {"bytes_read", bytes},
              {"bytes_read_per_token", each(bytes, tokens)},
              {"prompt_bytes_read", prompt.bytes_read},
              {"answer_bytes_read", answer.bytes_read},
              {"answer_bytes_read_per_token", each(answer.bytes_read, metrics.answer.tokens)},
              {"prompt_hit_rate", rate(prompt)},
              {"answer_hit_rate", rate(answer)},
              {"io_wait_ms", milliseconds(prompt.wait_ns + answer.wait_ns)},
              {"io_retries", prompt.io_retries + answer.io_retries},
              {"checksum_failures", prompt.checksum_failures + answer.checksum_failures},
              {"prompt_chunks", metrics.chunks},
              {"logits_hash", fmt::format("{:016x}", metrics.logits_hash)},
              {"prompt_waits_ms", waits_json(metrics.prompt)},
              {"answer_waits_ms", waits_json(metrics.answer)},
              {"prompt_loop_ends_ms", milliseconds(metrics.prompt.loop_ends_ns)},
              {"answer_loop_ends_ms", milliseconds(metrics.answer.loop_ends_ns)}};
}

}  // namespace penstock
