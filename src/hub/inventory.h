// What the cache holds that penstock can open, and taking some of it away.
//
// A blob belongs to every snapshot whose links lead to it, and goes with the last of them. Files that
// penstock does not know are left where they are, unless all of the repository goes.
//
// Threads  one
// Errors   plan_removal(): kNotFound. remove(): kIo, also where another program is downloading
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/cache.h"

namespace penstock {

struct CachedModel {
  HubName name;  // with its quantisation
  std::string commit;
  std::vector<std::string> revisions;  // that refer to the commit
  std::string path;                    // what to open
  uint64_t bytes = 0;
  int64_t last_used_s = 0;  // since 1970
  bool is_whole = false;
};

std::vector<CachedModel> list_models(const HubCache& cache);

struct Removal {
  HubName name;
  std::vector<std::string> links;       // in snapshots
  std::vector<std::string> blobs;       // hashes that nothing else leads to
  std::vector<std::string> references;  // revisions whose commit goes
  bool is_all = false;                  // the repository's folder goes with everything in it
  uint64_t bytes = 0;                   // of the blobs
};

// A quantisation, or all of it where none is named; in one revision, or in all where that is empty.
Result<Removal> plan_removal(const HubCache& cache, const HubName& name,
                             const std::string& revision);

Result<void> remove(const HubCache& cache, const Removal& removal);

}  // namespace penstock
