#include "source/source_weights.h"

#include <algorithm>

#include "base/check.h"
#include "source/stored_form.h"

namespace penstock {
namespace {

constexpr uint64_t kAlignment = 64;

struct PlanePlace {
  CodedPlane plane;
  std::byte* target;
};

Result<void> load_plane(ModelSource& source, const SourceTensor& tensor, const MatrixForm& form,
                        ThreadPool* team, PlanePlace place) {
  for (int64_t first = 0; first < tensor.rows; first += kRowsAtOnce) {
    const RowsWanted wanted = {place.plane, first, std::min(kRowsAtOnce, tensor.rows - first)};
    const uint64_t bytes = rows_bytes(form, tensor.columns, wanted);
    const MakeOptions options = {
        .team = team, .refuses_bad_values = true, .refuses_bad_scales = true};
    PENSTOCK_TRY(make_rows(source, tensor, form, wanted, options, {place.target, bytes}));
    place.target += bytes;
  }
  return {};
}

}  // namespace

SourceWeights::SourceWeights(const ModelSource& source) {
  for (const SourceTensor& tensor : source.tensors()) {
    const MatrixForm form = resident_form(tensor);
    const std::optional<PlacedPlanes> planes = place_matrix(form, tensor.rows, tensor.columns);
    PENSTOCK_CHECK(planes.has_value());  // the source, which is on a disk, is of the same size
    placed_.push_back({form, *planes, bytes_});
    bytes_ += (planes->bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
}

ResidentWeights SourceWeights::placed(const ModelSource& source,
                                      std::span<std::byte> memory) const {
  PENSTOCK_CHECK(memory.size() >= bytes_ && source.tensors().size() == placed_.size());
  ResidentWeights weights;
  for (size_t i = 0; i < placed_.size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    const Placed& placed = placed_[i];
    weights.add_stored(tensor.name, placed.form, tensor.rows, tensor.columns,
                       memory.data() + placed.offset, tensor.order);
  }
  return weights;
}

Result<ResidentWeights> SourceWeights::load(
    ModelSource& source, std::span<std::byte> memory, ThreadPool* team,
    const std::function<void(uint64_t done, uint64_t total)>& progress) const {
  PENSTOCK_CHECK(memory.size() >= bytes_ && source.tensors().size() == placed_.size());
  for (size_t i = 0; i < placed_.size(); ++i) {
    const auto& [form, planes, offset] = placed_[i];
    std::byte* place = memory.data() + offset;
    for (const CodedPlane plane : kCodedPlanes) {
      if (bytes_of(planes.sizes, plane) == 0) continue;
      PENSTOCK_TRY(load_plane(source, source.tensors()[i], form, team,
                              {plane, place + bytes_of(planes.at, plane)}));
    }
    if (progress) progress(i + 1 < placed_.size() ? placed_[i + 1].offset : bytes_, bytes_);
  }
  return placed(source, memory);
}

}  // namespace penstock
