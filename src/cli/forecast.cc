#include "cli/forecast.h"

#include <fmt/format.h>

#include <charconv>

#include "cli/figures.h"
#include "cli/kept_profile.h"
#include "cli/loading.h"
#include "experts/gpu_tier.h"
#include "io/output_file.h"
#include "model/shapes.h"
#include "survey/gpu_gain.h"
#include "survey/svg_chart.h"

namespace penstock {
namespace {

constexpr int kBudgetRows = 9;
constexpr int kBudgetPoints = 48;  // of a chart
constexpr int64_t kShapeContext = 8192;

// Where nobody says how fast prompts are computed: what processors of a few years have for each byte
// that their memory delivers.
constexpr double kFlopPerMemoryByte = 20;

struct KnownRates {
  MachineRates rates;
  std::string origin;
};

Result<HitModel> hit_model(const std::string& text) {
  for (const HitKind kind : {HitKind::kSession, HitKind::kTopics, HitKind::kUniform}) {
    if (text == name_of(kind)) return HitModel{kind, 0};
  }
  double rate = -1;
  const char* end = text.data() + text.size();
  const bool is_number = std::from_chars(text.data(), end, rate).ptr == end;
  if (is_number && rate >= 0 && rate <= 1) return HitModel{HitKind::kGiven, rate};
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("--hits: \"{}\" is not session, topics, uniform or a rate from 0 to 1", text)};
}

// Flags alone need no profile; some of them replace its rates.
Result<std::optional<KnownRates>> rates_of_one_drive(Call& call, uint64_t read_bytes,
                                                     DType experts) {
  const Settings& settings = call.settings;
  const double flash = settings.number("flash-gbps");
  const double memory = settings.number("dram-gbps");
  const double gflops = settings.number("gflops");
  if (flash > 0 && memory > 0 && gflops > 0) {
    const MachineRates rates{.flash_gbps = flash, .memory_gbps = memory, .prefill_gflops = gflops};
    return std::optional(KnownRates{rates, "as given"});
  }
  if (flash > 0 && memory > 0 && !settings.is_given("machine")) {
    const double assumed = kFlopPerMemoryByte * memory;
    const MachineRates rates{.flash_gbps = flash, .memory_gbps = memory, .prefill_gflops = assumed};
    return std::optional(KnownRates{
        rates, fmt::format("as given; prompts at {:.0f} GFLOP/s, taken from the rate of memory "
                           "(--gflops says it better)",
                           assumed)});
  }
  const bool any = flash > 0 || memory > 0 || gflops > 0;
  const std::string path = profile_path(call);
  const std::optional<KeptProfile> kept = PENSTOCK_TRY(kept_profile(call, path));
  if (!kept) {
    if (settings.is_given("machine")) return load_profile(call.storage, path).error();
    if (!any) return std::optional<KnownRates>();
    return Error{ErrorCode::kInvalidArgument,
                 "a forecast needs --flash-gbps and --dram-gbps (and knows prompts better with "
                 "--gflops), or a profile of the machine: run `penstock doctor MODEL`"};
  }
  for (const std::string& difference : kept->differences) {
    call.terminal.note(fmt::format("{} is of another machine: {}", path, difference));
  }
  KnownRates known{PENSTOCK_TRY(rates_of(kept->profile, read_bytes, experts)),
                   fmt::format("{}, measured {}", path, kept->profile.date)};
  if (flash > 0) {
    known.rates.flash_gbps = flash;
    known.rates.first_read_us = 0;
  }
  if (memory > 0) known.rates.memory_gbps = known.rates.weights_gbps = memory;
  if (gflops > 0) known.rates.prefill_gflops = gflops;
  return std::optional(std::move(known));
}

// What one drive holds another may hold as well: their rates add up.
Result<std::optional<KnownRates>> known_rates(Call& call, uint64_t read_bytes, DType experts) {
  double further = 0;
  const std::vector<std::string> mirrors = call.settings.list("mirror-gbps");
  for (const std::string& text : mirrors) {
    double rate = 0;
    const char* end = text.data() + text.size();
    if (std::from_chars(text.data(), end, rate).ptr != end || !(rate > 0 && rate <= 1e4)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--mirror-gbps: \"{}\" is no rate of a drive in GB/s", text)};
    }
    further += rate;
  }
  std::optional<KnownRates> known = PENSTOCK_TRY(rates_of_one_drive(call, read_bytes, experts));
  if (!known || mirrors.empty()) return known;
  known->rates.flash_gbps += further;
  known->origin += fmt::format(", and {} GB/s of {} further drive{}", further, mirrors.size(),
                               mirrors.size() == 1 ? "" : "s");
  return known;
}

