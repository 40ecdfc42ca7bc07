// The experts of a packed model (docs/formats.md) as an ExpertSource.

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "experts/expert_source.h"

namespace penstock {
namespace {

PartMatrix part_matrix(const MatrixForm& form, int64_t rows, int64_t columns, PackedPart part,
                       uint64_t at) {
  PartMatrix made{.part = part, .at = {.codes = at}};
  if (!form.is_coded()) {
    made.matrix = {form.dtype, rows, columns, nullptr};
    return made;
  }
  const std::optional<PlacedPlanes> planes = place_matrix(form, rows, columns);
  PENSTOCK_CHECK(planes.has_value());  // it was when the manifest was read
  made.is_coded = true;
  made.matrix = {.rows = rows, .columns = columns};
  made.matrix.coded = {.coding = form.coding,
                       .scale_rows = form.layout == MatrixLayout::kCodedPanels ? 0 : 1};
  if (planes->sizes.scales > 0) made.scales_part = part;
  if (planes->sizes.biases > 0) made.biases_part = part;
  made.at = {at + planes->at.codes, at + planes->at.scales, at + planes->at.biases};
  return made;
}

ExpertForm form_of(const ExpertParts& parts, const ExpertRecord& record) {
  const int64_t width = parts.intermediate_size, hidden = parts.hidden_size;
  const RecordForms& forms = record.forms;
  ExpertForm form;
  form.down = part_matrix(forms.down, hidden, width, kDownPart, 0);
  if (forms.is_fused) {
    form.gate = form.up = part_matrix(forms.gate, 2 * width, hidden, kGateUpPart, 0);
    form.up.first_row = width;
  } else {
    form.gate = part_matrix(forms.gate, width, hidden, kGateUpPart, 0);
    form.up = part_matrix(forms.up, width, hidden, kGateUpPart, record.up_offset);
  }
  return form;
}

LayerPlaces places_of(const ExpertRecord& record, uint32_t tag) {
  LayerPlaces places;
  for (const PackedPart part : kPackedParts) {
    const auto [offset, bytes] = record.extent(part);
    places.parts.push_back({.first = {0, record.first + offset},
                            .stride = record.bytes,
                            .bytes = bytes,
                            .tag = tag,
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
  const std::optional<DType> dtype = parts.one_dtype();
  const uint32_t tag = dtype ? static_cast<uint32_t>(*dtype) : kMixedPart;
  const auto layer_sums = static_cast<std::ptrdiff_t>(sums.size()) / parts.num_layers;
  for (int layer = 0; layer < num_layers; ++layer) {
    LayerPlaces places = places_of(parts.record(layer), tag);
    const auto first_sum = sums.begin() + layer * layer_sums;
    places.checksums.assign(first_sum, first_sum + layer_sums);
    source.table.layers.push_back(std::move(places));
    source.forms.push_back(form_of(parts, parts.record(layer)));
  }
  return source;
}

}  // namespace penstock
