// A model from a hub into the cache: lists, chooses, downloads what is missing, verifies, links.
//
// The links come after the bytes that they lead to, the reference of the revision last: what was
// interrupted at any moment is never taken for a whole model, and the same call goes on with it.
//
// Threads  one
// Errors   pull_model(): kInvalidArgument, kNotFound (choice.h, retries.h), kOutOfMemory (the disk is too
//          small, told before a byte is downloaded), kIo, kCorrupt, kCancelled
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "hub/cache.h"
#include "hub/http_client.h"

namespace penstock {

// What will be made of the model afterwards: room that is looked for with the download's own.
struct MadeOfIt {
  std::string folder;  // on the disk where it will be
  double share = 0;    // of the model's bytes, at least; 0: nothing
};

struct PullRequest {
  HubName name;
  std::string revision = "main";
  std::string include;  // patterns (choice.h); empty: the files of the model
  size_t parallel = 6;
  uint64_t piece_bytes = 16 << 20;
  MadeOfIt made_of_it = {};
};

struct PullEvents {
  // Of all the files that were chosen.
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> on_progress;
  std::function<void(const std::string& sentence)> on_note;
};

struct PullReport {
  std::string commit;
  std::string snapshot;  // folder
  std::string model;     // what to open; empty: patterns chose files that are no whole model
  HubName name;          // with the quantisation that was chosen
  size_t num_files = 0;
  uint64_t bytes = 0;
  uint64_t bytes_here = 0;  // that were not downloaded now
};

Result<PullReport> pull_model(const HubCache& cache, const HubOptions& http,
                              const PullRequest& request, const PullEvents& events,
                              const std::stop_token& stop);

// Without asking anybody: what an earlier call left.
Result<PullReport> pull_offline(const HubCache& cache, const PullRequest& request);

}  // namespace penstock
