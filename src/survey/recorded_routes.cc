#include "survey/recorded_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "format/safetensors.h"
#include "store/routing_trace.h"

namespace penstock {
namespace {

Error another_model(const std::string& path, const std::string& what, int64_t theirs,
                    int64_t ours) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} was recorded from another model: it has {} {}, this one has {}", path,
                      theirs, what, ours)};
}

// The events of one step, when they are those of a single token.
bool is_one_token(std::span<const RoutingEvent> step, const RoutingShape& shape) {
  if (std::ssize(step) != shape.num_layers) return false;
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const RoutingEvent& event = step[static_cast<size_t>(layer)];
    if (event.layer != layer || std::ssize(event.experts) != shape.top_k) return false;
  }
  return true;
}

Result<RecordedRoutes> from_trace(const RoutingTrace& trace, const std::string& path,
                                  const RoutingShape& shape) {
  if (trace.num_layers() != shape.num_layers) {
    return another_model(path, "layers", trace.num_layers(), shape.num_layers);
  }
  if (trace.num_experts() != shape.num_experts) {
    return another_model(path, "experts per layer", trace.num_experts(), shape.num_experts);
  }
  const std::vector<RoutingEvent> events = trace.events();
  std::vector<std::span<const RoutingEvent>> tokens;
  for (size_t begin = 0; begin < events.size();) {
    size_t end = begin + 1;
    while (end < events.size() && events[end].step == events[begin].step) ++end;
    const auto step = std::span(events).subspan(begin, end - begin);
    if (is_one_token(step, shape)) tokens.push_back(step);
    begin = end;
  }
  if (tokens.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} holds no decoded token of {} experts per layer; record one with "
                             "--trace-routing and an answer of some length",
                             path, shape.top_k)};
  }
  RecordedRoutes routes{RouteTable::create(shape, std::ssize(tokens)), {}};
  for (int64_t token = 0; token < std::ssize(tokens); ++token) {
    const auto step = tokens[static_cast<size_t>(token)];
    const bool begins = token == 0 || step.front().sequence !=
                                          tokens[static_cast<size_t>(token - 1)].front().sequence;
    if (begins) routes.starts.push_back(token);
    for (const RoutingEvent& event : step) {
      std::ranges::copy(event.experts, routes.table.at(event.layer, token).begin());
    }
  }
  return routes;
}

Result<std::vector<int32_t>> read_ids(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr || info->type != "U8") return file.read<int32_t>(name);
  const std::vector<uint8_t> narrow = PENSTOCK_TRY(file.read<uint8_t>(name));
  return std::vector<int32_t>(narrow.begin(), narrow.end());
}

Result<int64_t> count_layers(const SafetensorsFile& file) {
  int64_t layers = 0;
  while (file.find(fmt::format("layer.{}", layers)) != nullptr) ++layers;
  if (layers > 0) return layers;
  return Error{ErrorCode::kCorrupt,
               fmt::format("{} is not a routing trace: it has no tensor layer.0", file.path())};
}

Result<void> copy_layer(const SafetensorsFile& file, int64_t layer, RouteTable& table) {
  const std::string name = fmt::format("layer.{}", layer);
  const RoutingShape& shape = table.shape;
  const std::vector<int64_t> expected = {table.num_tokens, shape.top_k};
  if (file.find(name)->shape != expected) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: tensor {} has shape {}, expected {}", file.path(), name,
                             shape_text(file.find(name)->shape), shape_text(expected))};
  }
  const std::vector<int32_t> ids = PENSTOCK_TRY(read_ids(file, name));
  for (int64_t token = 0; token < table.num_tokens; ++token) {
    const std::span<uint16_t> row = table.at(layer, token);
    for (size_t rank = 0; rank < row.size(); ++rank) {
      const int32_t id = ids[static_cast<size_t>(token) * row.size() + rank];
      const bool is_new = std::find(row.begin(), row.begin() + static_cast<ptrdiff_t>(rank), id) ==
                          row.begin() + static_cast<ptrdiff_t>(rank);
      if (id < 0 || id >= shape.num_experts || !is_new) {
        return Error{ErrorCode::kCorrupt,
                     fmt::format("{}: tensor {} row {}: expert {} comes twice or is not one of the "
                                 "{} of this model",
                                 file.path(), name, token, id, shape.num_experts)};
      }
      row[rank] = static_cast<uint16_t>(id);
    }
  }
  return {};
}

Result<RecordedRoutes> from_safetensors(Storage& storage, const std::string& path,
                                        const RoutingShape& shape) {
  const SafetensorsFile file = PENSTOCK_TRY(SafetensorsFile::open(storage, path));
  const int64_t layers = PENSTOCK_TRY(count_layers(file));
  if (layers != shape.num_layers) return another_model(path, "layers", layers, shape.num_layers);
  const std::vector<int64_t>& first = file.find("layer.0")->shape;
  if (first.size() != 2 || first[0] < 1) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: tensor layer.0 has shape {}, expected "
                                                  "[tokens, experts per token]",
                                                  path, shape_text(first))};
  }
  if (first[1] != shape.top_k) {
    return another_model(path, "experts per token", first[1], shape.top_k);
  }
  RecordedRoutes routes{RouteTable::create(shape, first[0]), {}};
  for (int64_t layer = 0; layer < layers; ++layer) {
    PENSTOCK_TRY(copy_layer(file, layer, routes.table));
  }
  int64_t start = 0;
  for (const int32_t length : PENSTOCK_TRY(file.read<int32_t>("lengths"))) {
    if (length < 1 || start + length > first[0]) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: \"lengths\" do not add up to the {} tokens", path, first[0])};
    }
    routes.starts.push_back(start);
    start += length;
  }
  if (routes.starts.empty()) routes.starts.push_back(0);
  return routes;
}

}  // namespace

Result<RecordedRoutes> load_recorded_routes(Storage& storage, const std::string& path,
                                            const RoutingShape& shape) {
  if (path.ends_with(".safetensors")) return from_safetensors(storage, path, shape);
  return from_trace(PENSTOCK_TRY(RoutingTrace::read(storage, path)), path, shape);
}

}  // namespace penstock
