// The experts of a packed model (docs/formats.md) as an ExpertSource.

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "experts/expert_source.h"

namespace penstock {
namespace {

ExpertForm form_of(const ExpertParts& parts) {
  const int64_t width = parts.intermediate_size;
  const Matrix gate_up = {parts.dtype, 2 * width, parts.hidden_size, nullptr};
  return {.gate = {.part = kGateUpPart, .matrix = gate_up},
          .up = {.part = kGateUpPart, .matrix = gate_up, .first_row = width},
          .down = {.part = kDownPart, .matrix = {parts.dtype, parts.hidden_size, width, nullptr}}};
}

// `first`: offset of the layer's first record.
LayerPlaces places_of(const ExpertParts& parts, uint64_t first) {
  LayerPlaces places;
  for (const PackedPart part : kPackedParts) {
    const auto [offset, bytes] = parts.extent(part);
    places.parts.push_back({.first = {0, first + offset},
                            .stride = parts.record_bytes,
                            .bytes = bytes,
                            .tag = static_cast<uint32_t>(parts.dtype),
                            .alignment = kPanelAlignment});
  }
  return places;
}

}  // namespace

bool ExpertSource::reads_direct() const {
  return std::ranges::all_of(files, [](const auto& file) { return file->alignment() > 1; });
}

Result<ExpertSource> open_packed_experts(Storage& storage, const Container& container,
                                         int num_layers) {
  const ExpertParts& parts = container.experts();
  PENSTOCK_CHECK(num_layers <= parts.num_layers);
  ExpertSource source;
  source.files.push_back(
      PENSTOCK_TRY(storage.open(container.experts_path(), OpenMode::kReadDirect)));
  source.table = {.files = {source.files[0].get()},
                  .num_experts = static_cast<int>(parts.num_experts),
                  .layers = {},
                  .model_id = container.model_id()};
  const std::vector<Hash128> sums = PENSTOCK_TRY(container.load_expert_checksums());
  const auto layer_bytes = static_cast<uint64_t>(parts.num_experts) * parts.record_bytes;
  const auto layer_sums = static_cast<std::ptrdiff_t>(sums.size()) / parts.num_layers;
  for (int layer = 0; layer < num_layers; ++layer) {
    LayerPlaces places = places_of(parts, static_cast<uint64_t>(layer) * layer_bytes);
    const auto first_sum = sums.begin() + layer * layer_sums;
    places.checksums.assign(first_sum, first_sum + layer_sums);
    source.table.layers.push_back(std::move(places));
  }
  source.forms.assign(static_cast<size_t>(num_layers), form_of(parts));
  return source;
}

}  // namespace penstock
