#include "survey/forecast.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/byte_text.h"
#include "engine/gpu_setup.h"
#include "format/manifest.h"
#include "io/checksum.h"

namespace penstock {
namespace {

constexpr uint64_t kGibibyte = uint64_t{1} << 30;
// Tokenizer and template of the published models: measured at 30 to 60 MiB.
constexpr uint64_t kTextBytesGuess = uint64_t{64} << 20;

// What lies there besides experts; the rest of its memory is theirs.
TrunkChoice gpu_trunk(const ForecastRequest& request, const MemoryPlan& plan) {
  if (!request.gpu || !request.gpu->trunk) return {};
  const uint64_t room =
      trunk_room(request.gpu->vram_bytes, gpu_limits(request.plan, plan.chunk_tokens),
                 request.sizes.record_bytes);
  return request.gpu->trunk->choose(room);
}

// 0: there is no GPU, or not even one expert's room in what it may use.
int64_t gpu_slots(const ForecastRequest& request, const MemoryPlan& plan, uint64_t trunk_bytes) {
  if (!request.gpu) return 0;
  const Result<int64_t> slots =
      GpuTier::slots_for(request.gpu->card.name, gpu_limits(request.plan, plan.chunk_tokens),
                         request.sizes.record_bytes, request.gpu->vram_bytes - trunk_bytes);
  return slots ? std::min(*slots, plan.num_experts) : 0;
}

// As fast as the last of its matrices: types differ by a few percent. Those of files are taken for
// ours of about as many bits.
DeviceTrunk device_trunk(const ForecastRequest& request, const TrunkChoice& choice) {
  const TrunkWork& work = choice.work;
  if (work.bytes == 0) return {};
  const Matrix& last = choice.trunk.matrices.back();
  const auto elements = static_cast<double>(last.rows * last.columns);
  const DType dtype = nearest_dtype(8 * static_cast<double>(gpu_matrix_bytes(last)) / elements);
  return {.bytes = static_cast<double>(work.bytes),
          .shared_bytes = static_cast<double>(work.ffn_bytes),
          .row_bytes = static_cast<double>(work.row_bytes),
          .calls = static_cast<double>(work.calls),
          .ffns = static_cast<double>(work.ffns),
          .weights_gbps = device_rates(request.gpu->card, dtype).weights_gbps};
}

// Keys and values in the form that the plan has.
ModelSizes sizes_in_use(const ForecastRequest& request) {
  ModelSizes sizes = request.sizes;
  const int64_t head_dim = request.plan.config.head_dim;
  if (head_dim == 0) return sizes;
  sizes.kv_bytes_per_position =
      sizes.kv_bytes_per_position / static_cast<uint64_t>(head_dim) *
      static_cast<uint64_t>(kv_row_floats(request.plan.kv_form, head_dim));
  return sizes;
}

CostInput cost_input(const ForecastRequest& request, const MemoryPlan& plan) {
  DeviceRates device;
  if (request.gpu) device = device_rates(request.gpu->card, nearest_dtype(request.bits.experts));
  TrunkChoice trunk;
  if (device.read_gbps > 0) trunk = gpu_trunk(request, plan);
  const int64_t device_slots = device.read_gbps > 0 ? gpu_slots(request, plan, trunk.bytes) : 0;
  return {.config = request.plan.config,
          .sizes = sizes_in_use(request),
          .rates = request.rates,
          .hits = request.hits,
          .experts_per_token = request.plan.experts_per_token,
          .num_slots = plan.num_slots,
          .position = request.plan.context / 2,
          .chunk_tokens = plan.chunk_tokens,
          .read_ahead = request.read_ahead,
          .device = device,
          .device_slots = device_slots,
          .trunk = device_trunk(request, trunk)};
}

// Weights, records and checksums of the plan follow the sizes.
void set_sizes(ForecastRequest& request, const ModelSizes& sizes) {
  request.sizes = sizes;
  request.plan.resident_bytes = sizes.resident_bytes;
  request.plan.record_bytes = sizes.record_bytes;
}

double speed(const ForecastRequest& request, const MemoryPlan& plan) {
  return token_cost(cost_input(request, plan)).overlapped_tps();
}

ForecastRequest without_gpu(ForecastRequest request) {
  request.gpu.reset();
  request.plan.gpu_bytes = 0;
  return request;
}

std::string item(const char* name, double ms, double total_ms) {
  return fmt::format("  {:<24}{:>10.1f} ms {:>5.0f} %\n", name, ms, 100 * ms / total_ms);
}

double gibibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / kGibibyte;
}

std::string gpu_text(const Forecast& forecast, const ForecastGpu& gpu) {
  const std::string matrices = fmt::format("{} of {} matrices that every token needs, ",
                                           forecast.gpu_matrices, forecast.gpu_matrices_max);
  std::string left;
  if (gpu.trunk && !gpu.trunk->types_left().empty()) {
    left = fmt::format(", matrices in {} among it", fmt::join(gpu.trunk->types_left(), ", "));
  }
  return fmt::format(
      "  {} ({}), {} of {}: {}{} of {} experts, {:.0f} % of a token's; without it {:.2f} tok/s. "
      "All else is the processors'{}; prompts are forecast as without it\n",
      gpu.card.name, gpu.card.origin, format_bytes(gpu.vram_bytes),
      format_bytes(gpu.card.memory_bytes), forecast.gpu_matrices_max > 0 ? matrices : "",
      forecast.gpu_slots, forecast.plan.num_experts, 100 * forecast.token.device_hit_rate,
      forecast.without_gpu_tps, left);
}

}  // namespace

