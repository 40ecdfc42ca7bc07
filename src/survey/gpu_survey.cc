#include "survey/gpu_survey.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"
#include "gpu/gpu_system.h"

namespace penstock {
namespace {

constexpr uint64_t kBufferMax = uint64_t{512} << 20;

Json to_json(const SurveyedGpu& report) {
  const GpuFacts& facts = report.facts;
  Json json = {
      {"name", facts.name},  {"kind", name_of(facts.kind)},        {"driver", facts.driver},
      {"vulkan", facts.api}, {"memory_bytes", facts.memory_bytes}, {"unified", facts.is_unified}};
  if (facts.budget_bytes > 0) json["budget_bytes"] = facts.budget_bytes;
  if (!report.trouble.empty()) json["trouble"] = report.trouble;
  if (report.probe) {
    json["bits_right"] = report.probe->is_right();
    json["bits_compared"] = report.probe->inputs();
  }
  if (report.rates) json.update(to_json(*report.rates));
  if (report.experts) json["experts_gbps"] = report.experts->gbps;
  return json;
}

// Everything that is asked of one device; its errors but a wish to stop are the report's.
Result<void> examine_gpu(GpuSystem& system, double point_s, const std::stop_token& stop,
                         SurveyedGpu& report) {
  const std::unique_ptr<GpuDevice> device =
      PENSTOCK_TRY(GpuDevice::create(system, report.facts.index));
  report.probe = PENSTOCK_TRY(probe_bits(*device));
  report.trouble = report.probe->refusal();
  if (!report.probe->is_right() || report.facts.kind == GpuKind::kSoftware) return {};
  const uint64_t room =
      report.facts.budget_bytes > 0 ? report.facts.budget_bytes : report.facts.memory_bytes;
  const GpuRatesOptions options = {.buffer_bytes = std::min(kBufferMax, room / 4),
                                   .seconds = point_s};
  report.rates = PENSTOCK_TRY(measure_gpu(*device, options, stop));
  report.experts = PENSTOCK_TRY(measure_gpu_experts(*device, {}, options, stop));
  return {};
}

std::string gpu_lines(const SurveyedGpu& report) {
  const GpuFacts& facts = report.facts;
  std::string text = fmt::format("  {} {}, {}: {}", facts.index, facts.name, name_of(facts.kind),
                                 format_bytes(facts.memory_bytes));
  if (facts.budget_bytes > 0) text += fmt::format(", {} free", format_bytes(facts.budget_bytes));
  text += fmt::format("; {}, Vulkan {}\n", facts.driver, facts.api);
  if (!report.trouble.empty()) text += fmt::format("    not to be used: {}\n", report.trouble);
  if (report.probe && report.probe->is_right()) {
    text += fmt::format("    the bits of the CPU in all of {} results{}\n", report.probe->inputs(),
                        facts.kind == GpuKind::kSoftware
                            ? "; a software device, this machine's processors once more"
                            : "");
  }
  if (report.rates) {
    const GpuRates& rates = *report.rates;
    text += fmt::format(
        "    reads {:.0f} GB/s, copies {:.1f} GB/s to it and {:.1f} back, answers in {:.0f} us "
        "(one in a hundred {:.0f}), a dispatch {:.1f} us\n",
        rates.read_gbps, rates.to_device_gbps, rates.from_device_gbps, rates.round_trip_us,
        rates.round_trip_p99_us, rates.dispatch_us);
  }
  if (report.experts) {
    text += fmt::format(
        "    experts of one token in q4 (397B): {:.0f} us a layer, {:.0f} GB/s, {:.0f} % of what "
        "it reads\n",
        report.experts->layer_us, report.experts->gbps, 100 * report.experts->share_of_read);
  }
  return text;
}

}  // namespace

Json to_json(const GpuSurvey& survey) {
  Json gpus = Json::array();
  for (const SurveyedGpu& report : survey.gpus) gpus.push_back(to_json(report));
  return gpus;
}

std::vector<GpuCard> measured_gpus(const GpuSurvey& survey) {
  std::vector<GpuCard> cards;
  for (const SurveyedGpu& report : survey.gpus) {
    if (!report.rates || !report.trouble.empty()) continue;
    cards.push_back({.name = report.facts.name,
                     .memory_bytes = report.facts.memory_bytes,
                     .is_unified = report.facts.is_unified,
                     .read_gbps = report.rates->read_gbps,
                     .link_gbps = report.rates->to_device_gbps,
                     .round_trip_us = report.rates->round_trip_us,
                     .dispatch_us = report.rates->dispatch_us,
                     .experts_gbps = report.experts ? report.experts->gbps : 0,
                     .origin = "measured here"});
  }
  return cards;
}

std::string gpu_table(const GpuSurvey& survey) {
  if (survey.gpus.empty()) return fmt::format("GPUs: none; {}\n", survey.absence);
  std::string text = "GPUs\n";
  for (const SurveyedGpu& report : survey.gpus) text += gpu_lines(report);
  return text;
}

Result<GpuSurvey> survey_gpus(double point_s,
                              const std::function<void(const std::string&)>& on_device,
                              const std::stop_token& stop) {
  GpuSurvey survey;
  auto system = GpuSystem::open();
  if (!system) {
    survey.absence = system.error().message;
    return survey;
  }
  if ((*system)->devices().empty()) survey.absence = "Vulkan lists no device";
  for (const GpuFacts& facts : (*system)->devices()) {
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped before the GPUs"};
    if (on_device) on_device(facts.name);
    SurveyedGpu report;
    report.facts = facts;
    const Result<void> examined = examine_gpu(**system, point_s, stop, report);
    if (!examined) {
      if (examined.error().code == ErrorCode::kCancelled) return examined.error();
      report.trouble = examined.error().message;
    }
    survey.gpus.push_back(std::move(report));
  }
  return survey;
}

}  // namespace penstock
