#include "format/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/byte_cursor.h"
#include "format/corrupt.h"
#include "format/text.h"

namespace penstock {
namespace {

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

Result<int> check_version(const Json& json, const std::string& what) {
  const Json* format = json_find(json, "format");
  if (format == nullptr || !format->is_string() || format->get<std::string>() != "penstock") {
    return corrupt(what, "not the manifest of a penstock model (\"format\" is not \"penstock\")");
  }
  const int64_t version = PENSTOCK_TRY(json_int(json, "version", what, INT64_MIN, INT64_MAX));
  if (version < 1 || version > kFormatVersionMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: format version {}; this program reads versions 1 to {}. Pack the "
                             "model again from its source, or use the penstock that packed it",
                             what, version, kFormatVersionMax)};
  }
  return static_cast<int>(version);
}

// Neighbours that lie elsewhere than they are meant to: every place once.
Result<ColumnOrder> parse_order(const Json& json, int64_t columns, const std::string& what) {
  ColumnOrder order;
  order.width = PENSTOCK_TRY(json_int(json, "width", what, 1, columns));
  const Json& stored = *PENSTOCK_TRY(member(json, "stored", what, Json::value_t::array));
  if (columns % order.width != 0 || std::ssize(stored) != columns / order.width) {
    return corrupt(what, fmt::format("{} neighbours of {} are not {} columns", stored.size(),
                                     order.width, columns));
  }
  std::vector<bool> is_taken(stored.size());
  for (const Json& place : stored) {
    const int64_t at = place.is_number_integer() ? place.get<int64_t>() : -1;
    if (at < 0 || at >= std::ssize(stored) || is_taken[static_cast<size_t>(at)]) {
      return corrupt(what, "\"stored\" does not name every place once");
    }
    is_taken[static_cast<size_t>(at)] = true;
    order.stored.push_back(at);
  }
  return order;
}

Result<ResidentTensor> parse_tensor(const Json& json, int version, const std::string& what) {
  ResidentTensor tensor;
  tensor.name = PENSTOCK_TRY(json_string(json, "name", what));
  const std::string place = fmt::format("{}: tensor {}", what, escaped(tensor.name));
  if (!is_plain_file_name(tensor.name)) return corrupt(place, "the name has odd characters");
  tensor.form = PENSTOCK_TRY(parse_form(json, place));
  if (version == 1 && tensor.form.is_coded()) {
    return corrupt(place, fmt::format("unknown layout {}", name_of(tensor.form.layout)));
  }
  tensor.rows = PENSTOCK_TRY(json_int(json, "rows", place, 1, kStoredWidthMax));
  tensor.columns = PENSTOCK_TRY(json_int(json, "columns", place, 1, kStoredWidthMax));
  tensor.offset = PENSTOCK_TRY(json_bytes(json, "offset", place));
  tensor.bytes = PENSTOCK_TRY(json_bytes(json, "bytes", place));
  const std::optional<PlacedPlanes> placed = place_matrix(tensor.form, tensor.rows, tensor.columns);
  if (!placed || placed->bytes != tensor.bytes) {
    return corrupt(
        place, fmt::format("{} [{}, {}] in layout {} cannot take {} bytes", name_of(tensor.form),
                           tensor.rows, tensor.columns, name_of(tensor.form.layout), tensor.bytes));
  }
  if (const Json* order = json_find(json, "column_order"); order != nullptr) {
    if (!order->is_object() || !tensor.form.is_coded()) {
      return corrupt(place, "\"column_order\" is not for this tensor");
    }
    tensor.order = PENSTOCK_TRY(parse_order(*order, tensor.columns, place));
  }
  return tensor;
}