Result<std::vector<GpuCard>> cards_of_profile(Call& call) {
  std::optional<KeptProfile> kept = PENSTOCK_TRY(kept_profile(call, profile_path(call)));
  return kept ? std::move(kept->profile.gpus) : std::vector<GpuCard>();
}

Result<void> forecast_on(Call& call, const GpuCard& card, TrunkOnGpu trunk,
                         ForecastRequest& request) {
  PENSTOCK_TRY(use_gpu(card, call.settings.bytes("vram"), trunk, request));
  call.terminal.note(
      fmt::format("{}: {}, reads {:.0f} GB/s, copies {:.0f} GB/s, answers in {:.0f} us", card.name,
                  card.origin, card.read_gbps, card.link_gbps, card.round_trip_us));
  return {};
}

// Where nobody asked: what a run on this machine would use. Rates of another machine have no GPU of this one.
Result<void> apply_own_gpu(Call& call, ForecastRequest& request) {
  for (const char* flag : {"flash-gbps", "dram-gbps", "gflops", "machine"}) {
    if (call.settings.is_given(flag)) return {};
  }
  const std::vector<GpuCard> cards = PENSTOCK_TRY(cards_of_profile(call));
  const GpuCard* const card = best_gpu(cards);
  if (card == nullptr || card->is_unified) return {};
  const TrunkOnGpu asked = trunk_on_gpu(call.settings.text("gpu-trunk"));
  const Result<GpuGain> gain = gpu_gain(request, *card, 0, asked);
  if (gain && gain->pays()) return forecast_on(call, *card, gain->trunk, request);
  return {};
}

// --gpu and --vram. "auto" where none was measured is a line, as it is where there is none.
Result<void> apply_gpu(Call& call, bool can_compute, ForecastRequest& request) {
  const std::string& name = call.settings.text("gpu");
  const bool has_vram = call.settings.is_given("vram");
  if (name.empty() || name == "off") {
    if (!has_vram) return {};
    return Error{ErrorCode::kInvalidArgument,
                 "--vram is memory of a GPU, which --gpu off leaves out"};
  }
  if (!call.settings.is_given("gpu") && !has_vram) {
    return can_compute ? apply_own_gpu(call, request) : Result<void>();
  }
  if (!can_compute) {
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("--gpu: this model's experts stay on the processors; a GPU computes {}",
                    kGpuCodingNames)};
  }
  const std::vector<GpuCard> measured = PENSTOCK_TRY(cards_of_profile(call));
  if (name == "auto" && measured.empty()) {
    call.terminal.note(
        "no GPU is forecast: none of this machine was measured (`penstock doctor MODEL`); --gpu "
        "NAME forecasts a card that is not here");
    return {};
  }
  const GpuCard card = PENSTOCK_TRY(find_gpu_card(name, measured));
  return forecast_on(call, card, trunk_on_gpu(call.settings.text("gpu-trunk")), request);
}

Result<void> apply_settings(Call& call, const MachineRates& rates, ForecastRequest& request) {
  request.rates = rates;
  request.hits = PENSTOCK_TRY(hit_model(call.settings.text("hits")));
  request.prompt_tokens = call.settings.integer("prompt-length");
  if (call.settings.text("prefetch") == "off") request.read_ahead = {.in_prompts = 0};
  return {};
}

std::vector<ForecastRow> rows_over(const ForecastRequest& request, const std::string& axis) {
  if (axis == "bits") return over_bits(request);
  if (axis == "experts") return over_experts(request);
  if (axis == "vram") return over_vram(request, kBudgetRows);
  return over_budgets(request, kBudgetRows);
}

std::string axis_name(const std::string& axis) {
  if (axis == "bits") return "bits";
  if (axis == "vram") return "VRAM GiB";
  return axis == "experts" ? "experts/token" : "budget GiB";
}

