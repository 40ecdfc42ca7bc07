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
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "format/expert_parts.h"
#include "format/matrix_form.h"
#include "io/checksum.h"

namespace penstock {

// Version 2 adds matrices in the codes of the file that was packed; models without such are still
// written as version 1.
inline constexpr int kFormatVersion = 1;
inline constexpr int kFormatVersionMax = 2;
inline constexpr uint64_t kResidentBlockBytes = 1 << 20;  // one checksum each
inline constexpr std::string_view kManifestName = "penstock.json";
inline constexpr std::string_view kResidentName = "resident.bin";
inline constexpr std::string_view kResidentSumsName = "resident.sum";
inline constexpr std::string_view kExpertsName = "experts.bin";
inline constexpr std::string_view kExpertSumsName = "experts.sum";

// A weight in resident.bin.
struct ResidentTensor {
  std::string name;  // without prefix and without ".weight": "layers.3.self_attn.q_proj"
  MatrixForm form = {};
  int64_t rows = 0;  // a vector has one row
  int64_t columns = 0;
  ColumnOrder order = {};  // of coded ones: how their columns are stored
  uint64_t offset = 0;     // in resident.bin, a multiple of kFileAlignment
  uint64_t bytes = 0;

  bool operator==(const ResidentTensor& other) const {
    return name == other.name && form == other.form && rows == other.rows &&
           columns == other.columns && order.width == other.order.width &&
           order.stored == other.order.stored && offset == other.offset && bytes == other.bytes;
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
  std::string experts_option;    // as asked for: keep, q4, ...
  std::string resident_option;   // keep, q8, q4
  std::string quantiser_option;  // who made the codes of both; empty: rounding, or nobody did
  Json config = Json::object();
  uint64_t resident_bytes = 0;
  std::vector<ResidentTensor> tensors;
  ExpertParts experts;
  std::vector<ManifestFile> files;
  std::vector<SourceFile> sources;  // provenance

  const ManifestFile* find_file(std::string_view name) const;
  int version() const;  // that it is written as
};

std::string manifest_text(const Manifest& manifest);
Result<Manifest> parse_manifest(std::string_view text, const std::string& what);

// The sum at the end of a manifest, which covers all bytes before it, and through the sums in it
// the whole model: two models with the same one are the same.
Result<Hash128> manifest_sum(std::string_view text, const std::string& what);

}  // namespace penstock
