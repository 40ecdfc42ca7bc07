#include "source/source_experts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "source/row_panel_form.h"
#include "source/stored_form.h"
#include "store/expert_checksums.h"

namespace penstock {
namespace {

constexpr std::string_view kPartNames[] = {"gate", "up", "down"};

std::span<const StoredMatrix> matrices_of(const ExpertMatrices& matrices) {
  if (!matrices.single.empty()) return matrices.single;
  return {&matrices.first, 1};
}

// Adds the parts of one layer to its places, and says which matrix is where.
class LayerLayer {
 public:
  LayerLayer(LayerPlaces& places, int64_t num_experts) : places_(places), experts_(num_experts) {}

  PartMatrix add(const ExpertMatrices& matrices) {
    const StoredMatrix& first = matrices.first;
    const RowBytes bytes = plane_bytes(first.coding, first.rows, first.columns);
    PartMatrix made;
    made.is_coded = true;
    made.matrix = {.rows = first.rows,
                   .columns = first.columns,
                   .coded = {.coding = first.coding, .scale_rows = rows_of_scales(first.coding)}};
    const bool is_laid_out = fit_row_panels(first.coding, first.rows, first.columns);
    if (is_laid_out) made.matrix.coded.scale_rows = 0;
    made.part = plane(matrices, &StoredMatrix::codes, matrices.stride.codes, bytes.codes);
    made.scales_part = plane(matrices, &StoredMatrix::scales, matrices.stride.scales, bytes.scales);
    made.biases_part = plane(matrices, &StoredMatrix::biases, matrices.stride.biases, bytes.biases);
    if (!is_laid_out) return made;
    set_form(made.matrix, made.part, CodedPlane::kCodes);
    set_form(made.matrix, made.scales_part, CodedPlane::kScales);
    set_form(made.matrix, made.biases_part, CodedPlane::kBiases);
    return made;
  }

 private:
  void set_form(const Matrix& matrix, int part, CodedPlane plane) {
    if (part < 0) return;
    places_.parts[static_cast<size_t>(part)].form =
        std::make_shared<RowPanelForm>(matrix.coded.coding, plane, matrix.rows, matrix.columns);
  }

  // -1: the coding has no such plane.
  int plane(const ExpertMatrices& matrices, Plane StoredMatrix::*which, uint64_t stride,
            uint64_t bytes) {
    if (bytes == 0) return -1;
    PartPlace place{.stride = stride, .bytes = bytes};
    const auto place_of = [&](const StoredMatrix& matrix) {
      return FilePlace{static_cast<int>((matrix.*which).file), (matrix.*which).offset};
    };
    place.first = place_of(matrices.first);
    for (const StoredMatrix& single : matrices.single) place.each.push_back(place_of(single));
    PENSTOCK_CHECK(place.each.empty() || std::ssize(place.each) == experts_);
    places_.parts.push_back(std::move(place));
    return places_.num_parts() - 1;
  }