Chart speed_chart(const std::vector<ForecastRow>& rows, const std::string& axis,
                  const std::string& name) {
  Chart chart;
  chart.title = fmt::format("{}: predicted speed of one conversation", name);
  chart.x_label = axis == "bits"      ? "bits per weight of an expert, scales included"
                  : axis == "experts" ? "experts per token"
                  : axis == "vram"    ? "memory of the GPU that is used, GiB"
                                      : "memory budget, GiB";
  chart.y_label = "tokens per second";
  chart.series = {
      {"predicted", {}}, {"one after the other", {}}, {"limit", {}, ChartStyle::kDashed}};
  for (const ForecastRow& row : rows) {
    const TokenCost& token = row.forecast.token;
    chart.series[0].points.emplace_back(row.x, token.overlapped_tps());
    chart.series[1].points.emplace_back(row.x, token.serial_tps());
    chart.series[2].points.emplace_back(row.x, token.limit_tps());
  }
  return chart;
}

Chart term_chart(const std::vector<ForecastRow>& rows, const std::string& axis) {
  Chart chart;
  chart.title = "Where the time of one token goes";
  chart.x_label = axis_name(axis);
  chart.y_label = "ms per token";
  const bool has_gpu = !rows.empty() && rows.back().forecast.gpu_slots > 0;
  for (const CostTerm term : has_gpu ? std::span<const CostTerm>(kCostTerms) : kHostTerms) {
    ChartSeries& series = chart.series.emplace_back();
    series.name = name_of(term);
    for (size_t i = 0; i < rows.size(); ++i) {
      series.points.emplace_back(static_cast<double>(i), rows[i].forecast.token.term_ms(term));
    }
  }
  for (const ForecastRow& row : rows) chart.categories.push_back(fmt::format("{:.3g}", row.x));
  return chart;
}

Result<void> write_file(Call& call, const std::string& path, const std::string& text) {
  return write_output(call.storage, path, std::as_bytes(std::span(text)));
}

std::string forecast_text(const Forecast& forecast, const ForecastRequest& request,
                          const std::vector<ForecastRow>& rows, const std::string& axis) {
  std::string text = to_text(forecast, request) + to_table(rows, axis_name(axis));
  if (axis == "experts") {
    text += fmt::format("  LOSSY below {}: with fewer experts than trained it is another model\n",
                        request.plan.config.num_experts_per_tok);
  }
  return text;
}

// --svg: the chart of speeds; --html: a page with the text and both charts.
Result<void> write_charts(Call& call, const ForecastRequest& request,
                          const std::vector<ForecastRow>& rows, const std::string& name,
                          const std::string& text) {
  const std::string& axis = call.settings.text("over");
  const bool over_budget = axis == "budgets";
  const std::string speeds =
      to_svg(speed_chart(over_budget ? over_budgets(request, kBudgetPoints) : rows, axis, name));
  const std::string& svg_path = call.settings.text("svg");
  if (!svg_path.empty()) PENSTOCK_TRY(write_file(call, svg_path, speeds));
  const std::string& html_path = call.settings.text("html");
  if (html_path.empty()) return {};
  const std::string page = fmt::format(
      "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"color-scheme\" content=\"light "
      "dark\">\n<title>penstock plan</title>\n<style>body{{font-family:sans-serif;"
      "max-width:60em;margin:auto}}</style>\n{}\n{}\n<pre>{}</pre>\n",
      speeds, to_svg(term_chart(rows, axis)), text);
  return write_file(call, html_path, page);
}

Json rows_json(const std::vector<ForecastRow>& rows) {
  Json list = Json::array();
  for (const ForecastRow& row : rows) {
    Json json{{"x", row.x}};
    json.update(to_json(row.forecast));
    list.push_back(std::move(json));
  }
  return list;
}

Json gpu_json(const ForecastRequest& request) {
  const GpuCard& card = request.gpu->card;
  const DeviceRates device = device_rates(card, nearest_dtype(request.bits.experts));
  return Json{{"name", card.name},
              {"origin", card.origin},
              {"memory_bytes", card.memory_bytes},
              {"unified", card.is_unified},
              {"vram_bytes", request.gpu->vram_bytes},
              {"read_gbps", device.read_gbps},
              {"weights_gbps", device.weights_gbps},
              {"link_gbps", device.link_gbps},
              {"start_us", device.start_us},
              {"round_trip_us", device.round_trip_us},
              {"host_us", device.host_us}};
}

