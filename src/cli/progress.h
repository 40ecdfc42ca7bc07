// How far a long piece of work is: a bar that is redrawn on a terminal, a line now and then in a
// log, nothing with --quiet.
//
//   Progress progress(terminal, "packing", Progress::Unit::kBytes);
//   progress.update(done, total);          // as often as you like
//   progress.finish();                     // or the destructor: clears the bar
//
// Threads  one
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/terminal.h"

namespace penstock {

class Progress {
 public:
  enum class Unit { kBytes, kItems };

  Progress(const Terminal& terminal, std::string label, Unit unit);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { finish(); }

  void set_label(std::string label) { label_ = std::move(label); }
  void update(uint64_t done, uint64_t total);
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::string amounts(uint64_t done, uint64_t total) const;
  std::string rate_and_time_left(uint64_t done, uint64_t total) const;
  // The bar and `text`, or `short_text` where the terminal is too narrow.
  void draw(double share, std::string text, const std::string& short_text);

  const Terminal* terminal_;
  std::string label_;
  Unit unit_;
  bool started_ = false;
  bool drawn_ = false;
  uint64_t first_done_ = 0;  // what a resumed work had behind it is not part of its rate
  Clock::time_point start_;
  Clock::time_point last_;
};

// 0:07, 1:23:45
std::string clock_text(double seconds);

}  // namespace penstock
