#include "format/manifest.h"

#include <fmt/format.h>

#include <set>

#include "base/byte_cursor.h"
#include "format/corrupt.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr int64_t kWidthMax = int64_t{1} << 31;
constexpr std::string_view kTailStart = ",\n\"checksum\": \"";
constexpr std::string_view kTailEnd = "\"\n}\n";
constexpr size_t kTailBytes = kTailStart.size() + 32 + kTailEnd.size();

Result<const Json*> member(const Json& object, std::string_view key, const std::string& what,
                           Json::value_t type) {
  const Json* found = json_find(object, key);
  if (found == nullptr || found->type() != type) {
    return corrupt(what, fmt::format("\"{}\" is missing or of the wrong type", key));
  }
  return found;
}

Result<uint64_t> byte_count(const Json& object, std::string_view key, const std::string& what) {
  return static_cast<uint64_t>(PENSTOCK_TRY(json_int(object, key, what, 0, INT64_MAX)));
}

Result<void> check_version(const Json& json, const std::string& what) {
  const Json* format = json_find(json, "format");
  if (format == nullptr || !format->is_string() || format->get<std::string>() != "penstock") {
    return corrupt(what, "not the manifest of a penstock model (\"format\" is not \"penstock\")");
  }
  const int64_t version = PENSTOCK_TRY(json_int(json, "version", what, INT64_MIN, INT64_MAX));
  if (version != kFormatVersion) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: format version {}; this program reads version {}. Pack the model "
                             "again from its source, or use the penstock that packed it",
                             what, version, kFormatVersion)};
  }
  return {};
}

Result<ResidentTensor> parse_tensor(const Json& json, const std::string& what) {
  ResidentTensor tensor;
  tensor.name = PENSTOCK_TRY(json_string(json, "name", what));
  const std::string place = fmt::format("{}: tensor {}", what, escaped(tensor.name));
  if (!is_plain_file_name(tensor.name)) return corrupt(place, "the name has odd characters");
  const std::string dtype = PENSTOCK_TRY(json_string(json, "dtype", place));
  const std::optional<DType> parsed = parse_dtype(dtype);
  if (!parsed || !traits_of(*parsed).has_panels) {
    return corrupt(place, fmt::format("unknown dtype {}", escaped(dtype)));
  }
  tensor.dtype = *parsed;
  const std::string layout = PENSTOCK_TRY(json_string(json, "layout", place));
  if (layout != "panels" && layout != "plain") {
    return corrupt(place, fmt::format("unknown layout {}", escaped(layout)));
  }
  tensor.panels = layout == "panels";
  tensor.rows = PENSTOCK_TRY(json_int(json, "rows", place, 1, kWidthMax));
  tensor.columns = PENSTOCK_TRY(json_int(json, "columns", place, 1, kWidthMax));
  tensor.offset = PENSTOCK_TRY(byte_count(json, "offset", place));
  tensor.bytes = PENSTOCK_TRY(byte_count(json, "bytes", place));

  std::optional<uint64_t> bytes;
  if (tensor.panels) {
    bytes = stored_panel_bytes(tensor.dtype, tensor.rows, tensor.columns);
  } else if (tensor.dtype == DType::kF32) {
    bytes = checked_multiply(static_cast<uint64_t>(tensor.rows) * 4,
                             static_cast<uint64_t>(tensor.columns));
  }
  if (bytes != tensor.bytes) {
    return corrupt(place, fmt::format("{} [{}, {}] in layout {} cannot take {} bytes", dtype,
                                      tensor.rows, tensor.columns, layout, tensor.bytes));
  }
  return tensor;
}

// Each tensor starts at the first aligned byte after the one before it; so nothing overlaps.
Result<void> parse_resident(const Json& json, const std::string& what, Manifest& manifest) {
  manifest.resident_bytes = PENSTOCK_TRY(byte_count(json, "bytes", what));
  const Json& tensors = *PENSTOCK_TRY(member(json, "tensors", what, Json::value_t::array));
  std::set<std::string> names;
  uint64_t end = 0;
  for (const Json& entry : tensors) {
    ResidentTensor tensor = PENSTOCK_TRY(parse_tensor(entry, what));
    if (!names.insert(tensor.name).second) {
      return corrupt(what, fmt::format("tensor {} is there twice", escaped(tensor.name)));
    }
    if (tensor.offset != end) {
      return corrupt(what, fmt::format("tensor {} is at {}, expected {}", escaped(tensor.name),
                                       tensor.offset, end));
    }
    const std::optional<uint64_t> after = checked_add(end, tensor.bytes);
    if (!after || *after > static_cast<uint64_t>(INT64_MAX) - kFileAlignment) {
      return corrupt(what, "the tensors' sizes add up to more than 63 bits");
    }
    end = align_file(*after);
    manifest.tensors.push_back(std::move(tensor));
  }
  if (end != manifest.resident_bytes) {
    return corrupt(
        what, fmt::format("\"bytes\" is {}, the tensors take {}", manifest.resident_bytes, end));
  }
  return {};
}

