#include "pack/describe_source.h"

#include <fmt/format.h>

#include <map>

#include "base/byte_text.h"
#include "format/safetensors.h"
#include "pack/description_writer.h"
#include "source/model_source.h"
#include "source/source_experts.h"

namespace penstock {
namespace {

constexpr const char* kPartNames[kNumExpertParts] = {"gate", "up", "down"};

// One line of the list: a resident tensor, or one part of all experts of a layer.
struct Entry {
  std::string name;
  std::string coding;
  std::vector<int64_t> shape;
  uint64_t bytes;
};

std::vector<Entry> entries_of(const ModelSource& source) {
  std::vector<Entry> entries;
  for (const SourceTensor& tensor : source.tensors()) {
    const Coding& coding = tensor.ranges.front().matrix.coding;
    entries.push_back({tensor.name,
                       name_of(coding),
                       {tensor.rows, tensor.columns},
                       stored_bytes(coding, tensor.rows, tensor.columns)});
  }
  const int64_t experts = source.config().num_experts;
  for (size_t layer = 0; layer < source.experts().size(); ++layer) {
    for (int part = 0; part < kNumExpertParts; ++part) {
      const StoredMatrix& first = source.experts()[layer][static_cast<ExpertPart>(part)].first;
      entries.push_back(
          {fmt::format("layers.{}.mlp.experts.{}", layer, kPartNames[part]),
           name_of(first.coding),
           {experts, first.rows, first.columns},
           static_cast<uint64_t>(experts) * stored_bytes(first.coding, first.rows, first.columns)});
    }
  }
  return entries;
}

void write_codings(DescriptionWriter& out, const std::vector<Entry>& entries) {
  std::map<std::string, uint64_t> codings;
  uint64_t bytes = 0;
  for (const Entry& entry : entries) {
    codings[entry.coding] += entry.bytes;
    bytes += entry.bytes;
  }
  Json json = Json::object();
  std::string text;
  for (const auto& [coding, coded] : codings) {
    json[coding] = coded;
    text += fmt::format("{}{} of {}", text.empty() ? "" : ", ", format_bytes(coded), coding);
  }
  out.bytes("bytes", "weights", bytes);
  out.fact("codings", "coded as", std::move(json), text);
}

void write_entries(DescriptionWriter& out, const std::vector<Entry>& entries) {
  Json list = Json::array();
  out.text() += "\n";
  for (const Entry& entry : entries) {
    list.push_back({{"name", entry.name},
                    {"coding", entry.coding},
                    {"shape", entry.shape},
                    {"bytes", entry.bytes}});
    out.text() += fmt::format("{:<48} {:<22} {:<20} {:>10}\n", entry.name, entry.coding,
                              shape_text(entry.shape), format_bytes(entry.bytes));
  }
  out.json()["tensors"] = std::move(list);
}

}  // namespace

Result<Description> describe_source(Storage& storage, const std::string& path,
                                    DescribeDetail detail) {
  const ModelSource source = PENSTOCK_TRY(ModelSource::open(storage, path));
  const std::vector<Entry> entries = entries_of(source);
  DescriptionWriter out;
  const std::string kind = fmt::format("{} checkpoint", name_of(source.format()));
  out.fact("kind", "kind", kind, kind);
  write_config(out, source.config());
  write_parameters(out, source.config(), 0);
  write_codings(out, entries);
  Json texts = Json::array();
  std::string names;
  for (const SourceText& text : source.texts()) {
    texts.push_back(text.name);
    names += (names.empty() ? "" : ", ") + text.name;
  }
  out.fact("texts", "texts", std::move(texts), names.empty() ? "none" : names);
  Json files = Json::array();
  for (const CheckpointFile& file : source.files()) {
    files.push_back({{"name", file.path}, {"bytes", file.stat.bytes}});
  }
  out.fact("shards", "files", std::move(files), fmt::format("{}", source.files().size()));
  const auto layers = static_cast<int>(source.experts().size());
  const Result<void> obstacle = check_codings(source, layers);
  out.fact("can_be_packed", "can be packed", obstacle.has_value(),
           obstacle ? "yes, every code as it is" : "no: " + obstacle.error().message);
  if (!obstacle) out.json()["obstacle"] = obstacle.error().message;
  if (detail == DescribeDetail::kTensors) write_entries(out, entries);
  return out.finish();
}

}  // namespace penstock
