#include "cli/warm_start_teller.h"

#include <fmt/format.h>

#include <chrono>

#include "base/byte_text.h"
#include "cli/progress.h"

namespace penstock {
namespace {

std::string usage_path(const Call& call, const Engine& engine) {
  if (call.settings.text("warm-start") == "off") return "";
  // Of what the copy computes the model's counts say nothing, nor the other way round.
  if (engine.low_bits().is_on()) return "";
  const auto folder = call.environment.state_directory();
  return folder ? fmt::format("{}/usage/{}", *folder, engine.files().id_text()) : "";
}

}  // namespace

WarmStartTeller::WarmStartTeller(Call& call, Engine& engine)
    : call_(call),
      engine_(engine),
      expert_bytes_(engine.plan_request().record_bytes),
      warm_(engine, call.storage, usage_path(call, engine)) {
  const Result<size_t> experts = warm_.load();
  if (!experts) {
    call.terminal.warning("no warm start: " + experts.error().message);
  } else if (*experts > 0) {
    call.terminal.detail(fmt::format("warm start: earlier runs used {} experts", *experts));
  }
}

bool WarmStartTeller::is_eager() const {
  return call_.settings.text("warm-start") == "eager";
}

void WarmStartTeller::read_all(std::stop_token stop) {
  using Clock = std::chrono::steady_clock;
  if (num_wanted() == 0) return;
  const PreloadReport& report = warm_.report();
  const Clock::time_point start = Clock::now();
  Progress progress(call_.terminal, "warm start", Progress::Unit::kBytes);
  while (!stop.stop_requested() && warm_.read_more()) {
    progress.update((report.experts + report.failed) * expert_bytes_, num_wanted() * expert_bytes_);
  }
  progress.finish();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  call_.terminal.note(fmt::format("warm start: {} of {} experts read ({}) in {:.2f} s",
                                  report.experts, num_wanted(),
                                  format_bytes(report.experts * expert_bytes_), seconds));
  tell_failures();
}

void WarmStartTeller::tell_failures() {
  const PreloadReport& report = warm_.report();
  if (report.failed == 0 || has_told_) return;
  has_told_ = true;
  call_.terminal.warning(fmt::format("warm start: {} of {} experts could not be read: {}",
                                     report.failed, report.wanted, report.failure));
}

void WarmStartTeller::save() {
  tell_failures();
  const Result<void> saved = warm_.save();
  if (!saved) {
    call_.terminal.note("for the next warm start nothing was kept: " + saved.error().message);
  }
  const Result<void> sums = engine_.keep_checksums();
  if (!sums) call_.terminal.note("checksums were not kept: " + sums.error().message);
}

}  // namespace penstock