Result<ExpertParts> parse_experts(const Json& json, const std::string& what) {
  const std::string dtype = PENSTOCK_TRY(json_string(json, "dtype", what));
  const std::optional<DType> parsed = parse_dtype(dtype);
  if (!parsed || !traits_of(*parsed).has_panels) {
    return corrupt(what, fmt::format("unknown dtype {}", escaped(dtype)));
  }
  ExpertParts stated;
  stated.dtype = *parsed;
  stated.num_layers = PENSTOCK_TRY(json_int(json, "layers", what, 1, 1024));
  stated.num_experts = PENSTOCK_TRY(json_int(json, "experts", what, 1, 65536));
  stated.hidden_size = PENSTOCK_TRY(json_int(json, "hidden_size", what, 1, kWidthMax));
  stated.intermediate_size = PENSTOCK_TRY(json_int(json, "intermediate_size", what, 1, kWidthMax));
  stated.record_bytes = PENSTOCK_TRY(byte_count(json, "record_bytes", what));
  stated.gate_up_offset = PENSTOCK_TRY(byte_count(json, "gate_up_offset", what));
  stated.gate_up_bytes = PENSTOCK_TRY(byte_count(json, "gate_up_bytes", what));
  stated.down_offset = PENSTOCK_TRY(byte_count(json, "down_offset", what));
  stated.down_bytes = PENSTOCK_TRY(byte_count(json, "down_bytes", what));
  if (lay_out_experts(stated) != stated) {
    return corrupt(what, "the offsets and sizes of a record do not follow from its shape");
  }
  return stated;
}

Result<ManifestFile> parse_file(const Json& json, const std::string& what) {
  ManifestFile file;
  file.name = PENSTOCK_TRY(json_string(json, "name", what));
  if (!is_plain_file_name(file.name)) {
    return corrupt(what, fmt::format("{} is not a plain file name", escaped(file.name)));
  }
  file.bytes = PENSTOCK_TRY(byte_count(json, "bytes", what));
  const std::string sum = PENSTOCK_TRY(json_string(json, "checksum", what));
  const std::optional<Hash128> parsed = parse_hex128(sum);
  if (!parsed) return corrupt(what, fmt::format("{} is not a checksum", escaped(sum)));
  file.sum = *parsed;
  return file;
}

Result<void> parse_files(const Json& json, const std::string& what, Manifest& manifest) {
  std::set<std::string> names = {std::string(kManifestName), std::string(kResidentName),
                                 std::string(kExpertsName)};
  for (const Json& entry : *PENSTOCK_TRY(member(json, "files", what, Json::value_t::array))) {
    ManifestFile file = PENSTOCK_TRY(parse_file(entry, what));
    if (!names.insert(file.name).second) {
      return corrupt(what, fmt::format("file {} is listed twice", escaped(file.name)));
    }
    manifest.files.push_back(std::move(file));
  }
  for (const std::string_view needed : {kResidentSumsName, kExpertSumsName}) {
    if (manifest.find_file(needed) == nullptr) {
      return corrupt(what, fmt::format("\"files\" lacks {}", needed));
    }
  }
  return {};
}

Json tensor_json(const ResidentTensor& tensor) {
  return {{"name", tensor.name},
          {"dtype", std::string(name_of(tensor.dtype))},
          {"layout", tensor.panels ? "panels" : "plain"},
          {"rows", tensor.rows},
          {"columns", tensor.columns},
          {"offset", tensor.offset},
          {"bytes", tensor.bytes}};
}

Json experts_json(const ExpertParts& parts) {
  return {{"dtype", std::string(name_of(parts.dtype))},
          {"layers", parts.num_layers},
          {"experts", parts.num_experts},
          {"hidden_size", parts.hidden_size},
          {"intermediate_size", parts.intermediate_size},
          {"record_bytes", parts.record_bytes},
          {"gate_up_offset", parts.gate_up_offset},
          {"gate_up_bytes", parts.gate_up_bytes},
          {"down_offset", parts.down_offset},
          {"down_bytes", parts.down_bytes}};
}

// One entry a line: the manifest is also read by people.
std::string lines(const std::vector<Json>& entries) {
  std::string out = "[";
  for (size_t i = 0; i < entries.size(); ++i) {
    out += (i == 0 ? "\n " : ",\n ") + to_text(entries[i]);
  }
  return out + "\n]";
}

}  // namespace

