// The manifest of a penstock model (penstock.json): what lies where in the other files.
//
// It is written last and ends with a checksum over itself, so its presence is what makes a
// directory a model. Everything in it is checked against declared ranges, against its own
// arithmetic (a tensor's bytes follow from its shape) and, by Container::open, against the sizes of
// the files, before anything is allocated. docs/formats.md has it byte by byte.
//
// Errors  kCorrupt naming the key; kUnsupported for another format version.
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "io/checksum.h"

namespace penstock {

inline constexpr int kFormatVersion = 1;
inline constexpr uint64_t kFileAlignment = 4096;          // of everything that is read by itself
inline constexpr uint64_t kResidentBlockBytes = 1 << 20;  // one checksum each
inline constexpr std::string_view kManifestName = "penstock.json";
inline constexpr std::string_view kResidentName = "resident.bin";
inline constexpr std::string_view kResidentSumsName = "resident.sum";
inline constexpr std::string_view kExpertsName = "experts.bin";
inline constexpr std::string_view kExpertSumsName = "experts.sum";

constexpr uint64_t align_file(uint64_t bytes) {
  return (bytes + kFileAlignment - 1) / kFileAlignment * kFileAlignment;
}

// A weight in resident.bin: a matrix in panels (compute/panel.h), or plain row-major f32.
struct ResidentTensor {
  std::string name;  // without prefix and without ".weight": "layers.3.self_attn.q_proj"
  DType dtype = DType::kF32;
  bool panels = false;
  int64_t rows = 0;  // a vector has one row
  int64_t columns = 0;
  uint64_t offset = 0;  // in resident.bin, a multiple of kFileAlignment
  uint64_t bytes = 0;

  bool operator==(const ResidentTensor&) const = default;
};

// The parts of a record, in the order in which they are needed; sums go by these numbers.
enum PackedPart : int { kGateUpPart, kDownPart };
inline constexpr PackedPart kPackedParts[] = {kGateUpPart, kDownPart};

// The records of experts.bin. Record (layer, expert) starts at
// (layer * num_experts + expert) * record_bytes; each part can be read by itself with direct I/O.
struct ExpertParts {
  DType dtype = DType::kF32;
  int64_t num_layers = 0;
  int64_t num_experts = 0;
  int64_t hidden_size = 0;
  // gate_up is [2 * intermediate, hidden], down [hidden, intermediate]
  int64_t intermediate_size = 0;
  uint64_t record_bytes = 0;    // a multiple of kFileAlignment
  uint64_t gate_up_offset = 0;  // in the record, a multiple of kFileAlignment
  uint64_t gate_up_bytes = 0;   // payload, without padding
  uint64_t down_offset = 0;
  uint64_t down_bytes = 0;

  bool operator==(const ExpertParts&) const = default;
  uint64_t num_records() const { return static_cast<uint64_t>(num_layers * num_experts); }
  uint64_t file_bytes() const { return num_records() * record_bytes; }

  // In the record; payload, without padding.
  struct Extent {
    uint64_t offset = 0, bytes = 0;
  };
  Extent extent(PackedPart part) const {
    return part == kGateUpPart ? Extent{gate_up_offset, gate_up_bytes}
                               : Extent{down_offset, down_bytes};
  }
  // Where a part's padding ends.
  uint64_t padded_end(PackedPart part) const {
    return part == kGateUpPart ? down_offset : record_bytes;
  }
  uint64_t num_sums() const { return num_records() * std::size(kPackedParts); }
  static size_t sum_index(uint64_t record, PackedPart part) {
    return record * std::size(kPackedParts) + static_cast<size_t>(part);
  }
};

// A file beside the two big ones, with the sum of its bytes (checksum(bytes, 0)).
struct ManifestFile {
  std::string name;
  uint64_t bytes = 0;
  Hash128 sum;
};

struct SourceFile {
  std::string name;
  uint64_t bytes = 0;

  bool operator==(const SourceFile&) const = default;
};

struct Manifest {
  uint64_t model_id = 0;
  std::string experts_option;   // as asked for: keep, q4, ...
  std::string resident_option;  // keep, q8, q4
  Json config = Json::object();
  uint64_t resident_bytes = 0;
  std::vector<ResidentTensor> tensors;
  ExpertParts experts;
  std::vector<ManifestFile> files;
  std::vector<SourceFile> sources;  // provenance

  const ManifestFile* find_file(std::string_view name) const;
};

// Bytes of a matrix in panels, or nothing when the numbers make no sense or wrap.
std::optional<uint64_t> stored_panel_bytes(DType dtype, int64_t rows, int64_t columns);

// Offsets and record size from dtype, counts and widths, which are given. Nothing when they wrap.
std::optional<ExpertParts> lay_out_experts(ExpertParts parts);

std::string manifest_text(const Manifest& manifest);
Result<Manifest> parse_manifest(std::string_view text, const std::string& what);

// The sum at the end of a manifest, which covers all bytes before it, and through the sums in it
// the whole model: two models with the same one are the same.
Result<Hash128> manifest_sum(std::string_view text, const std::string& what);

}  // namespace penstock
