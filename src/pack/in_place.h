// pack_model() of a source that is consumed: what must be true before its first file may go, and what
// is left to do when an earlier run was ended.
//
// Errors   as pack_model(); kInvalidArgument also: the source is on another disk, more than two of its
//          files would have to be staged, experts would lose precision unasked, a flag that does not go
//          with it
// See also pack/pack.h, docs/formats.md
#pragma once

#include <stop_token>
#include <string>

#include "pack/pack.h"

namespace penstock {

// `target` without slashes at its end.
Result<PackReport> pack_in_place(Storage& storage, const PackOptions& options,
                                 const std::string& target, const PackCallback& progress,
                                 const std::stop_token& stop);

}  // namespace penstock
