// --warm-start: begins with the experts that earlier runs of the same model used most.
//
// What was used is kept in $XDG_STATE_HOME/penstock/usage, a file per model, and read at the start:
// the cache then knows what is precious. To read the experts themselves costs the disk's time, so
// it is done while nobody waits (chat, at the prompt) or when asked for (eager). Nothing of all
// this can fail a run: what cannot be used or kept is told and left.
//
//   WarmStart warm(call, engine);
//   if (warm.is_eager()) warm.read_all(stop);
//   ...                          // read_more() while nobody waits
//   warm.save();
//
// Threads  the computing thread
#pragma once

#include <stop_token>
#include <string>

#include "cli/program.h"
#include "engine/engine.h"

namespace penstock {

class WarmStart {
 public:
  WarmStart(Call& call, Engine& engine);

  bool is_eager() const;
  // With progress. A stop ends the reading, and what came is kept.
  void read_all(std::stop_token stop);
  // A few milliseconds of it; false when there is nothing left to read.
  bool read_more();

  uint64_t num_wanted() const { return engine_.experts().preloaded().wanted; }
  // What could not be read, once.
  void tell_failures();
  void save();

 private:
  UsageOwner owner() const;

  Call& call_;
  Engine& engine_;
  std::string path_;  // empty: there is no place, or it is off
  bool has_told_ = false;
};

}  // namespace penstock
