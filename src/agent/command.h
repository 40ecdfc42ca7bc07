// A command of the shell, with nothing to read from, a limit of time and of what it may say.
//
// It runs in a session of its own: it has no terminal, so it can neither draw on that of the user nor
// ask at it, and everything that it starts can be ended together. What it leaves running is ended
// when it ends itself.
//
// Threads  the calling one waits; `stop` from any thread ends the command within a tenth of a second
// Memory   bytes_max of what it says: the beginning and the end
// Errors   kIo: the system does not start it
#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"

namespace penstock {

struct CommandLimits {
  std::chrono::milliseconds time{120'000};
  size_t bytes_max = 32 << 10;
};

struct CommandOutcome {
  enum class End { kExited, kKilled, kTimeout, kStopped };
  End end = End::kExited;
  int code = 0;      // exit code; of kKilled the signal
  std::string text;  // standard output and error as they came, cut in the middle
  uint64_t bytes_left_out = 0;
};

// `environment`: "NAME=value", all that it gets.
Result<CommandOutcome> run_command(const std::string& folder, const std::string& command,
                                   const std::vector<std::string>& environment,
                                   const CommandLimits& limits, const std::stop_token& stop);

}  // namespace penstock
