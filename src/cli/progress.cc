#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"

namespace penstock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kRedrawEvery = milliseconds(100);
constexpr auto kLineEvery = seconds(5);
constexpr char kEraseLine[] = "\r\x1b[K";

}  // namespace

std::string clock_text(double seconds_left) {
  const auto all = static_cast<int64_t>(std::clamp(seconds_left, 0.0, 1e9) + 0.5);
  const int64_t hours = all / 3600;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, all / 60 % 60, all % 60);
  return fmt::format("{}:{:02}", all / 60, all % 60);
}

Progress::Progress(const Terminal& terminal, std::string label, Unit unit)
    : terminal_(&terminal), label_(std::move(label)), unit_(unit) {}

std::string Progress::amounts(uint64_t done, uint64_t total) const {
  if (unit_ == Unit::kItems) return fmt::format("{} of {}", done, total);
  return fmt::format("{} of {}", format_bytes(done), format_bytes(total));
}

std::string Progress::rate_and_time_left(uint64_t done, uint64_t total) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const auto made = static_cast<double>(done - std::min(done, first_done_));
  if (elapsed < 0.5 || made == 0) return "";
  const double rate = made / elapsed;
  const std::string per_second = unit_ == Unit::kBytes
                                     ? format_bytes(static_cast<uint64_t>(rate)) + "/s"
                                     : fmt::format("{:.1f}/s", rate);
  return fmt::format(", {}, {} left", per_second,
                     clock_text(static_cast<double>(total - std::min(done, total)) / rate));
}

void Progress::update(uint64_t done, uint64_t total) {
  if (terminal_->is_quiet() || total == 0) return;
  const Clock::time_point now = Clock::now();
  const bool bar = terminal_->errors_are_interactive();
  const bool first = !started_;
  if (first) {
    started_ = true;
    start_ = last_ = now;
    first_done_ = done;
  }
  // A bar shows at once that work has begun; a log hears of it when it takes long.
  const Clock::duration pause = bar ? Clock::duration(kRedrawEvery) : Clock::duration(kLineEvery);
  if (now - last_ < pause && !(first && bar)) return;
  last_ = now;
  const double share = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
  const std::string speed = rate_and_time_left(done, total);
  const std::string percent = fmt::format("{} {:3.0f} %", label_, 100 * share);
  const std::string line = fmt::format("{} ({}{})", percent, amounts(done, total), speed);
  if (bar) {
    draw(share, line, percent + speed);
  } else {
    terminal_->show(line + '\n');
  }
}

void Progress::draw(double share, std::string text, const std::string& short_text) {
  constexpr size_t kBarMin = 10, kBarMax = 30, kFrame = 4;  // "[", "] " and the last column
  const auto columns = static_cast<size_t>(std::max(20, terminal_->columns()));
  if (text.size() + kBarMin + kFrame > columns) text = short_text;
  if (text.size() + kBarMin + kFrame <= columns) {
    const size_t width = std::min(columns - text.size() - kFrame, kBarMax);
    const auto full = static_cast<size_t>(share * static_cast<double>(width));
    text = fmt::format("[{}{}] {}", std::string(full, '#'), std::string(width - full, '.'), text);
  }
  text.resize(std::min(text.size(), columns - 1));
  terminal_->show(kEraseLine + text);
  drawn_ = true;
}

void Progress::finish() {
  if (drawn_) terminal_->show(kEraseLine);
  drawn_ = false;
  started_ = false;
}

}  // namespace penstock
