#include "cli/warm_start.h"

#include <fmt/format.h>

#include <chrono>

#include "cli/progress.h"

namespace penstock {
namespace {

// So long a key may have to wait, besides the checksums of what came.
constexpr std::chrono::nanoseconds kReadStep = std::chrono::milliseconds(5);

std::string usage_path(const Call& call, const Engine& engine) {
  if (call.settings.text("warm-start") == "off") return "";
  const auto folder = call.environment.state_directory();
  return folder ? fmt::format("{}/usage/{}", *folder, engine.container().id_text()) : "";
}

}  // namespace

WarmStart::WarmStart(Call& call, Engine& engine)
    : call_(call), engine_(engine), path_(usage_path(call, engine)) {
  if (path_.empty()) return;
  Result<ExpertUsage> usage = load_usage(call.storage, path_, owner());
  if (usage) {
    // The file knows the prediction block's experts too, the store only where it is used.
    usage->set_layers(static_cast<int>(engine.plan_request().config.num_moe_layers()));
    const std::vector<ExpertId> experts = most_used(*usage);
    call.terminal.detail(fmt::format("warm start: earlier runs used {} experts", experts.size()));
    engine.experts().restore_usage(*usage);
    engine.experts().preload(experts);
  } else if (usage.error().code != ErrorCode::kNotFound) {
    call.terminal.warning("no warm start: " + usage.error().message);
  }
}

UsageOwner WarmStart::owner() const {
  return {.model = engine_.container().id(),
          .num_layers = static_cast<int>(engine_.config().num_moe_layers()),
          .num_experts = static_cast<int>(engine_.config().num_experts)};
}

bool WarmStart::is_eager() const {
  return call_.settings.text("warm-start") == "eager";
}

void WarmStart::read_all(std::stop_token stop) {
  using Clock = std::chrono::steady_clock;
  if (num_wanted() == 0) return;
  const PreloadReport& report = engine_.experts().preloaded();
  const uint64_t bytes = engine_.plan_request().record_bytes;
  const Clock::time_point start = Clock::now();
  Progress progress(call_.terminal, "warm start", Progress::Unit::kBytes);
  while (!stop.stop_requested() && engine_.experts().preload_more(kReadStep)) {
    progress.update((report.experts + report.failed) * bytes, report.wanted * bytes);
  }
  progress.finish();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  call_.terminal.note(fmt::format("warm start: {} of {} experts read ({}) in {:.2f} s",
                                  report.experts, report.wanted,
                                  format_bytes(report.experts * bytes), seconds));
  tell_failures();
}

bool WarmStart::read_more() {
  return num_wanted() > 0 && engine_.experts().preload_more(kReadStep);
}

void WarmStart::tell_failures() {
  const PreloadReport& report = engine_.experts().preloaded();
  if (report.failed == 0 || has_told_) return;
  has_told_ = true;
  call_.terminal.warning(fmt::format("warm start: {} of {} experts could not be read: {}",
                                     report.failed, report.wanted, report.failure));
}

void WarmStart::save() {
  tell_failures();
  if (path_.empty() || engine_.experts().stats().steps == 0) return;
  ExpertUsage usage = engine_.experts().usage();
  usage.set_layers(owner().num_layers);
  const Result<void> saved = save_usage(call_.storage, path_, owner(), usage);
  if (!saved)
    call_.terminal.note("for the next warm start nothing was kept: " + saved.error().message);
}

}  // namespace penstock
