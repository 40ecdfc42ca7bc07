// The records of experts.bin: one for every expert of every layer, two parts each.
//
// The first part has gate and up, the second down; each begins at a multiple of kFileAlignment and is
// padded with zeros, so that it can be read by itself with direct I/O. The experts of one layer have
// records of one form; layers may differ. Sizes and places follow from the forms and the widths.
//
//   experts.bin = layer[num_layers], layer = record[num_experts]
//   record      = part of gate and up, padding, part of down, padding
//
// Errors  parse_experts(): kCorrupt naming the key.
// See also docs/formats.md
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "format/matrix_form.h"

namespace penstock {

inline constexpr uint64_t kFileAlignment = 4096;  // of everything that is read by itself

constexpr uint64_t align_file(uint64_t bytes) {
  return (bytes + kFileAlignment - 1) / kFileAlignment * kFileAlignment;
}

// The parts of a record, in the order in which they are needed; sums go by these numbers.
enum PackedPart : int { kGateUpPart, kDownPart };
inline constexpr PackedPart kPackedParts[] = {kGateUpPart, kDownPart};

struct ExpertShape {
  int64_t num_layers = 0;
  int64_t num_experts = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // gate and up are [intermediate, hidden], down the other way

  bool operator==(const ExpertShape&) const = default;
};

// What the matrices of a layer's experts lie as. Fused: gate's rows and then up's are one matrix,
// whose form is gate's.
struct RecordForms {
  bool is_fused = false;
  MatrixForm gate, up, down;

  bool operator==(const RecordForms&) const = default;
};

struct ExpertRecord {
  RecordForms forms;
  uint64_t up_offset = 0;      // in the first part; not of fused ones
  uint64_t gate_up_bytes = 0;  // payload, without padding
  uint64_t down_offset = 0;    // in the record
  uint64_t down_bytes = 0;
  uint64_t bytes = 0;  // a multiple of kFileAlignment
  uint64_t first = 0;  // in experts.bin: of the layer's expert 0

  bool operator==(const ExpertRecord&) const = default;

  // In the record; payload, without padding.
  struct Extent {
    uint64_t offset = 0, bytes = 0;
  };
  Extent extent(PackedPart part) const {
    return part == kGateUpPart ? Extent{0, gate_up_bytes} : Extent{down_offset, down_bytes};
  }
  // Where a part's padding ends.
  uint64_t padded_end(PackedPart part) const { return part == kGateUpPart ? down_offset : bytes; }
};

struct ExpertParts : ExpertShape {
  std::vector<ExpertRecord> layers;  // [num_layers]

  bool operator==(const ExpertParts&) const = default;

  const ExpertRecord& record(int64_t layer) const { return layers[static_cast<size_t>(layer)]; }
  int64_t layer_of(uint64_t index) const { return static_cast<int64_t>(index) / num_experts; }
  const ExpertRecord& record_of(uint64_t index) const { return record(layer_of(index)); }
  // Of record (layer, expert), whose index is layer * num_experts + expert.
  uint64_t offset_of(uint64_t index) const {
    const auto expert = index % static_cast<uint64_t>(num_experts);
    return record_of(index).first + expert * record_of(index).bytes;
  }
  uint64_t num_records() const { return static_cast<uint64_t>(num_layers * num_experts); }
  uint64_t file_bytes() const {
    return layers.empty() ? 0 : offset_of(num_records() - 1) + layers.back().bytes;
  }
  uint64_t largest_record() const;
  uint64_t largest_part() const;  // without padding
  // The type of all panels, where all matrices lie in panels of one type.
  std::optional<DType> one_dtype() const;
  // As version 1 of the format has them: all records alike, fused, in panels of one type.
  bool are_plain() const;
  std::string codings() const;  // "q4"; "Q4_K, Q6_K": most bytes first

  uint64_t num_sums() const { return num_records() * std::size(kPackedParts); }
  static size_t sum_index(uint64_t record, PackedPart part) {
    return record * std::size(kPackedParts) + static_cast<size_t>(part);
  }
};

// Sizes and places of everything. Nothing where a matrix cannot lie so, or sizes wrap.
std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape,
                                           const std::vector<RecordForms>& layers);
// All alike, as `pack` makes them of floats.
std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape, DType dtype);

// As a member of the manifest; of plain ones as version 1 has it, of others as version 2.
std::string experts_text(const ExpertParts& parts);
Result<ExpertParts> parse_experts(const Json& json, int version, const std::string& what);

// {"dtype": "q4", "layout": "panels"} and {"coding": "Q4_K", "layout": "coded panels"}
Json form_json(const MatrixForm& form);
Result<MatrixForm> parse_form(const Json& json, const std::string& what);

}  // namespace penstock