double bits_of_flag(const std::string& bits) {
  // A group of 64 has a scale and a bias of 16 bits each: half a bit per weight.
  return bits == "16" ? 16.0 : std::stod(bits) + 0.5;
}

DType dtype_of_flag(const std::string& bits) {
  return quantised_dtype(bits).value_or(DType::kBF16);
}

Result<ForecastRequest> shape_request(Call& call) {
  const Settings& settings = call.settings;
  const ModelShape shape = PENSTOCK_TRY(find_model_shape(call.argument(0)));
  const ModelConfig config = PENSTOCK_TRY(config_of(shape, 0));
  const StoredBits bits{.experts = bits_of_flag(settings.text("experts")),
                        .resident = bits_of_flag(settings.text("resident"))};
  ForecastRequest request = forecast_request(config, bits);
  PlanRequest& plan = request.plan;
  const int64_t context = settings.integer("context");
  const int64_t chosen = settings.integer("experts-per-token");
  if (context > config.context_max() || chosen > config.num_experts) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} has {} positions and {} experts per layer; ask for no more",
                             shape.name, config.context_max(), config.num_experts)};
  }
  plan.context = context > 0 ? context : std::min(kShapeContext, config.context_max());
  if (chosen > 0) plan.experts_per_token = chosen;
  if (PENSTOCK_TRY(low_bits(settings)).is_on()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} is a shape, which has no copy; plan a folder", kLowBitCopyFlag,
                             shape.name)};
  }
  const ExpertLimits limits = PENSTOCK_TRY(expert_limits(settings));
  PENSTOCK_TRY(check_limits(limits, config.num_expert_layers(), plan.experts_per_token));
  plan.kv_form = kv_form(settings);
  const std::string lossy = lossy_text(config, plan.experts_per_token, limits, plan.kv_form, "");
  if (!lossy.empty()) call.terminal.warning(lossy);
  if (!limits.is_off()) call.terminal.note(kForecastOfAll);
  plan.threads = std::max(1, static_cast<int>(settings.integer("threads")));
  plan.chunk_tokens = settings.integer("chunk-tokens");
  plan.num_slots = settings.integer("slots");
  plan.budget_bytes = settings.bytes("memory");
  if (plan.budget_bytes == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is a shape, not a folder: say for how much memory, such as "
                             "--memory 48G",
                             shape.name)};
  }
  const auto known = PENSTOCK_TRY(
      known_rates(call, request.sizes.record_bytes, dtype_of_flag(settings.text("experts"))));
  if (!known) {
    return Error{ErrorCode::kInvalidArgument,
                 "how fast is the machine? give --flash-gbps, --dram-gbps and --gflops, or "
                 "--machine with a profile that `penstock doctor` wrote"};
  }
  call.terminal.note(fmt::format("rates: {}", known->origin));
  PENSTOCK_TRY(apply_settings(call, known->rates, request));
  PENSTOCK_TRY(apply_gpu(call, true, request));
  return request;
}

// Types and shapes; at their addresses there is nothing.
ResidentWeights weights_of(const ModelFiles& files) {
  const std::span nowhere(reinterpret_cast<std::byte*>(uintptr_t{kPanelAlignment}),
                          files.resident_bytes());
  return files.source ? files.source_weights->placed(*files.source, nowhere)
                      : packed_weights(*files.packed, nowhere);
}

// Whether a GPU can have experts of a model: those of some layer.
Result<bool> gpu_computes_experts(Call& call, const ModelFiles& files) {
  const ExpertSource source = PENSTOCK_TRY(
      files.open_experts(call.storage, static_cast<int>(files.config.num_moe_layers())));
  return GpuTier::slot_bytes(source.table, source.forms) > 0;
}

}  // namespace

bool names_a_shape(const Call& call) {
  const Result<bool> is_folder = call.storage.is_directory(call.argument(0));
  if (is_folder && *is_folder) return false;
  return find_model_shape(call.argument(0)).has_value();
}

