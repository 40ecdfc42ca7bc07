#include "pack/synth_layout.h"

#include <utility>

#include "compute/panel.h"
#include "model/registry.h"

namespace penstock {
namespace {

ResidentTensor stored_form(const TensorSpec& spec, DType resident) {
  ResidentTensor tensor;
  tensor.name = spec.name;
  tensor.rows = spec.rows;
  tensor.columns = spec.columns;
  if (spec.stored != StoredAs::kVector) {
    tensor.form = panel_form(spec.stored == StoredAs::kExactMatrix ? DType::kBF16 : resident);
    tensor.bytes =
        static_cast<uint64_t>(panel_bytes(tensor.form.dtype, tensor.rows, tensor.columns));
  } else {
    tensor.form = plain_form();
    tensor.bytes = static_cast<uint64_t>(spec.elements()) * sizeof(float);
  }
  return tensor;
}

}  // namespace

std::vector<SynthTensor> synthetic_tensors(const ModelConfig& config, DType resident) {
  std::vector<SynthTensor> tensors;
  uint64_t end = 0;
  for (const TensorSpec& spec : list_tensors(config).resident) {
    SynthTensor entry{stored_form(spec, resident), spec.fill};
    entry.tensor.offset = end;
    end = align_file(end + entry.tensor.bytes);
    tensors.push_back(std::move(entry));
  }
  return tensors;
}

}  // namespace penstock
