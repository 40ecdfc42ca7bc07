#include "cli/figures.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/byte_text.h"
#include "cli/drive_report.h"
#include "host/memory_limits.h"

namespace penstock {
namespace {

std::string name_of_model(Engine& engine) {
  const std::filesystem::path path(engine.files().path());
  const std::filesystem::path name = path.has_filename() ? path : path.parent_path();
  return name.filename().string();
}

uint64_t model_bytes(Engine& engine) {
  return engine.files().resident_bytes() + engine.files().expert_bytes();
}

std::string reader_text(Engine& engine) {
  std::string text = fmt::format("{}, {}", engine.experts().reader_description(),
                                 engine.reads_direct() ? "direct" : "buffered");
  const size_t num_drives = engine.experts().drives().size();
  if (num_drives > 1) text += fmt::format(", {} drives", num_drives);
  if (!engine.reader_note().empty()) text += fmt::format(" ({})", engine.reader_note());
  return text;
}

double percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string waits_of(const char* phase, const PhaseMetrics& metrics) {
  const auto row = [&](const char* name, int64_t ns) {
    return fmt::format("  {:<8}{:<14}{:>10.1f} ms {:>5.1f} %\n", phase, name,
                       static_cast<double>(ns) / 1e6,
                       percent(static_cast<uint64_t>(std::max<int64_t>(0, ns)),
                               static_cast<uint64_t>(metrics.wall_ns)));
  };
  std::string text;
  for (const StepPart& part : kStepParts) {
    const int64_t ns = metrics.times.*part.ns;
    if (part.is_always_shown || ns > 0) text += row(part.label, ns);
  }
  return text + row("unaccounted", metrics.unaccounted_ns()) +
         row("(loop ends)", metrics.loop_ends_ns);
}

// "; on the processors because of their type: experts in Q3_K, matrices in bf16"; empty where all can
// be there.
std::string types_left_text(const GpuReport& gpu) {
  std::vector<std::string> left;
  if (!gpu.expert_types_left.empty()) {
    left.push_back(fmt::format("experts in {}", fmt::join(gpu.expert_types_left, ", ")));
  }
  if (!gpu.trunk_types_left.empty()) {
    left.push_back(fmt::format("matrices in {}", fmt::join(gpu.trunk_types_left, ", ")));
  }
  if (left.empty()) return "";
  return fmt::format("; on the processors because of their type: {}", fmt::join(left, " and "));
}

// The copy's own figures, which those of the run have in their sums.
Json low_bits_json(Engine& engine) {
  const ExpertStore& store = *engine.low_bit_experts();
  const StoreStats stats = store.stats();
  const Container& copy = *engine.files().low_bit_copy;
  return Json{{"from_rank", engine.low_bits().from_rank},
              {"experts", copy.experts().codings()},
              {"model_id", copy.id_text()},
              {"slots", engine.plan().copy_slots},
              {"slots_now", store.num_slots()},
              {"expert_hits", stats.hits},
              {"expert_misses", stats.misses},
              {"bytes_read", stats.bytes_read}};
}

}  // namespace

std::string plan_line(Engine& engine) {
  const MemoryPlan& plan = engine.plan();
  const std::string of_copy =
      plan.copy_slots == 0 ? "" : fmt::format(", {} of the copy", plan.copy_slots);
  return fmt::format(
      "{}: {} model; {} of a budget of {} ({}); {} of {} experts in memory ({:.0f} %){}; {}; {}",
      name_of_model(engine), format_bytes(model_bytes(engine)), format_bytes(plan.total_bytes),
      format_bytes(engine.plan_request().budget_bytes), engine.budget_reason(), plan.num_slots,
      plan.num_experts,
      percent(static_cast<uint64_t>(plan.num_slots), static_cast<uint64_t>(plan.num_experts)),
      of_copy, engine.backend().description(), reader_text(engine));
}

std::string gpu_line(const GpuReport& gpu) {
  const std::string trunk =
      gpu.trunk_fit == 0
          ? ""
          : fmt::format("{} of {} matrices that every token needs ({}), ", gpu.trunk.matrices,
                        gpu.trunk_fit, format_bytes(gpu.trunk.bytes));
  return fmt::format("{}: {}{} slots for {} experts that it can compute, {} of {}{}", gpu.name,
                     trunk, gpu.num_slots, gpu.num_experts, format_bytes(gpu.used_bytes),
                     format_bytes(gpu.vram_bytes), types_left_text(gpu));
}

std::string lossy_words(const ModelConfig& config, int64_t experts_per_token,
                        const ExpertLimits& limits, KvForm kv_form, const std::string& low_bits) {
  const int64_t trained = config.num_experts_per_tok;
  std::string what;
  if (experts_per_token != trained) {
    what = fmt::format("{} experts per token, trained with {}", experts_per_token, trained);
  } else if (!limits.is_off()) {
    what = fmt::format("of {} experts per token", trained);
  }
  if (!limits.is_off()) what += ", at most " + to_text(limits);
  if (!low_bits.empty()) what += (what.empty() ? "" : "; ") + low_bits;
  if (kv_form != KvForm::kFloat32) {
    what += fmt::format("{}keys and values of {} bits", what.empty() ? "" : "; ", bits_of(kv_form));
  }
  return what;
}

std::string lossy_text(const ModelConfig& config, int64_t experts_per_token,
                       const ExpertLimits& limits, KvForm kv_form, const std::string& low_bits) {
  const std::string what = lossy_words(config, experts_per_token, limits, kv_form, low_bits);
  if (what.empty()) return "";
  return fmt::format(
      "LOSSY: {}; answers differ from the model's (what that costs: docs/quality.md, penstock "
      "eval)",
      what);
}

std::string lossy_words(const Engine& engine) {
  return lossy_words(engine.config(), engine.experts_per_token(), engine.expert_limits(),
                     engine.kv_form(), low_bits_text(engine.files(), engine.low_bits()));
}

std::string lossy_text(const Engine& engine) {
  return lossy_text(engine.config(), engine.experts_per_token(), engine.expert_limits(),
                    engine.kv_form(), low_bits_text(engine.files(), engine.low_bits()));
}

std::string last_line(const GenerationMetrics& metrics) {
  const StoreStats store = metrics.prompt.store + metrics.answer.store;
  const int64_t tokens = metrics.prompt.tokens + metrics.answer.tokens;
  std::string line = fmt::format("prompt {} tokens, {:.1f} tok/s", metrics.prompt.tokens,
                                 metrics.prompt.tokens_per_second());
  if (metrics.cached_tokens > 0) line += fmt::format(" ({} more cached)", metrics.cached_tokens);
  line += fmt::format("; answer {} tokens, {:.1f} tok/s", metrics.answer_tokens,
                      metrics.answer.tokens_per_second());
  if (metrics.first_token_ns > 0) {
    line +=
        fmt::format("; first token {:.2f} s", static_cast<double>(metrics.first_token_ns) / 1e9);
  }
  line +=
      fmt::format("; experts {:.1f} % in memory, {} read per token",
                  percent(store.hits, store.hits + store.misses),
                  format_bytes(tokens == 0 ? 0 : store.bytes_read / static_cast<uint64_t>(tokens)));
  if (store.nearer > 0) {
    line += fmt::format("; {:.1f} % of all experts computed by the GPU",
                        percent(store.nearer, store.nearer + store.hits + store.misses));
  }
  if (metrics.drafts > 0) {
    line += fmt::format("; {} of {} drafts right", metrics.drafts_accepted, metrics.drafts);
  }
  if (store.io_retries > 0) line += fmt::format("; {} reads repeated", store.io_retries);
  return line + fmt::format("; peak memory {}", format_bytes(peak_resident_bytes()));
}

std::string shrink_text(Engine& engine) {
  const ExpertSlots::GivenBack given_back = engine.slots().given_back();
  return fmt::format("memory ran short: {} slots ({}) were given back; {} of {} are in use now",
                     given_back.slots, format_bytes(given_back.bytes), engine.slots().num_slots(),
                     engine.slots().limits().full);
}

std::string waits_text(const GenerationMetrics& metrics) {
  std::string text = waits_of("prompt", metrics.prompt) + waits_of("answer", metrics.answer);
  text.pop_back();
  return text;
}

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "?";
}

