// Where a model's experts lie and how they are to be read as matrices: what LocalExperts needs to
// know of any file format.
//
// A table of bytes (store/expert_table.h) and, for every layer, which part holds which matrix. Gate
// and up may lie in one part, one below the other, or apart; types may differ by layer and part.
//
// Memory   owns the open files; the store that reads from them must be destroyed first
// Errors   open_packed_experts(): as Storage and Container
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "compute/panel.h"
#include "format/container.h"
#include "io/storage.h"
#include "store/expert_table.h"

namespace penstock {

// What the kernels for panels need of an address (compute/panel.h).
inline constexpr uint32_t kPanelAlignment = 64;

// The tag of a part of which not all is panels of one type.
inline constexpr uint32_t kMixedPart = UINT32_MAX;

// A matrix whose panels or codes lie in a part of an expert, with the scales and biases of codes in
// parts of their own or further inside the same one. Where first_row is above 0, it begins inside.
struct PartMatrix {
  int part = 0;
  Matrix matrix = {};     // without addresses: only what it is
  int64_t first_row = 0;  // of the matrix that is meant
  bool is_coded = false;
  int scales_part = -1, biases_part = -1;  // of coded rows; -1: there are none
  RowBytes at = {};                        // where each plane begins in its part

  int last_part() const { return std::max({part, scales_part, biases_part}); }
};

// The three matrices of every expert of one layer, [I, H], [I, H] and [H, I].
struct ExpertForm {
  PartMatrix gate, up, down;
};

struct ExpertSource {
  std::vector<std::unique_ptr<StorageFile>> files;
  ExpertTable table;                   // of `files`
  std::vector<ExpertForm> forms = {};  // [layer]

  bool reads_direct() const;  // past the page cache, from every file
};

// Of our own format: one file of records, gate and up in the first part, down in the second. The
// layers after the first `num_layers` are left out.
Result<ExpertSource> open_packed_experts(Storage& storage, const Container& container,
                                         int num_layers);

// Who else says where the experts of a packed model lie: for tests.
using ExpertSourceFactory =
    std::function<Result<ExpertSource>(Storage&, const Container&, int num_layers)>;

}  // namespace penstock
