// A warm start: begins with the experts that earlier runs of the same model used most.
//
// What was used is kept in a file per model and read at the start: the cache then knows what is
// precious. To read the experts themselves costs the disk's time, so that is done a few milliseconds
// at a time, while nobody waits, or all of it when asked for. Nothing of this may fail a run: what
// cannot be used or kept is an Error for the caller to tell, and the run goes on.
//
//   WarmStart warm(engine, storage, path);
//   warm.load();                 // what earlier runs used
//   while (nobody waits && warm.read_more()) {}
//   warm.save();
//
// Threads  the computing thread
// Errors   load(), save(): kIo, kCorrupt of the usage file. What could not be read of the experts is
//          in report().
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"
#include "io/storage.h"
#include "store/expert_usage.h"

namespace penstock {

class WarmStart {
 public:
  // `path` of the usage file; empty: nothing is read or kept.
  WarmStart(Engine& engine, Storage& storage, std::string path);

  // The number of experts that earlier runs used; 0 where there is no file yet.
  Result<size_t> load();
  // A few milliseconds of reading, or of waiting for slots to read into; false when there is nothing left
  // to read.
  bool read_more();
  // Experts that are read, or were.
  uint64_t num_wanted() const;
  const PreloadReport& report() const { return engine_.experts().preloaded(); }
  // Keeps what this run used, for the next one, where it computed anything. What other runs have
  // kept since load() stays.
  Result<void> save();

 private:
  UsageOwner owner() const;
  void add_what_others_kept(ExpertUsage& usage) const;

  Engine& engine_;
  Storage& storage_;
  std::string path_;
  std::vector<float> counts_at_load_;  // of the file
  std::vector<ExpertId> later_;        // experts to read when the engine's slots have come
};

}  // namespace penstock
