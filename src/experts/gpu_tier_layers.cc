// How the experts of a layer lie in a slot of a device.
#include <algorithm>

#include "experts/gpu_tier.h"
#include "gpu/gpu_buffer.h"
#include "quant/row_panels.h"

namespace penstock {
namespace {

GpuCoding coding_of(const PartMatrix& place) {
  Matrix matrix = place.matrix;
  if (!place.is_coded) return gpu_coding_of(matrix);
  return is_in_panels(matrix.coded) ? GpuCoding(matrix.coded.coding) : GpuCoding();
}

// Kernels read words of four bytes.
bool are_words(const GpuPlanes& planes) {
  return (planes.codes | planes.scales | planes.biases) % sizeof(uint32_t) == 0;
}

}  // namespace

GpuTier::Layer GpuTier::lay_out(const ExpertForm& form, const LayerPlaces& places) {
  Layer layer;
  for (const PartPlace& part : places.parts) {
    const uint64_t bytes = part.form != nullptr ? part.form->bytes() : part.bytes;
    layer.parts.push_back({.offset = layer.end, .bytes = {}});
    layer.bytes.push_back(bytes);
    layer.end += gpu_aligned(bytes);
  }
  const auto at = [&](int part, uint64_t offset) {
    return part < 0 ? 0 : layer.parts[static_cast<size_t>(part)].offset + offset;
  };
  const auto planes = [&](const PartMatrix& place) {
    return GpuPlanes{at(place.part, place.at.codes), at(place.scales_part, place.at.scales),
                     at(place.biases_part, place.at.biases)};
  };
  layer.gate = planes(form.gate);
  layer.up = planes(form.up);
  layer.down = planes(form.down);
  layer.up_first_row = form.up.first_row;
  layer.shape = {.gate_up = coding_of(form.gate),
                 .down = coding_of(form.down),
                 .hidden_size = form.gate.matrix.columns,
                 .expert_width = form.down.matrix.columns};
  layer.is_computed = layer.shape.gate_up == coding_of(form.up) && layer.shape.can_be_computed() &&
                      are_words(layer.gate) && are_words(layer.up) && are_words(layer.down);
  const bool is_fused = form.up.part == form.gate.part && form.up.at.codes == form.gate.at.codes;
  for (const PartMatrix* place : {&form.gate, &form.up, &form.down}) {
    if (place == &form.up && is_fused) continue;  // rows of the same matrix
    if (coding_of(*place).may_have_tiny_scales()) layer.to_look_at.push_back(*place);
  }
  return layer;
}

Matrix GpuTier::Layer::matrix(const PartMatrix& place,
                              std::span<const std::byte* const> here) const {
  const auto address = [&](int part, uint64_t offset) {
    return part < 0 ? nullptr : here[static_cast<size_t>(part)] + offset;
  };
  Matrix made = place.matrix;
  made.coded.codes = address(place.part, place.at.codes);
  made.coded.scales = address(place.scales_part, place.at.scales);
  made.coded.biases = address(place.biases_part, place.at.biases);
  return made;
}

std::vector<GpuExpertShape> GpuTier::shapes() const {
  std::vector<GpuExpertShape> shapes;
  for (const Layer& layer : layers_) {
    const auto is_same = [&](const GpuExpertShape& shape) {
      return shape.gate_up == layer.shape.gate_up && shape.down == layer.shape.down;
    };
    if (layer.is_computed && std::ranges::none_of(shapes, is_same)) shapes.push_back(layer.shape);
  }
  return shapes;
}

uint64_t GpuTier::slot_bytes(const ExpertTable& table, std::span<const ExpertForm> forms) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < forms.size(); ++i) {
    const Layer layer = lay_out(forms[i], table.layers[i]);
    if (layer.is_computed) bytes = std::max(bytes, layer.end);
  }
  return bytes;
}

}  // namespace penstock