ForecastRequest forecast_request(const ModelConfig& config, const StoredBits& bits) {
  ForecastRequest request;
  request.bits = bits;
  request.plan.config = config;
  request.plan.experts_per_token = config.num_experts_per_tok;
  request.plan.checksum_bytes =
      static_cast<uint64_t>(config.num_expert_layers() * config.num_experts) *
      std::size(kPackedParts) * sizeof(Hash128);
  request.plan.text_bytes = kTextBytesGuess;
  set_sizes(request, model_sizes(config, bits));
  // Other bits are codes of another kind, which stay with the processors.
  const DType resident = nearest_dtype(bits.resident);
  if (stored_bits(resident) == bits.resident) request.weights = listed_weights(config, resident);
  return request;
}

Result<void> use_gpu(const GpuCard& card, uint64_t vram_bytes, TrunkOnGpu trunk,
                     ForecastRequest& request) {
  if (device_rates(card, nearest_dtype(request.bits.experts)).read_gbps == 0) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("--gpu: experts of {} bits stay on the processors; a GPU computes q8, "
                             "q4, q3 and q2",
                             request.bits.experts)};
  }
  GpuFacts facts;
  facts.name = card.name;
  facts.memory_bytes = card.memory_bytes;
  facts.is_unified = card.is_unified;
  const uint64_t budget = PENSTOCK_TRY(vram_budget(facts, vram_bytes));
  request.gpu = {card, budget, std::nullopt};
  const bool has_trunk = takes_trunk(trunk, card.is_unified);
  if (has_trunk) {
    request.gpu->trunk.emplace(request.plan.config, request.weights, GpuOptions{},
                               trunk_calls(request.plan, request.plan.largest_chunk()));
  }
  request.plan.gpu_bytes = gpu_host_bytes(card.is_unified, has_trunk, budget, request.plan);
  return {};
}

Result<Forecast> make_forecast(const ForecastRequest& request) {
  const MachineRates& rates = request.rates;
  if (!(rates.flash_gbps > 0 && rates.memory_gbps > 0 && rates.prefill_gflops > 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 "a forecast needs the rates of a machine: flash and memory in GB/s, prompts in "
                 "GFLOP/s"};
  }
  Forecast forecast;
  forecast.plan = PENSTOCK_TRY(plan_memory(request.plan));
  if (request.gpu) {
    PENSTOCK_TRY(GpuTier::slots_for(request.gpu->card.name,
                                    gpu_limits(request.plan, forecast.plan.chunk_tokens),
                                    request.sizes.record_bytes, request.gpu->vram_bytes));
  }
  const CostInput input = cost_input(request, forecast.plan);
  forecast.token = token_cost(input);
  forecast.prompt = prompt_cost(input, std::max<int64_t>(1, request.prompt_tokens));
  forecast.gpu_slots = input.device_slots;
  const TrunkChoice trunk = gpu_trunk(request, forecast.plan);
  forecast.gpu_matrices = std::ssize(trunk.trunk.matrices);
  forecast.gpu_matrices_max = trunk.fit;
  if (request.gpu) {
    const ForecastRequest without = without_gpu(request);
    forecast.without_gpu_tps = speed(without, PENSTOCK_TRY(plan_memory(without.plan)));
  }

  ForecastRequest more = request;
  more.plan.budget_bytes += kGibibyte;
  forecast.with_memory_tps = speed(more, PENSTOCK_TRY(plan_memory(more.plan)));
  more = request;
  more.rates.flash_gbps += 1;
  forecast.with_flash_tps = speed(more, forecast.plan);
  more = request;
  more.rates.memory_gbps += 10;
  if (more.rates.weights_gbps > 0) more.rates.weights_gbps += 10;
  forecast.with_bandwidth_tps = speed(more, forecast.plan);
  return forecast;
}