  LayerPlaces& places_;
  const int64_t experts_;
};

void lay_out_layer(const LayerExperts& experts, int64_t num_experts, LayerPlaces& places,
                   ExpertForm& form) {
  LayerLayer layer(places, num_experts);
  const ExpertMatrices& gate = experts[ExpertPart::kGate];
  const ExpertMatrices& up = experts[ExpertPart::kUp];
  if (is_one_matrix(gate, up)) {
    ExpertMatrices both = gate;
    both.first.rows += up.first.rows;
    form.gate = form.up = layer.add(both);
    form.up.first_row = gate.first.rows;
  } else {
    form.gate = layer.add(gate);
    form.up = layer.add(up);
  }
  places.first_parts = places.num_parts();
  form.down = layer.add(experts[ExpertPart::kDown]);
}

}  // namespace

ExpertTable SourceExpertLayout::table(const ModelSource& source) const {
  ExpertTable table;
  table.num_experts = static_cast<int>(source.config().num_experts);
  table.layers = layers;
  table.model_id = source.id().low;
  learn_checksums({}, table);  // these files have none
  return table;
}

Result<void> check_codings(const ModelSource& source, int num_layers) {
  PENSTOCK_CHECK(num_layers <= std::ssize(source.experts()));
  for (int layer = 0; layer < num_layers; ++layer) {
    for (int part = 0; part < kNumExpertParts; ++part) {
      const ExpertMatrices& matrices = source.experts()[static_cast<size_t>(layer)].parts[part];
      for (const StoredMatrix& matrix : matrices_of(matrices)) {
        if (matrix.coding == matrices.first.coding) continue;
        return Error{
            ErrorCode::kUnsupported,
            fmt::format("{}: {} of layer {} is {} in one expert and {} in another; `pack` with "
                        "--experts 8, 4, 3 or 2 codes them all alike",
                        source.path(), kPartNames[part], layer, name_of(matrices.first.coding),
                        name_of(matrix.coding))};
      }
    }
  }
  return {};
}

Result<SourceExpertLayout> lay_out_source_experts(const ModelSource& source, int num_layers) {
  PENSTOCK_TRY(check_codings(source, num_layers));
  SourceExpertLayout layout;
  layout.layers.resize(static_cast<size_t>(num_layers));
  layout.forms.resize(static_cast<size_t>(num_layers));
  for (size_t layer = 0; layer < layout.layers.size(); ++layer) {
    lay_out_layer(source.experts()[layer], source.config().num_experts, layout.layers[layer],
                  layout.forms[layer]);
  }
  return layout;
}

Result<ExpertSource> open_source_experts(Storage& storage, const ModelSource& source,
                                         int num_layers) {
  SourceExpertLayout layout = PENSTOCK_TRY(lay_out_source_experts(source, num_layers));
  PENSTOCK_TRY(source.check_unchanged());
  ExpertSource made;
  made.table = layout.table(source);
  made.forms = std::move(layout.forms);
  for (const CheckpointFile& file : source.files()) {
    made.files.push_back(PENSTOCK_TRY(storage.open(file.path, OpenMode::kReadDirect)));
    made.table.files.push_back(made.files.back().get());
  }
  return made;
}

std::string expert_codings(const ModelSource& source) {
  std::map<std::string, uint64_t> bytes;
  for (const LayerExperts& layer : source.experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      bytes[name_of(part.first.coding)] +=
          stored_bytes(part.first.coding, part.first.rows, part.first.columns);
    }
  }
  std::vector<std::pair<std::string, uint64_t>> list(bytes.begin(), bytes.end());
  std::ranges::stable_sort(list, [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string names;
  for (const auto& [name, size] : list) names += (names.empty() ? "" : ", ") + name;
  return names;
}

uint64_t expert_file_bytes(const ModelSource& source) {
  uint64_t bytes = 0;
  for (const LayerExperts& layer : source.experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      for (int64_t expert = 0; expert < source.config().num_experts; ++expert) {
        const StoredMatrix matrix = part.of(expert);
        bytes += stored_bytes(matrix.coding, matrix.rows, matrix.columns);
      }
    }
  }
  return bytes;
}

uint64_t layout_bytes(const ModelSource& source) {
  uint64_t largest = 0;
  for (const LayerExperts& layer : source.experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      const StoredMatrix& matrix = part.first;
      // Of two that are one in the file, both together may fit.
      const int64_t rows = 2 * matrix.rows;
      if (!fit_row_panels(matrix.coding, rows, matrix.columns)) continue;
      for (const CodedPlane plane : kCodedPlanes) {
        const RowPanelForm form(matrix.coding, plane, rows, matrix.columns);
        largest = std::max(largest, form.copy_bytes());
      }
    }
  }
  return largest;
}

std::vector<uint32_t> expert_files(const ModelSource& source) {
  std::set<uint32_t> files;
  for (const LayerExperts& layer : source.experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      for (const StoredMatrix& matrix : matrices_of(part)) files.insert(matrix.codes.file);
    }
  }
  return {files.begin(), files.end()};
}

}  // namespace penstock
