#include "survey/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/byte_text.h"
#include "host/machine.h"
#include "survey/model_sizes.h"

namespace penstock {
namespace {

double per(double amount, double base) {
  return base == 0 ? 0 : amount / base;
}

// Figures that are ratios of sums over all repetitions.
struct Rates {
  double hit_rate = 0;
  double bytes_per_token = 0;
  double io_gbps = 0;
  double disk_share = 0;  // of what the disk gives
  double io_wait = 0;     // of the wall clock, with nothing to compute
  double unaccounted = 0;
  double loop_ends = 0;  // within the others
};

Rates rates_of(const BenchRow& row) {
  const PhaseMetrics total = row.total();
  const auto wall_ns = static_cast<double>(total.wall_ns);
  const auto bytes = static_cast<double>(total.store.bytes_read);
  Rates rates;
  rates.hit_rate =
      per(static_cast<double>(total.store.hits), static_cast<double>(total.store.requests));
  rates.bytes_per_token = per(bytes, static_cast<double>(total.tokens));
  rates.io_gbps = per(bytes, wall_ns);
  rates.disk_share = per(rates.io_gbps, row.flash_gbps);
  rates.io_wait = per(static_cast<double>(total.store.wait_ns), wall_ns);
  rates.unaccounted = per(static_cast<double>(total.unaccounted_ns()), wall_ns);
  rates.loop_ends = per(static_cast<double>(total.loop_ends_ns), wall_ns);
  return rates;
}

// Milliseconds per token, by name.
Json waits_json(const BenchRow& row) {
  const PhaseMetrics total = row.total();
  const auto ms = [&](int64_t ns) {
    return per(static_cast<double>(ns) / 1e6, static_cast<double>(total.tokens));
  };
  Json waits = Json::object();
  for (const StepPart& part : kStepParts) waits[part.key] = ms(total.times.*part.ns);
  waits["unaccounted"] = ms(total.unaccounted_ns());
  return waits;
}

std::vector<double> walls_ns(const BenchRow& row) {
  std::vector<double> result;
  for (const BenchSample& sample : row.samples) {
    result.push_back(static_cast<double>(sample.phase.wall_ns));
  }
  return result;
}

std::vector<double> first_tokens_ms(const BenchRow& row) {
  std::vector<double> result;
  for (const BenchSample& sample : row.samples) {
    result.push_back(static_cast<double>(sample.first_token_ns) / 1e6);
  }
  return result;
}

// By layer: how much of what the router chose was on the wish list, of all and of what had to be
// read. null where there was nothing: the first layer has no wish list.
Json recall_json(const BenchRow& row, uint64_t LayerRecall::*foreseen, uint64_t LayerRecall::*of) {
  Json result = Json::array();
  for (const LayerRecall& layer : row.recall) {
    const auto base = static_cast<double>(layer.*of);
    result.push_back(base == 0 ? Json() : Json(static_cast<double>(layer.*foreseen) / base));
  }
  return result;
}

Json whole_numbers(const std::vector<double>& values) {
  Json result = Json::array();
  for (const double value : values) result.push_back(std::llround(value));
  return result;
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const auto n = static_cast<double>(values.size());
  Spread spread;
  spread.low = values.front();
  spread.high = values.back();
  spread.median = (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
  spread.average = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() == 1) return spread;
  double squares = 0;
  for (const double value : values) squares += std::pow(value - spread.average, 2);
  spread.deviation = std::sqrt(squares / (n - 1));
  return spread;
}

BenchContext bench_context(const ModelFiles& files, const std::string& build_commit) {
  BenchContext context;
  context.model = files.path();
  context.build_commit = build_commit;
  context.cpu = this_machine().cpu_model;
  context.model_bytes = files.resident_bytes() + files.expert_bytes();
  context.model_parameters = count_parameters(files.config).total();
  context.model_type = fmt::format("{} {:.2f} B, experts {}, others {}", files.config.model_type,
                                   static_cast<double>(context.model_parameters) / 1e9,
                                   files.experts_coding(), files.resident_coding());
  return context;
}

std::string test_name(const BenchTest& test) {
  const std::string name = test.prompt_tokens > 0 ? fmt::format("pp{}", test.prompt_tokens)
                                                  : fmt::format("tg{}", test.answer_tokens);
  return test.depth > 0 ? fmt::format("{} @ d{}", name, test.depth) : name;
}

Json to_json(const BenchRow& row, const BenchContext& context) {
  const BenchTest& test = row.test;
  const Rates rates = rates_of(row);
  const StoreStats store = row.total().store;
  int64_t drafts = 0, accepted = 0;
  for (const BenchSample& sample : row.samples) {
    drafts += sample.drafts;
    accepted += sample.drafts_accepted;
  }
  const Spread walls = spread_of(walls_ns(row)), speeds = spread_of(row.speeds());
  Json json{
      {"build_commit", context.build_commit},
      {"cpu_info", context.cpu},
      {"model_filename", context.model},
      {"model_type", context.model_type},
      {"model_size", context.model_bytes},
      {"model_n_params", context.model_parameters},
      {"n_batch", row.chunk_tokens},
      {"n_threads", row.threads},
      {"n_prompt", test.prompt_tokens},
      {"n_gen", test.answer_tokens},
      {"n_depth", test.depth},
      {"test_time", row.time},
      {"avg_ns", std::llround(walls.average)},
      {"stddev_ns", std::llround(walls.deviation)},
      {"avg_ts", speeds.average},
      {"stddev_ts", speeds.deviation},
      {"samples_ns", whole_numbers(walls_ns(row))},
      {"samples_ts", row.speeds()},
      {"median_ts", speeds.median},
      {"min_ts", speeds.low},
      {"max_ts", speeds.high},
      {"cache", name_of(test.start)},
      {"routing", row.routing},
      {"lossy", !context.lossy.empty()},
      {"budget_bytes", test.budget_bytes},
      {"cache_bytes", row.cache_bytes},
      {"slots", row.num_slots},
      {"slots_given_back", row.total().store.slots_given_back},
      {"experts", row.num_experts},
      {"hit_rate", rates.hit_rate},
      {"bytes_per_token", rates.bytes_per_token},
      {"draft_n", drafts},
      {"draft_n_accepted", accepted},
      {"prefetches", store.prefetches},
      {"prefetches_used", store.prefetches_used},
      {"prefetch_bytes", store.prefetch_bytes},
      {"recall", recall_json(row, &LayerRecall::foreseen, &LayerRecall::chosen)},
      {"recall_of_misses", recall_json(row, &LayerRecall::missed_foreseen, &LayerRecall::missed)},
      {"io_gbps", rates.io_gbps},
      {"disk_gbps", row.flash_gbps},
      {"disk_mean_gbps", row.flash_mean_gbps},
      {"disk_share", rates.disk_share},
      {"io_wait_frac", rates.io_wait},
      {"waits", waits_json(row)},
      {"unaccounted", rates.unaccounted},
      {"loop_ends", rates.loop_ends},
      {"reader", row.reader},
      {"direct", row.is_direct},
      {"compute", row.compute},
      {"rss_peak", row.peak_resident_bytes},
      {"rss_peak_of_test", row.is_peak_of_test},
      {"logits_hash", fmt::format("{:016x}", row.logits_hash)}};
  if (!context.lossy.empty()) json["lossy_text"] = context.lossy;
  if (test.prompt_tokens > 0) {
    const std::vector<double> first = first_tokens_ms(row);
    json["first_token_ms"] = spread_of(first).median;
    json["samples_first_token_ms"] = first;
  }
  return json;
}

std::string table_head(const BenchContext& context, const BenchRow& first) {
  std::string head = fmt::format("{}: {}, {}\n", context.model, context.model_type,
                                 format_bytes(context.model_bytes));
  head += fmt::format("{}; {}; {}, {}; ", context.cpu, first.compute, first.reader,
                      first.is_direct ? "direct" : "through the page cache");
  head += first.flash_gbps > 0 ? fmt::format("disk {:.2f} GB/s", first.flash_gbps)
                               : "disk not measured";
  head += fmt::format("; routing {}; penstock {}\n", first.routing, context.build_commit);
  if (!context.lossy.empty()) head += context.lossy + '\n';
  head += '\n';
  head +=
      "| budget | experts in memory | cache | test | tok/s | ± | first token ms | hit rate | "
      "MB/token | disk share | io wait | unaccounted | peak memory | logits |\n";
  head += "|---:|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n";
  return head;
}

std::string table_line(const BenchRow& row) {
  const Rates rates = rates_of(row);
  const Spread speeds = spread_of(row.speeds());
  const std::string first = row.test.prompt_tokens > 0
                                ? fmt::format("{:.0f}", spread_of(first_tokens_ms(row)).median)
                                : "";
  const std::string share =
      row.flash_gbps > 0 ? fmt::format("{:.0f} %", 100 * rates.disk_share) : "";
  return fmt::format(
      "| {} | {:.0f} % | {} | {} | {:.2f} | {:.2f} | {} | {:.1f} % | {:.2f} | {} | {:.0f} % | "
      "{:.1f} % | {} | {:08x} |\n",
      format_bytes(row.test.budget_bytes),
      100 * per(static_cast<double>(row.num_slots), static_cast<double>(row.num_experts)),
      name_of(row.test.start), test_name(row.test), speeds.median, (speeds.high - speeds.low) / 2,
      first, 100 * rates.hit_rate, rates.bytes_per_token / 1e6, share, 100 * rates.io_wait,
      100 * rates.unaccounted, format_bytes(row.peak_resident_bytes), row.logits_hash >> 32);
}

}  // namespace penstock