std::vector<ForecastRow> over_budgets(const ForecastRequest& request, int steps) {
  std::vector<ForecastRow> rows;
  ForecastRequest at = request;
  at.plan.budget_bytes = uint64_t{1} << 62;
  const Result<MemoryPlan> unlimited = plan_memory(at.plan);
  if (!unlimited) return rows;
  const auto low = static_cast<double>(unlimited->minimum_bytes);
  const auto high = static_cast<double>(unlimited->all_resident_bytes);
  for (int step = 0; step < steps; ++step) {
    const double share = static_cast<double>(step) / (steps - 1);
    at.plan.budget_bytes = static_cast<uint64_t>(std::ceil(low + share * (high - low)));
    if (Result<Forecast> forecast = make_forecast(at)) {
      rows.push_back({gibibytes(at.plan.budget_bytes), std::move(*forecast)});
    }
  }
  return rows;
}

std::vector<ForecastRow> over_bits(const ForecastRequest& request) {
  std::vector<ForecastRow> rows;
  for (const double bits : {16.0, 8.5, 4.5, 3.5, 2.5}) {
    ForecastRequest at = request;
    at.bits.experts = bits;
    const ModelSizes sizes = model_sizes(request.plan.config, at.bits);
    at.sizes.expert_bytes = sizes.expert_bytes;
    at.sizes.record_bytes = at.plan.record_bytes = sizes.record_bytes;
    if (Result<Forecast> forecast = make_forecast(at)) rows.push_back({bits, std::move(*forecast)});
  }
  return rows;
}

std::vector<ForecastRow> over_vram(const ForecastRequest& request, int steps) {
  std::vector<ForecastRow> rows;
  if (Result<Forecast> none = make_forecast(without_gpu(request))) {
    rows.push_back({0, std::move(*none)});
  }
  if (!request.gpu) return rows;
  const auto all = static_cast<uint64_t>(request.plan.config.num_expert_layers() *
                                         request.plan.config.num_experts) *
                   request.sizes.record_bytes;
  const auto high =
      static_cast<double>(std::min(request.gpu->vram_bytes, all + all / 16 + kGibibyte));
  for (int step = 1; step < steps; ++step) {
    ForecastRequest at = request;
    at.gpu->vram_bytes = static_cast<uint64_t>(high * step / (steps - 1));
    if (request.gpu->card.is_unified) at.plan.gpu_bytes = at.gpu->vram_bytes;
    if (Result<Forecast> forecast = make_forecast(at)) {
      rows.push_back({gibibytes(at.gpu->vram_bytes), std::move(*forecast)});
    }
  }
  return rows;
}

std::vector<ForecastRow> over_experts(const ForecastRequest& request) {
  std::vector<ForecastRow> rows;
  for (int64_t chosen = request.plan.config.num_experts_per_tok; chosen >= 1; --chosen) {
    ForecastRequest at = request;
    at.plan.experts_per_token = chosen;
    if (Result<Forecast> forecast = make_forecast(at)) {
      rows.push_back({static_cast<double>(chosen), std::move(*forecast)});
    }
  }
  return rows;
}