Json gpu_json(const GpuReport& gpu) {
  return Json{{"name", gpu.name},
              {"is_lost", gpu.is_lost},
              {"slots", gpu.num_slots},
              {"vram_bytes", gpu.vram_bytes},
              {"used_bytes", gpu.used_bytes},
              {"promotions", gpu.promotions},
              {"demotions", gpu.demotions},
              {"bytes_copied", gpu.bytes_copied},
              {"trunk_matrices", gpu.trunk.matrices},
              {"trunk_matrices_max", gpu.trunk_fit},
              {"trunk_bytes", gpu.trunk.bytes},
              {"expert_types_left", gpu.expert_types_left},
              {"trunk_types_left", gpu.trunk_types_left},
              {"trunk_products", gpu.trunk.products},
              {"trunk_ffns", gpu.trunk.ffns},
              {"trunk_delta_nets", gpu.trunk.delta_nets}};
}

Json engine_json(Engine& engine) {
  const StoreStats store = engine.parts().stats();
  Json json{{"memory_peak_bytes", peak_resident_bytes()},
            {"memory_budget_bytes", engine.plan_request().budget_bytes},
            {"memory_planned_bytes", engine.plan().total_bytes},
            {"reader", reader_text(engine)},
            {"target", engine.backend().description()},
            {"lossy", engine.is_lossy()},
            {"experts_per_token", engine.experts_per_token()},
            {"kv_bits", bits_of(engine.kv_form())},
            {"slots", engine.plan().num_slots},
            {"slots_now", engine.experts().num_slots()},
            {"cache_shrinks", store.shrinks},
            {"slots_given_back", store.slots_given_back},
            {"warm_start_experts", engine.experts().preloaded().experts},
            {"experts", engine.plan().num_experts},
            {"chunk_tokens", engine.plan().chunk_tokens},
            {"context", engine.plan_request().context},
            {"model_id", engine.files().id_text()}};
  json["drives"] = drives_json(engine.experts().drives());
  if (!engine.expert_limits().is_off()) json["expert_limits"] = to_text(engine.expert_limits());
  if (engine.low_bits().is_on()) json["low_bits"] = low_bits_json(engine);
  if (const auto gpu = engine.gpu_report()) json["gpu"] = gpu_json(*gpu);
  return json;
}

Json result_json(Engine& engine, const GenerateResult& result) {
  Json figures = penstock_json(result.metrics);
  figures.update(engine_json(engine));
  return Json{{"token_ids", result.tokens},
              {"finish_reason", name_of(result.finish)},
              {"timings", timings_json(result.metrics)},
              {"penstock", std::move(figures)}};
}

}  // namespace penstock
