// Recorded routing as a table: from a RoutingTrace of ours, or from a safetensors file.
//
//   ours         of each step in which every layer asked for exactly top_k experts: one token.
//   Steps
//                of more tokens hold only the union of what they used, and are left out.
//   safetensors  layer.N [tokens, top_k] (U8 or I32) for every layer, lengths [sequences] (I32)
//
// Errors  kInvalidArgument when the trace is of a model of another shape, naming both; kCorrupt for
//         ids that are out of range or come twice, and for files that are no trace; kNotFound, kIo.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"
#include "survey/route_table.h"

namespace penstock {

struct RecordedRoutes {
  RouteTable table;
  std::vector<int64_t> starts;  // first token of each sequence
};

Result<RecordedRoutes> load_recorded_routes(Storage& storage, const std::string& path,
                                            const RoutingShape& shape);

}  // namespace penstock