Result<ModelForecast> model_forecast(Call& call, const ModelFiles& files, const PlanRequest& plan) {
  ModelForecast model;
  ForecastRequest& request = model.request;
  request.plan = plan;
  request.sizes = model_sizes(files);
  request.weights = weights_of(files);
  const std::optional<DType> own = files.experts_dtype();
  request.bits.experts = own ? stored_bits(*own) : expert_bits(files.config, request.sizes);
  model.is_measured_type = own.has_value();
  model.priced_as = own.value_or(nearest_dtype(request.bits.experts));
  model.gpu_computes = own || PENSTOCK_TRY(gpu_computes_experts(call, files));
  return model;
}

Result<std::optional<ForecastRequest>> forecast_of_model(Call& call, const ModelFiles& files,
                                                         const PlanRequest& plan) {
  ModelForecast model = PENSTOCK_TRY(model_forecast(call, files, plan));
  ForecastRequest& request = model.request;
  const auto known = PENSTOCK_TRY(known_rates(call, request.sizes.record_bytes, model.priced_as));
  const std::string& gpu = call.settings.text("gpu");
  if (!known && gpu != "off" && gpu != "auto") {
    return Error{
        ErrorCode::kInvalidArgument,
        "--gpu is for a forecast, which needs --flash-gbps and --dram-gbps, or a profile of "
        "the machine: run `penstock doctor MODEL`"};
  }
  if (!known) return std::optional<ForecastRequest>();
  call.terminal.note(fmt::format("rates: {}", known->origin));
  if (!model.is_measured_type) {
    call.terminal.note(fmt::format("products of {} are taken to be as fast as those of {}",
                                   files.experts_coding(), name_of(model.priced_as)));
  }
  PENSTOCK_TRY(apply_settings(call, known->rates, request));
  PENSTOCK_TRY(apply_gpu(call, model.gpu_computes, request));
  return std::optional(std::move(request));
}

Result<void> print_forecast(Call& call, const ForecastRequest& request, const std::string& name) {
  const Forecast forecast = PENSTOCK_TRY(make_forecast(request));
  const std::string& axis = call.settings.text("over");
  const std::vector<ForecastRow> rows = rows_over(request, axis);
  const std::string text = forecast_text(forecast, request, rows, axis);
  call.output.write(text);
  return write_charts(call, request, rows, name, text);
}

Result<Json> forecast_json(Call& call, const ForecastRequest& request, const std::string& name) {
  const Forecast forecast = PENSTOCK_TRY(make_forecast(request));
  const std::string& axis = call.settings.text("over");
  const std::vector<ForecastRow> rows = rows_over(request, axis);
  const std::string text = forecast_text(forecast, request, rows, axis);
  PENSTOCK_TRY(write_charts(call, request, rows, name, text));
  const MachineRates& rates = request.rates;
  Json json{{"forecast", to_json(forecast)},
            {"rates",
             {{"flash_gbps", rates.flash_gbps},
              {"memory_gbps", rates.memory_gbps},
              {"weights_gbps", rates.weights_gbps},
              {"prefill_gflops", rates.prefill_gflops},
              {"layer_us", rates.layer_us},
              {"first_read_us", rates.first_read_us},
              {"pause_us", rates.pause_us}}},
            {"hits", name_of(request.hits.kind)},
            {"over", axis},
            {"rows", rows_json(rows)}};
  if (request.gpu) json["gpu"] = gpu_json(request);
  return json;
}

Result<int> plan_shape(Call& call) {
  const ForecastRequest request = PENSTOCK_TRY(shape_request(call));
  const MemoryPlan plan = PENSTOCK_TRY(plan_memory(request.plan));
  const std::string& name = call.argument(0);
  if (call.json()) {
    Json json{{"shape", name}};
    json.update(PENSTOCK_TRY(forecast_json(call, request, name)));
    call.output.write_line(json);
    return kExitDone;
  }
  call.output.write(
      fmt::format("{}, context of {} tokens, experts in {} bits, other weights in {}\n", name,
                  request.plan.context, request.bits.experts, request.bits.resident));
  call.output.write(to_table(plan, request.plan.budget_bytes));
  PENSTOCK_TRY(print_forecast(call, request, name));
  return kExitDone;
}

}  // namespace penstock
