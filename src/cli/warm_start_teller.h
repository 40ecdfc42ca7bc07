// --warm-start on the command line: where the usage is kept, progress, and what to tell.
//
// What was used is kept in $XDG_STATE_HOME/penstock/usage, a file per model (dialogue/warm_start.h).
//
//   WarmStartTeller warm(call, engine);
//   if (warm.is_eager()) warm.read_all(stop);
//   ...                          // read_more() while nobody waits
//   warm.save();
//
// Threads  the computing thread
#pragma once

#include <stop_token>
#include <string>

#include "cli/program.h"
#include "dialogue/warm_start.h"
#include "engine/engine.h"

namespace penstock {

class WarmStartTeller {
 public:
  WarmStartTeller(Call& call, Engine& engine);

  bool is_eager() const;
  // With progress. A stop ends the reading, and what came is kept.
  void read_all(std::stop_token stop);
  // A few milliseconds of it; false when there is nothing left to read.
  bool read_more() { return warm_.read_more(); }

  uint64_t num_wanted() const { return warm_.num_wanted(); }
  // What could not be read, once.
  void tell_failures();
  void save();

 private:
  Call& call_;
  Engine& engine_;
  uint64_t expert_bytes_;
  WarmStart warm_;
  bool has_told_ = false;
};

}  // namespace penstock
