// plan: where a model's memory would go, without loading it.

#include <fmt/format.h>

#include "base/byte_text.h"
#include "cli/figures.h"
#include "cli/forecast.h"
#include "cli/loading.h"
#include "cli/program.h"
#include "model/shapes.h"

namespace penstock {
namespace {

// What is lossy of it.
struct Lossy {
  ExpertLimits limits;
  std::string low_bits;  // low_bits_text()
  std::string text;      // lossy_text()
};

Json plan_json(const MemoryPlan& plan, const ResolvedOptions& resolved, const Lossy& lossy) {
  Json items = Json::array();
  for (const PlanItem& item : plan.items) {
    items.push_back(Json{{"purpose", item.purpose}, {"bytes", item.bytes}});
  }
  const PlanRequest& request = resolved.request;
  Json json{{"memory_min_bytes", plan.minimum_bytes},
            {"memory_total_bytes", plan.total_bytes},
            {"memory_all_resident_bytes", plan.all_resident_bytes},
            {"items", std::move(items)},
            {"slots", plan.num_slots},
            {"experts", plan.num_experts},
            {"expert_bytes", request.record_bytes},
            {"chunk_tokens", plan.chunk_tokens},
            {"context", request.context},
            {"threads", request.threads},
            {"experts_per_token", request.experts_per_token},
            {"lossy", !lossy.text.empty()},
            {"kv_bits", bits_of(request.kv_form)},
            {"kv_bytes_per_position", plan.kv_bytes_per_position},
            {"budget_bytes", request.budget_bytes},
            {"budget_reason", resolved.budget_reason}};
  if (!lossy.limits.is_off()) json["expert_limits"] = to_text(lossy.limits);
  if (request.has_copy()) {
    json["low_bits"] = {{"text", lossy.low_bits},
                        {"slots", plan.copy_slots},
                        {"expert_bytes", request.copy.record_bytes}};
  }
  return json;
}

// The smallest workable budget of each verb that a person would start.
Result<Json> floors(const Call& call, const ModelFiles& files) {
  Json floors = Json::object();
  for (const char* verb : {"run", "chat", "serve"}) {
    const EngineOptions options =
        PENSTOCK_TRY(engine_options(call.settings, find_verb(verb)->verb));
    PlanRequest request = PENSTOCK_TRY(resolve_options(files, options)).request;
    request.budget_bytes = uint64_t{1} << 62;
    floors[verb] = PENSTOCK_TRY(plan_memory(request)).minimum_bytes;
  }
  return floors;
}

std::string floors_text(const Json& floors) {
  std::string text = "  smallest budgets:";
  for (const auto& [verb, bytes] : floors.items()) {
    text += fmt::format("{} {} {}", text.ends_with(':') ? "" : ",", verb,
                        format_bytes(bytes.get<uint64_t>()));
  }
  return text + '\n';
}

// The plan of the smallest budget that would work: the needs, when a budget was refused.
Result<MemoryPlan> smallest_plan(PlanRequest request) {
  request.budget_bytes = uint64_t{1} << 62;
  request.budget_bytes = PENSTOCK_TRY(plan_memory(request)).minimum_bytes;
  return plan_memory(request);
}

Result<int> report_refusal(Call& call, const ResolvedOptions& resolved, const Lossy& lossy,
                           const Error& refusal) {
  const MemoryPlan needs = PENSTOCK_TRY(smallest_plan(resolved.request));
  if (call.json()) {
    Json json{{"error", {{"code", name_of(refusal.code)}, {"message", refusal.message}}}};
    json.update(plan_json(needs, resolved, lossy));
    call.output.write_line(json);
  }
  call.terminal.note(
      fmt::format("the smallest workable budget is {}:", format_bytes(needs.minimum_bytes)));
  call.terminal.note(to_table(needs, needs.minimum_bytes));
  call.terminal.error(refusal.message);
  return exit_code_of(refusal.code);
}

}  // namespace

Result<int> plan_verb(Call& call) {
  if (names_a_shape(call)) return plan_shape(call);
  const EngineOptions options = PENSTOCK_TRY(engine_options(call));
  const Result<FileStat> found = call.storage.stat(options.model);
  if (!found && found.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kNotFound, fmt::format("{}, and no shape of that name; {}",
                                                   found.error().message, known_shapes())};
  }
  ModelFiles files =
      PENSTOCK_TRY(open_model(call.storage, options.model, options.chat_template_file));
  PENSTOCK_TRY(open_low_bit_copy(call.storage, options, files));
  ResolvedOptions resolved = PENSTOCK_TRY(resolve_options(files, options));
  PlanRequest& request = resolved.request;
  Lossy lossy{options.expert_limits, low_bits_text(files, options.low_bits), {}};
  lossy.text = lossy_text(request.config, request.experts_per_token, lossy.limits, request.kv_form,
                          lossy.low_bits);
  if (!lossy.text.empty()) call.terminal.warning(lossy.text);
  Result<MemoryPlan> plan = plan_memory(request);
  if (!plan) return report_refusal(call, resolved, lossy, plan.error());
  std::optional<ForecastRequest> forecast;
  if (request.has_copy()) {
    call.terminal.note(kNoForecastOfCopy);
  } else {
    forecast = PENSTOCK_TRY(forecast_of_model(call, files, request));
  }
  if (forecast && forecast->gpu) {
    request.gpu_bytes = forecast->plan.gpu_bytes;
    plan = plan_memory(request);
    if (!plan) return report_refusal(call, resolved, lossy, plan.error());
  }
  if (forecast && !lossy.limits.is_off()) call.terminal.note(kForecastOfAll);
  if (call.json()) {
    Json json = plan_json(*plan, resolved, lossy);
    json["memory_min_bytes_of"] = PENSTOCK_TRY(floors(call, files));
    if (forecast) json.update(PENSTOCK_TRY(forecast_json(call, *forecast, options.model)));
    call.output.write_line(json);
    return kExitDone;
  }
  call.output.write(fmt::format("{}, context of {} tokens, {} threads\n", options.model,
                                request.context, request.threads));
  call.output.write(to_table(*plan, request.budget_bytes));
  call.output.write(fmt::format("  the budget is {}\n", resolved.budget_reason));
  call.output.write(floors_text(PENSTOCK_TRY(floors(call, files))));
  if (forecast) PENSTOCK_TRY(print_forecast(call, *forecast, options.model));
  return kExitDone;
}

}  // namespace penstock
