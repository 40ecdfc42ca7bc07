#include "format/expert_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/byte_cursor.h"
#include "format/corrupt.h"
#include "format/text.h"
#include "quant/coding_name.h"

namespace penstock {
namespace {

constexpr uint64_t kPartBytesMax = uint64_t{1} << 40;

std::optional<uint64_t> matrix_bytes(const MatrixForm& form, int64_t rows, int64_t columns) {
  if (form.is_plain()) return std::nullopt;  // kernels multiply panels and codes
  const std::optional<PlacedPlanes> placed = place_matrix(form, rows, columns);
  if (!placed || placed->bytes > kPartBytesMax) return std::nullopt;
  return placed->bytes;
}

uint64_t align_plane(uint64_t bytes) {
  return (bytes + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
}

std::optional<ExpertRecord> lay_out_record(const ExpertShape& shape, const RecordForms& forms) {
  const int64_t hidden = shape.hidden_size, width = shape.intermediate_size;
  ExpertRecord record{.forms = forms};
  if (forms.is_fused) {
    const auto both = matrix_bytes(forms.gate, 2 * width, hidden);
    if (!both) return std::nullopt;
    record.forms.up = forms.gate;
    record.gate_up_bytes = *both;
  } else {
    const auto gate = matrix_bytes(forms.gate, width, hidden);
    const auto up = matrix_bytes(forms.up, width, hidden);
    if (!gate || !up) return std::nullopt;
    record.up_offset = align_plane(*gate);
    record.gate_up_bytes = record.up_offset + *up;
  }
  const auto down = matrix_bytes(forms.down, hidden, width);
  if (!down) return std::nullopt;
  record.down_offset = align_file(record.gate_up_bytes);
  record.down_bytes = *down;
  record.bytes = align_file(record.down_offset + *down);
  return record;
}

bool are_counts(const ExpertShape& shape) {
  const auto is_width = [](int64_t width) { return width >= 1 && width <= kStoredWidthMax / 2; };
  return shape.num_layers >= 1 && shape.num_layers <= 1024 && shape.num_experts >= 1 &&
         shape.num_experts <= 65536 && is_width(shape.hidden_size) &&
         is_width(shape.intermediate_size);
}

Json plain_json(const ExpertParts& parts) {
  const ExpertRecord& record = parts.layers.front();
  return {{"dtype", std::string(name_of(record.forms.gate.dtype))},
          {"layers", parts.num_layers},
          {"experts", parts.num_experts},
          {"hidden_size", parts.hidden_size},
          {"intermediate_size", parts.intermediate_size},
          {"record_bytes", record.bytes},
          {"gate_up_offset", 0},
          {"gate_up_bytes", record.gate_up_bytes},
          {"down_offset", record.down_offset},
          {"down_bytes", record.down_bytes}};
}

Json record_json(const ExpertRecord& record) {
  Json json = {{"record_bytes", record.bytes}};
  if (record.forms.is_fused) {
    json["gate_up"] = form_json(record.forms.gate);
  } else {
    json["gate"] = form_json(record.forms.gate);
    json["up"] = form_json(record.forms.up);
  }
  json["down"] = form_json(record.forms.down);
  return json;
}

Result<ExpertShape> parse_expert_shape(const Json& json, const std::string& what) {
  ExpertShape shape;
  shape.num_layers = PENSTOCK_TRY(json_int(json, "layers", what, 1, 1024));
  shape.num_experts = PENSTOCK_TRY(json_int(json, "experts", what, 1, 65536));
  shape.hidden_size = PENSTOCK_TRY(json_int(json, "hidden_size", what, 1, kStoredWidthMax));
  shape.intermediate_size =
      PENSTOCK_TRY(json_int(json, "intermediate_size", what, 1, kStoredWidthMax));
  return shape;
}

Result<ExpertParts> parse_plain(const Json& json, const ExpertShape& shape,
                                const std::string& what) {
  const std::string dtype = PENSTOCK_TRY(json_string(json, "dtype", what));
  const std::optional<DType> parsed = parse_dtype(dtype);
  if (!parsed || !traits_of(*parsed).has_panels) {
    return corrupt(what, fmt::format("unknown dtype {}", escaped(dtype)));
  }
  const std::optional<ExpertParts> parts = lay_out_experts(shape, *parsed);
  bool agrees = parts.has_value();
  const auto compare = [&](std::string_view key, uint64_t expected) -> Result<void> {
    agrees = PENSTOCK_TRY(json_bytes(json, key, what)) == expected && agrees;
    return {};
  };
  const ExpertRecord record = parts ? parts->layers.front() : ExpertRecord{};
  PENSTOCK_TRY(compare("record_bytes", record.bytes));
  PENSTOCK_TRY(compare("gate_up_offset", 0));
  PENSTOCK_TRY(compare("gate_up_bytes", record.gate_up_bytes));
  PENSTOCK_TRY(compare("down_offset", record.down_offset));
  PENSTOCK_TRY(compare("down_bytes", record.down_bytes));
  if (!agrees)
    return corrupt(what, "the offsets and sizes of a record do not follow from its shape");
  return *parts;
}

Result<MatrixForm> form_of(const Json& json, std::string_view key, const std::string& what) {
  const Json* form = json_find(json, key);
  if (form == nullptr || !form->is_object()) {
    return corrupt(what, fmt::format("\"{}\" is missing or of the wrong type", key));
  }
  return parse_form(*form, fmt::format("{}: \"{}\"", what, key));
}

Result<RecordForms> parse_record(const Json& json, const std::string& what) {
  RecordForms forms;
  forms.is_fused = json_find(json, "gate_up") != nullptr;
  if (forms.is_fused) {
    forms.gate = forms.up = PENSTOCK_TRY(form_of(json, "gate_up", what));
  } else {
    forms.gate = PENSTOCK_TRY(form_of(json, "gate", what));
    forms.up = PENSTOCK_TRY(form_of(json, "up", what));
  }
  forms.down = PENSTOCK_TRY(form_of(json, "down", what));
  return forms;
}

Result<ExpertParts> parse_records(const Json& json, const ExpertShape& shape,
                                  const std::string& what) {
  const Json* records = json_find(json, "records");
  if (records == nullptr || !records->is_array() || std::ssize(*records) != shape.num_layers) {
    return corrupt(what, fmt::format("\"records\" is not a list of {} layers", shape.num_layers));
  }
  std::vector<RecordForms> forms;
  std::vector<uint64_t> stated;
  for (const Json& record : *records) {
    const std::string place = fmt::format("{}: record of layer {}", what, forms.size());
    if (!record.is_object()) return corrupt(place, "not an object");
    forms.push_back(PENSTOCK_TRY(parse_record(record, place)));
    stated.push_back(PENSTOCK_TRY(json_bytes(record, "record_bytes", place)));
  }
  const std::optional<ExpertParts> parts = lay_out_experts(shape, forms);
  if (!parts) return corrupt(what, "matrices of these shapes cannot lie as the records say");
  for (size_t layer = 0; layer < stated.size(); ++layer) {
    if (parts->layers[layer].bytes == stated[layer]) continue;
    return corrupt(what, fmt::format("a record of layer {} takes {} bytes, not {}", layer,
                                     parts->layers[layer].bytes, stated[layer]));
  }
  return *parts;
}

}  // namespace

uint64_t ExpertParts::largest_record() const {
  uint64_t largest = 0;
  for (const ExpertRecord& record : layers) largest = std::max(largest, record.bytes);
  return largest;
}

uint64_t ExpertParts::largest_part() const {
  uint64_t largest = 0;
  for (const ExpertRecord& record : layers) {
    largest = std::max({largest, record.gate_up_bytes, record.down_bytes});
  }
  return largest;
}

std::optional<DType> ExpertParts::one_dtype() const {
  if (layers.empty()) return std::nullopt;
  const MatrixForm& first = layers.front().forms.gate;
  for (const ExpertRecord& record : layers) {
    for (const MatrixForm* form : {&record.forms.gate, &record.forms.up, &record.forms.down}) {
      if (form->is_coded() || *form != first) return std::nullopt;
    }
  }
  return first.dtype;
}

bool ExpertParts::are_plain() const {
  return one_dtype().has_value() &&
         std::ranges::all_of(layers, [](const ExpertRecord& r) { return r.forms.is_fused; });
}

std::string ExpertParts::codings() const {
  std::map<std::string, uint64_t> bytes;
  for (const ExpertRecord& record : layers) {
    bytes[name_of(record.forms.gate)] += record.gate_up_bytes / 2;
    bytes[name_of(record.forms.up)] += record.gate_up_bytes / 2;
    bytes[name_of(record.forms.down)] += record.down_bytes;
  }
  std::vector<std::pair<std::string, uint64_t>> list(bytes.begin(), bytes.end());
  std::ranges::stable_sort(list, [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string names;
  for (const auto& [name, size] : list) names += (names.empty() ? "" : ", ") + name;
  return names;
}

std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape,
                                           const std::vector<RecordForms>& layers) {
  if (!are_counts(shape) || std::ssize(layers) != shape.num_layers) return std::nullopt;
  ExpertParts parts{shape, {}};
  uint64_t end = 0;
  for (const RecordForms& forms : layers) {
    std::optional<ExpertRecord> record = lay_out_record(shape, forms);
    if (!record) return std::nullopt;
    record->first = end;
    const auto bytes = checked_multiply(static_cast<uint64_t>(shape.num_experts), record->bytes);
    const auto after = bytes ? checked_add(end, *bytes) : std::nullopt;
    if (!after || *after > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    end = *after;
    parts.layers.push_back(*std::move(record));
  }
  return parts;
}

std::optional<ExpertParts> lay_out_experts(const ExpertShape& shape, DType dtype) {
  if (!are_counts(shape)) return std::nullopt;
  const MatrixForm form = panel_form(dtype);
  const RecordForms forms = {.is_fused = true, .gate = form, .up = form, .down = form};
  return lay_out_experts(shape, std::vector(static_cast<size_t>(shape.num_layers), forms));
}

std::string experts_text(const ExpertParts& parts) {
  if (parts.are_plain()) return to_text(plain_json(parts));
  // One layer a line: the manifest is also read by people.
  std::string out = fmt::format(
      "{{\"layers\": {}, \"experts\": {}, \"hidden_size\": {}, \"intermediate_size\": {}, "
      "\"records\": [",
      parts.num_layers, parts.num_experts, parts.hidden_size, parts.intermediate_size);
  for (size_t i = 0; i < parts.layers.size(); ++i) {
    out += (i == 0 ? "\n " : ",\n ") + to_text(record_json(parts.layers[i]));
  }
  return out + "\n]}";
}

Result<ExpertParts> parse_experts(const Json& json, int version, const std::string& what) {
  const ExpertShape shape = PENSTOCK_TRY(parse_expert_shape(json, what));
  const bool is_plain = version == 1 || json_find(json, "records") == nullptr;
  return is_plain ? parse_plain(json, shape, what) : parse_records(json, shape, what);
}

Json form_json(const MatrixForm& form) {
  Json json = Json::object();
  if (form.is_coded()) json["coding"] = exact_name(form.coding);
  else json["dtype"] = std::string(name_of(form.dtype));
  json["layout"] = std::string(name_of(form.layout));
  return json;
}

Result<MatrixForm> parse_form(const Json& json, const std::string& what) {
  const std::string name = PENSTOCK_TRY(json_string(json, "layout", what));
  const std::optional<MatrixLayout> layout = parse_layout(name);
  if (!layout) return corrupt(what, fmt::format("unknown layout {}", escaped(name)));
  MatrixForm form{.layout = *layout};
  if (form.is_coded()) {
    const std::string coding = PENSTOCK_TRY(json_string(json, "coding", what));
    const std::optional<Coding> parsed = parse_coding(coding);
    if (!parsed) return corrupt(what, fmt::format("unknown coding {}", escaped(coding)));
    form.coding = *parsed;
    return form;
  }
  const std::string dtype = PENSTOCK_TRY(json_string(json, "dtype", what));
  const std::optional<DType> parsed = parse_dtype(dtype);
  if (!parsed || !traits_of(*parsed).has_panels) {
    return corrupt(what, fmt::format("unknown dtype {}", escaped(dtype)));
  }
  form.dtype = *parsed;
  return form;
}

}  // namespace penstock