// Each tensor starts at the first aligned byte after the one before it; so nothing overlaps.
Result<void> parse_resident(const Json& json, int version, const std::string& what,
                            Manifest& manifest) {
  manifest.resident_bytes = PENSTOCK_TRY(json_bytes(json, "bytes", what));
  const Json& tensors = *PENSTOCK_TRY(member(json, "tensors", what, Json::value_t::array));
  std::set<std::string> names;
  uint64_t end = 0;
  for (const Json& entry : tensors) {
    ResidentTensor tensor = PENSTOCK_TRY(parse_tensor(entry, version, what));
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

Result<ManifestFile> parse_file(const Json& json, const std::string& what) {
  ManifestFile file;
  file.name = PENSTOCK_TRY(json_string(json, "name", what));
  if (!is_plain_file_name(file.name)) {
    return corrupt(what, fmt::format("{} is not a plain file name", escaped(file.name)));
  }
  file.bytes = PENSTOCK_TRY(json_bytes(json, "bytes", what));
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
  Json json = {{"name", tensor.name}};
  json.update(form_json(tensor.form));
  json["rows"] = tensor.rows;
  json["columns"] = tensor.columns;
  json["offset"] = tensor.offset;
  json["bytes"] = tensor.bytes;
  if (!tensor.order.is_natural()) {
    json["column_order"] = {{"width", tensor.order.width}, {"stored", tensor.order.stored}};
  }
  return json;
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

int Manifest::version() const {
  const bool is_plain =
      experts.are_plain() && std::ranges::none_of(tensors, [](const ResidentTensor& tensor) {
        return tensor.form.is_coded();
      });
  return is_plain ? 1 : 2;
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
  Json options = {{"experts", manifest.experts_option}, {"resident", manifest.resident_option}};
  if (!manifest.quantiser_option.empty()) options["quantiser"] = manifest.quantiser_option;
  std::string out = "{\n\"format\": \"penstock\",\n";
  out += fmt::format("\"version\": {},\n", manifest.version());
  out += fmt::format("\"model_id\": \"{}\",\n", hex_text(manifest.model_id));
  out += fmt::format("\"options\": {},\n", to_text(options));
  out += fmt::format("\"config\": {},\n", to_text(manifest.config));
  out += fmt::format("\"resident\": {{\"bytes\": {}, \"tensors\": {}}},\n", manifest.resident_bytes,
                     lines(tensors));
  out += fmt::format("\"experts\": {},\n", experts_text(manifest.experts));
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
  const int version = PENSTOCK_TRY(check_version(json, what));
  PENSTOCK_TRY(manifest_sum(text, what));

  Manifest manifest;
  const std::string id = PENSTOCK_TRY(json_string(json, "model_id", what));
  const std::optional<uint64_t> parsed_id = parse_hex64(id);
  if (!parsed_id) return corrupt(what, fmt::format("\"model_id\" {} is not one", escaped(id)));
  manifest.model_id = *parsed_id;
  const Json& options = *PENSTOCK_TRY(member(json, "options", what, Json::value_t::object));
  manifest.experts_option = PENSTOCK_TRY(json_string(options, "experts", what));
  manifest.resident_option = PENSTOCK_TRY(json_string(options, "resident", what));
  if (json_find(options, "quantiser") != nullptr) {
    manifest.quantiser_option = PENSTOCK_TRY(json_string(options, "quantiser", what));
  }
  manifest.config = *PENSTOCK_TRY(member(json, "config", what, Json::value_t::object));
  const Json& resident = *PENSTOCK_TRY(member(json, "resident", what, Json::value_t::object));
  PENSTOCK_TRY(parse_resident(resident, version, what + ": \"resident\"", manifest));
  const Json& experts = *PENSTOCK_TRY(member(json, "experts", what, Json::value_t::object));
  manifest.experts = PENSTOCK_TRY(parse_experts(experts, version, what + ": \"experts\""));
  PENSTOCK_TRY(parse_files(json, what, manifest));
  for (const Json& entry : *PENSTOCK_TRY(member(json, "sources", what, Json::value_t::array))) {
    std::string name = PENSTOCK_TRY(json_string(entry, "name", what));
    const uint64_t bytes = PENSTOCK_TRY(json_bytes(entry, "bytes", what));
    manifest.sources.push_back({std::move(name), bytes});
  }
  return manifest;
}

}  // namespace penstock