const ManifestFile* Manifest::find_file(std::string_view name) const {
  for (const ManifestFile& file : files) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

std::optional<uint64_t> stored_panel_bytes(DType dtype, int64_t rows, int64_t columns) {
  if (rows < 1 || columns < 1 || rows > kWidthMax || columns > kWidthMax) return std::nullopt;
  if (!traits_of(dtype).has_panels) return std::nullopt;
  if (is_quantised(dtype) && columns % kGroupColumns != 0) return std::nullopt;
  const auto panels = static_cast<uint64_t>((rows + kPanelRows - 1) / kPanelRows);
  const auto blocks = static_cast<uint64_t>((columns + kGroupColumns - 1) / kGroupColumns);
  return checked_multiply(panels * blocks, static_cast<uint64_t>(block_bytes(dtype)));
}

std::optional<ExpertParts> lay_out_experts(ExpertParts parts) {
  const std::optional<uint64_t> gate_up =
      stored_panel_bytes(parts.dtype, 2 * parts.intermediate_size, parts.hidden_size);
  const std::optional<uint64_t> down =
      stored_panel_bytes(parts.dtype, parts.hidden_size, parts.intermediate_size);
  constexpr uint64_t kPartBytesMax = uint64_t{1} << 40;
  if (!gate_up || !down || *gate_up > kPartBytesMax || *down > kPartBytesMax) return std::nullopt;
  parts.gate_up_offset = 0;
  parts.gate_up_bytes = *gate_up;
  parts.down_offset = align_file(*gate_up);
  parts.down_bytes = *down;
  parts.record_bytes = align_file(parts.down_offset + *down);
  const std::optional<uint64_t> all = checked_multiply(parts.num_records(), parts.record_bytes);
  if (!all || *all > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return parts;
}

std::string manifest_text(const Manifest& manifest) {
  std::vector<Json> tensors, files, sources;
  for (const ResidentTensor& tensor : manifest.tensors) tensors.push_back(tensor_json(tensor));
  for (const ManifestFile& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"checksum", hex_text(file.sum)}});
  }
  for (const SourceFile& file : manifest.sources) {
    sources.push_back({{"name", file.name}, {"bytes", file.bytes}});
  }
  const Json options = {{"experts", manifest.experts_option},
                        {"resident", manifest.resident_option}};
  std::string out = "{\n\"format\": \"penstock\",\n";
  out += fmt::format("\"version\": {},\n", kFormatVersion);
  out += fmt::format("\"model_id\": \"{}\",\n", hex_text(manifest.model_id));
  out += fmt::format("\"options\": {},\n", to_text(options));
  out += fmt::format("\"config\": {},\n", to_text(manifest.config));
  out += fmt::format("\"resident\": {{\"bytes\": {}, \"tensors\": {}}},\n", manifest.resident_bytes,
                     lines(tensors));
  out += fmt::format("\"experts\": {},\n", to_text(experts_json(manifest.experts)));
  out += fmt::format("\"files\": {},\n", lines(files));
  out += fmt::format("\"sources\": {}", lines(sources));
  const Hash128 sum = checksum(std::as_bytes(std::span(out)), 0);
  out += kTailStart;
  out += hex_text(sum);
  out += kTailEnd;
  return out;
}

Result<Hash128> manifest_sum(std::string_view text, const std::string& what) {
  const Error changed = corrupt(what, "does not end with its checksum: cut short or changed");
  if (text.size() < kTailBytes) return changed;
  const std::string_view body = text.substr(0, text.size() - kTailBytes);
  const std::string_view tail = text.substr(body.size());
  if (tail.substr(0, kTailStart.size()) != kTailStart) return changed;
  if (tail.substr(kTailStart.size() + 32) != kTailEnd) return changed;
  const std::optional<Hash128> stated = parse_hex128(tail.substr(kTailStart.size(), 32));
  if (!stated) return changed;
  if (checksum(std::as_bytes(std::span(body)), 0) != *stated) {
    return corrupt(what, "its checksum does not match: changed after packing, or damaged");
  }
  return *stated;
}

Result<Manifest> parse_manifest(std::string_view text, const std::string& what) {
  const Json json = PENSTOCK_TRY(parse_json(text, what));
  // The version comes first: of another version neither the sum nor the keys are known.
  PENSTOCK_TRY(check_version(json, what));
  PENSTOCK_TRY(manifest_sum(text, what));

  Manifest manifest;
  const std::string id = PENSTOCK_TRY(json_string(json, "model_id", what));
  const std::optional<uint64_t> parsed_id = parse_hex64(id);
  if (!parsed_id) return corrupt(what, fmt::format("\"model_id\" {} is not one", escaped(id)));
  manifest.model_id = *parsed_id;
  const Json& options = *PENSTOCK_TRY(member(json, "options", what, Json::value_t::object));
  manifest.experts_option = PENSTOCK_TRY(json_string(options, "experts", what));
  manifest.resident_option = PENSTOCK_TRY(json_string(options, "resident", what));
  manifest.config = *PENSTOCK_TRY(member(json, "config", what, Json::value_t::object));
  const Json& resident = *PENSTOCK_TRY(member(json, "resident", what, Json::value_t::object));
  PENSTOCK_TRY(parse_resident(resident, what + ": \"resident\"", manifest));
  const Json& experts = *PENSTOCK_TRY(member(json, "experts", what, Json::value_t::object));
  manifest.experts = PENSTOCK_TRY(parse_experts(experts, what + ": \"experts\""));
  PENSTOCK_TRY(parse_files(json, what, manifest));
  for (const Json& entry : *PENSTOCK_TRY(member(json, "sources", what, Json::value_t::array))) {
    std::string name = PENSTOCK_TRY(json_string(entry, "name", what));
    const uint64_t bytes = PENSTOCK_TRY(byte_count(entry, "bytes", what));
    manifest.sources.push_back({std::move(name), bytes});
  }
  return manifest;
}

}  // namespace penstock
