// The experts of a checkpoint as an ExpertSource: read in place, each plane of gate, up and down a
// part of its own, in whatever file and at whatever address it lies.
//
// Gate and up that follow one another in every expert are one part. Rows are laid side by side for
// the kernels when they have come (source/row_panel_form.h); those of which that cannot be are decoded
// where they came to lie, at any address (quant/coding.h).
//
// Errors  kUnsupported: experts of one layer are coded in several ways. open_source_experts(): as
//         Storage; kCorrupt where a file has changed since the source was opened.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "experts/expert_source.h"
#include "io/storage.h"
#include "source/model_source.h"

namespace penstock {

struct SourceExpertLayout {
  std::vector<LayerPlaces> layers;
  std::vector<ExpertForm> forms;  // [layer]

  // A table without files, which says what slots need.
  ExpertTable table(const ModelSource& source) const;
};

// Whether the experts of each layer are coded alike; kUnsupported.
Result<void> check_codings(const ModelSource& source, int num_layers);

// Of the first `num_layers` layers that have experts.
Result<SourceExpertLayout> lay_out_source_experts(const ModelSource& source, int num_layers);

Result<ExpertSource> open_source_experts(Storage& storage, const ModelSource& source,
                                         int num_layers);

// "Q4_K, Q6_K": how experts are coded, most bytes first.
std::string expert_codings(const ModelSource& source);

// Of all experts of all layers, in the files.
uint64_t expert_file_bytes(const ModelSource& source);

// What one thread takes of the heap, at most, while it lays a part out.
uint64_t layout_bytes(const ModelSource& source);

// Which files hold experts: indices into source.files().
std::vector<uint32_t> expert_files(const ModelSource& source);

}  // namespace penstock
