// pull --pack --shard-by-shard: a model that is packed while its files arrive.
//
// Errors   those of ArrivingFolder and pack_model(); kInvalidArgument: with --offline
#pragma once

#include <string>

#include "base/result.h"
#include "cli/program.h"
#include "hub/arriving_folder.h"
#include "hub/pull.h"

namespace penstock {

// Its files come into TARGET.source.
ArrivingRequest arriving_request(const Settings& settings, const PullRequest& request,
                                 const std::string& target);

// An earlier run of the same command made the model at `target`, and only did not get to remove all of
// its source.
bool is_complete(const Call& call, const PullRequest& request, const std::string& target);

// The exit code. `target`: a path without slashes at its end.
Result<int> pull_shards(Call& call, const PullRequest& request, const std::string& target);

// is_complete(): removes what is left of the source, tells of the model and verifies it where that was
// asked for. kIo: another run is at work there.
Result<int> clear_up_shards(Call& call, const PullRequest& request, const std::string& target);

}  // namespace penstock
