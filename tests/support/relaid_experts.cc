#include "support/relaid_experts.h"

#include <array>
#include <vector>

#include "base/check.h"

namespace penstock::test {
namespace {

// Rows [first, first + count) of a matrix as panels of their own. Values stay what they are.
std::vector<std::byte> panels_of_rows(const Matrix& matrix, int64_t first, int64_t count,
                                      DType dtype) {
  const auto bytes = static_cast<size_t>(panel_bytes(dtype, count, matrix.columns));
  if (dtype == matrix.dtype && first % kPanelRows == 0 && count % kPanelRows == 0) {
    const std::byte* begin = matrix.panels + panel_bytes(dtype, first, matrix.columns);
    return {begin, begin + bytes};
  }
  PENSTOCK_CHECK(!is_quantised(matrix.dtype));
  std::vector<float> values(static_cast<size_t>(count * matrix.columns));
  for (int64_t row = 0; row < count; ++row) {
    panel_row(matrix, first + row,
              std::span(values).subspan(static_cast<size_t>(row * matrix.columns),
                                        static_cast<size_t>(matrix.columns)));
  }
  std::vector<std::byte> panels(bytes);
  make_panels(dtype, values, count, matrix.columns, panels);
  return panels;
}

class Relayer {
 public:
  Relayer(Storage& storage, std::string folder, const RelaidLayout& layout, ExpertSource packed)
      : storage_(storage),
        folder_(std::move(folder)),
        layout_(layout),
        packed_(std::move(packed)) {}

  Result<ExpertSource> run() {
    for (size_t file = 0; file < num_files(); ++file) {
      files_.push_back(PENSTOCK_TRY(storage_.open(path_of(file), OpenMode::kCreate)));
      ends_.at(file) = layout_.first;
    }
    source_.table.num_experts = packed_.table.num_experts;
    source_.table.model_id = packed_.table.model_id;
    for (int layer = 0; layer < packed_.table.num_layers(); ++layer) {
      PENSTOCK_TRY(lay_layer(layer));
    }
    for (size_t file = 0; file < num_files(); ++file) {
      source_.files.push_back(PENSTOCK_TRY(storage_.open(path_of(file), OpenMode::kReadDirect)));
      source_.table.files.push_back(source_.files.back().get());
    }
    return std::move(source_);
  }

 private:
  size_t num_files() const { return layout_.has_two_files ? 2 : 1; }
  std::string path_of(size_t file) const { return folder_ + "/relaid." + std::to_string(file); }

  // The rows of one matrix of an expert as they are to be stored.
  Result<std::vector<std::byte>> bytes_of(int layer, int expert, const PartMatrix& from,
                                          const PartMatrix& to) {
    const PartPlace& place = packed_.table.part(layer, from.part);
    std::vector<std::byte> part(place.bytes);
    PENSTOCK_TRY(read_exactly(*packed_.files[0], place.of(expert).offset, part));
    Matrix matrix = from.matrix;
    matrix.panels = part.data();
    return panels_of_rows(matrix, from.first_row, to.matrix.rows, to.matrix.dtype);
  }

  // Adds a part with the rows that `to` names, of every expert.
  Result<void> add_part(int layer, size_t file, const PartMatrix& from, PartMatrix& to) {
    const int num_experts = source_.table.num_experts;
    LayerPlaces& places = source_.table.layers.back();
    to.part = places.num_parts();
    PartPlace place{.first = {static_cast<int>(file), ends_.at(file)},
                    .tag = static_cast<uint32_t>(to.matrix.dtype),
                    .alignment = kPanelAlignment};
    place.bytes =
        static_cast<uint64_t>(panel_bytes(to.matrix.dtype, to.matrix.rows, to.matrix.columns));
    place.stride = place.bytes + layout_.gap;
    if (layout_.has_own_places) place.each.resize(static_cast<size_t>(num_experts));
    for (int i = 0; i < num_experts; ++i) {
      const int expert = layout_.has_own_places ? num_experts - 1 - i : i;
      if (layout_.has_own_places) {
        place.each[static_cast<size_t>(expert)] = {static_cast<int>(file), ends_.at(file)};
      }
      PENSTOCK_CHECK(place.of(expert).offset == ends_.at(file));
      const auto bytes = PENSTOCK_TRY(bytes_of(layer, expert, from, to));
      PENSTOCK_CHECK(bytes.size() == place.bytes);
      PENSTOCK_TRY(files_.at(file)->write(ends_.at(file), bytes));
      sums_.push_back(
          {expert, to.part, part_checksum(source_.table.model_id, layer, expert, to.part, bytes)});
      ends_.at(file) += place.stride;
    }
    places.parts.push_back(std::move(place));
    return {};
  }

  Result<void> lay_layer(int layer) {
    const ExpertForm& from = packed_.forms[static_cast<size_t>(layer)];
    const size_t second = num_files() - 1;
    source_.table.layers.emplace_back();
    sums_.clear();
    ExpertForm to = from;
    if (layout_.are_gate_and_up_apart) {
      const int64_t width = from.down.matrix.columns;
      to.gate.matrix.rows = to.up.matrix.rows = width;
      to.up.first_row = 0;
      if (layout_.widens && layer % 2 == 1) to.gate.matrix.dtype = DType::kF32;
      if (layout_.widens && layer % 3 == 2) to.down.matrix.dtype = DType::kF32;
      PENSTOCK_TRY(add_part(layer, 0, from.gate, to.gate));
      PENSTOCK_TRY(add_part(layer, second, from.up, to.up));
      source_.table.layers.back().first_parts = 2;
    } else {
      PENSTOCK_TRY(add_part(layer, 0, from.gate, to.gate));
      to.up.part = to.gate.part;
    }
    PENSTOCK_TRY(add_part(layer, second, from.down, to.down));
    source_.forms.push_back(to);
    LayerPlaces& places = source_.table.layers.back();
    const auto num_parts = places.parts.size();
    places.checksums.resize(static_cast<size_t>(source_.table.num_experts) * num_parts);
    for (const Sum& sum : sums_) {
      places
          .checksums[static_cast<size_t>(sum.expert) * num_parts + static_cast<size_t>(sum.part)] =
          sum.value;
    }
    return {};
  }

  struct Sum {
    int expert, part;
    Hash128 value;
  };

  Storage& storage_;
  const std::string folder_;
  const RelaidLayout layout_;
  const ExpertSource packed_;
  std::vector<std::unique_ptr<StorageFile>> files_;
  std::array<uint64_t, 2> ends_ = {};
  std::vector<Sum> sums_;
  ExpertSource source_;
};

}  // namespace

ExpertSourceFactory relaid_experts(const std::string& folder, const RelaidLayout& layout) {
  return [folder, layout](Storage& storage, const Container& container,
                          int num_layers) -> Result<ExpertSource> {
    ExpertSource packed = PENSTOCK_TRY(open_packed_experts(storage, container, num_layers));
    // Read through the page cache: parts do not begin at multiples of a block.
    packed.files[0] = PENSTOCK_TRY(storage.open(container.experts_path(), OpenMode::kRead));
    return Relayer(storage, folder, layout, std::move(packed)).run();
  };
}

}  // namespace penstock::test