Json to_json(const Forecast& forecast) {
  const TokenCost& token = forecast.token;
  Json terms = Json::object();
  for (const CostTerm term : token.terms()) {
    terms[std::string(name_of(term))] = token.term_ms(term);
  }
  Json json{{"slots", forecast.plan.num_slots},
            {"experts", forecast.plan.num_experts},
            {"memory_min_bytes", forecast.plan.minimum_bytes},
            {"memory_total_bytes", forecast.plan.total_bytes},
            {"hit_rate", token.hit_rate},
            {"missed_bytes_per_token", token.missed_bytes},
            {"bytes_per_token", token.flash_bytes},
            {"terms_ms", std::move(terms)},
            {"overlap_ms", token.overlap_ms},
            {"binding", name_of(token.binding())},
            {"serial_tps", token.serial_tps()},
            {"overlapped_tps", token.overlapped_tps()},
            {"limit_tps", token.limit_tps()},
            {"chunk_tokens", forecast.plan.chunk_tokens},
            {"prompt_chunks", forecast.prompt.chunks},
            {"prompt_bytes", forecast.prompt.flash_bytes},
            {"first_token_s", forecast.prompt.total_s},
            {"prompt_tps", forecast.prompt.tokens_per_second},
            {"with_1_gib_memory_tps", forecast.with_memory_tps},
            {"with_1_gbps_flash_tps", forecast.with_flash_tps},
            {"with_10_gbps_bandwidth_tps", forecast.with_bandwidth_tps}};
  if (forecast.gpu_slots > 0) {
    json["gpu_slots"] = forecast.gpu_slots;
    json["gpu_hit_rate"] = token.device_hit_rate;
    json["gpu_matrices"] = forecast.gpu_matrices;
    json["gpu_matrices_max"] = forecast.gpu_matrices_max;
    json["without_gpu_tps"] = forecast.without_gpu_tps;
  }
  return json;
}

std::string to_text(const Forecast& forecast, const ForecastRequest& request) {
  const TokenCost& token = forecast.token;
  const double serial_ms = token.serial_ms();
  std::string text = fmt::format(
      "one token, {} experts in each of {} layers, hit rate {:.2f} ({}), {} read from flash\n",
      request.plan.experts_per_token, request.plan.config.num_expert_layers(), token.hit_rate,
      name_of(request.hits.kind), format_bytes(static_cast<uint64_t>(token.flash_bytes)));
  for (const CostTerm term : token.terms()) {
    text += item(std::string(name_of(term)).c_str(), token.term_ms(term), serial_ms);
  }
  text += fmt::format("  {:<24}{:>10.2f} tok/s, one thing after the other\n", "serial",
                      token.serial_tps());
  text += fmt::format("  {:<24}{:>10.2f} tok/s, {:.1f} ms of the disk's time used\n", "predicted",
                      token.overlapped_tps(), token.overlap_ms);
  text += fmt::format("  {:<24}{:>10.2f} tok/s, no exact engine is faster here{}\n", "limit",
                      token.limit_tps(), request.gpu ? " with the same on the GPU" : "");
  if (request.gpu) text += gpu_text(forecast, *request.gpu);
  text += fmt::format(
      "  bound by {}; 1 GiB more memory {:+.2f} tok/s, 1 GB/s more flash {:+.2f}, "
      "10 GB/s more memory bandwidth {:+.2f}\n",
      name_of(token.binding()), forecast.with_memory_tps - token.overlapped_tps(),
      forecast.with_flash_tps - token.overlapped_tps(),
      forecast.with_bandwidth_tps - token.overlapped_tps());
  text += fmt::format(
      "a prompt of {} tokens in {} chunks: first token after {:.1f} s ({:.0f} "
      "tok/s; disk {:.1f} s, compute {:.1f} s)\n",
      request.prompt_tokens, forecast.prompt.chunks, forecast.prompt.total_s,
      forecast.prompt.tokens_per_second, forecast.prompt.flash_s, forecast.prompt.compute_s);
  return text;
}

std::string to_table(const std::vector<ForecastRow>& rows, const std::string& x_name) {
  std::string text =
      fmt::format("  {:>12} {:>7} {:>9} {:>8} {:>10} {:>8} {:>14}  {}\n", x_name, "hits", "MiB/tok",
                  "serial", "predicted", "limit", "first token s", "bound by");
  for (const ForecastRow& row : rows) {
    const TokenCost& token = row.forecast.token;
    text += fmt::format("  {:>12.1f} {:>7.2f} {:>9.0f} {:>8.2f} {:>10.2f} {:>8.2f} {:>14.1f}  {}\n",
                        row.x, token.hit_rate, token.flash_bytes / (1 << 20), token.serial_tps(),
                        token.overlapped_tps(), token.limit_tps(), row.forecast.prompt.total_s,
                        name_of(token.binding()));
  }
  return text;
}

}  // namespace penstock
