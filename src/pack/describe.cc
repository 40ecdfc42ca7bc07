#include "pack/describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/byte_text.h"
#include "format/checkpoint.h"
#include "format/container.h"
#include "format/text.h"
#include "model/config.h"
#include "pack/plan.h"

namespace penstock {
namespace {

std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} billion", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f} million", value / 1e6);
  return fmt::format("{}", count);
}

// Facts go into the JSON and the text side by side.
class Writer {
 public:
  void fact(const char* key, const char* label, Json value, const std::string& text) {
    json_[key] = std::move(value);
    line(label, text);
  }
  void line(const char* label, const std::string& text) {
    text_ += fmt::format("{:<18}{}\n", label, text);
  }
  void bytes(const char* key, const char* label, uint64_t value) {
    fact(key, label, value, format_bytes(value));
  }
  Json& json() { return json_; }
  std::string& text() { return text_; }
  Description finish() { return {std::move(json_), std::move(text_)}; }

 private:
  Json json_ = Json::object();
  std::string text_;
};

void write_config(Writer& out, const ModelConfig& config) {
  const auto full =
      std::count(config.layer_types.begin(), config.layer_types.end(), LayerType::kFullAttention);
  out.fact("model_type", "architecture", config.model_type, config.model_type);
  out.fact("num_hidden_layers", "layers", config.num_hidden_layers,
           fmt::format("{} ({} with full attention)", config.num_hidden_layers, full));
  out.json()["num_full_attention_layers"] = full;
  out.fact("hidden_size", "hidden size", config.hidden_size, fmt::format("{}", config.hidden_size));
  out.fact("vocab_size", "vocabulary", config.vocab_size, fmt::format("{}", config.vocab_size));
  out.fact(
      "max_position_embeddings", "context", config.max_position_embeddings,
      fmt::format("{} tokens{}", config.max_position_embeddings, config.rope.yarn ? ", YaRN" : ""));
  out.json()["num_experts"] = config.num_experts;
  out.json()["num_experts_per_tok"] = config.num_experts_per_tok;
  out.line("experts", fmt::format("{} in each layer, {} for a token, width {}", config.num_experts,
                                  config.num_experts_per_tok, config.moe_intermediate_size));
}

struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;
  int64_t prediction = 0;  // of the prediction block, beside the total
};

void write_parameters(Writer& out, const ParameterCounts& counts) {
  out.json()["parameters"] = counts.total;
  out.json()["active_parameters"] = counts.active;
  out.line("parameters",
           fmt::format("{}, {} active", count_text(counts.total), count_text(counts.active)));
  out.fact("mtp_parameters", "prediction block", counts.prediction, count_text(counts.prediction));
}

ParameterCounts count_parameters(const Container& model, const ModelConfig& config) {
  int64_t resident = 0, prediction = 0;
  for (const ResidentTensor& tensor : model.tensors()) {
    (tensor.name.starts_with("mtp.") ? prediction : resident) += tensor.rows * tensor.columns;
  }
  const ExpertParts& parts = model.experts();
  const int64_t one_expert = 3 * parts.hidden_size * parts.intermediate_size;
  const int64_t unread = config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
  const int64_t layers = config.num_hidden_layers;
  return {resident + layers * parts.num_experts * one_expert,
          resident - unread + layers * config.num_experts_per_tok * one_expert,
          prediction + config.mtp_num_hidden_layers * parts.num_experts * one_expert};
}

void write_container_tensors(Writer& out, const Container& model) {
  Json tensors = Json::array();
  out.text() += "\n";
  for (const ResidentTensor& tensor : model.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", std::string(name_of(tensor.dtype))},
                       {"layout", tensor.panels ? "panels" : "plain"},
                       {"shape", {tensor.rows, tensor.columns}},
                       {"offset", tensor.offset},
                       {"bytes", tensor.bytes}});
    out.text() +=
        fmt::format("{:<48} {:<5}{:<16} {:>10}\n", tensor.name, name_of(tensor.dtype),
                    fmt::format("[{}, {}]", tensor.rows, tensor.columns), format_bytes(tensor.bytes));
  }
  out.json()["tensors"] = std::move(tensors);
}

void write_experts(Writer& out, const ExpertParts& parts, const ModelConfig& config) {
  const int64_t chosen = config.num_hidden_layers * config.num_experts_per_tok;
  const uint64_t token_bytes = parts.record_bytes * static_cast<uint64_t>(chosen);
  out.json()["experts"] = {{"dtype", std::string(name_of(parts.dtype))},
                           {"records", parts.num_records()},
                           {"record_bytes", parts.record_bytes},
                           {"bytes", parts.file_bytes()},
                           {"bytes_per_token", token_bytes}};
  out.line("expert weights",
           fmt::format("{} as {}: {} records of {}", format_bytes(parts.file_bytes()),
                       name_of(parts.dtype), parts.num_records(), format_bytes(parts.record_bytes)));
  out.line("one token", fmt::format("{} of experts", format_bytes(token_bytes)));
}

void write_files(Writer& out, const Manifest& manifest) {
  Json files = Json::array();
  std::string names;
  for (const ManifestFile& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"checksum", hex_text(file.sum)}});
    names += (names.empty() ? "" : ", ") + file.name;
  }
  out.fact("files", "other files", std::move(files), names);
  Json sources = Json::array();
  for (const SourceFile& file : manifest.sources) {
    sources.push_back({{"name", file.name}, {"bytes", file.bytes}});
  }
  const std::string first =
      manifest.sources.empty() ? "unknown" : escaped(manifest.sources[0].name);
  const size_t more = manifest.sources.size() > 1 ? manifest.sources.size() - 1 : 0;
  out.fact("sources", "packed from", std::move(sources),
           more == 0 ? first : fmt::format("{} and {} more", first, more));
}

Result<Description> describe_container(Storage& storage, const std::string& path,
                                       DescribeDetail detail) {
  const Container model = PENSTOCK_TRY(Container::open(storage, path));
  const ModelConfig config = PENSTOCK_TRY(
      parse_model_config(model.config(), model.path_of(kManifestName) + ": \"config\""));
  const Manifest& manifest = model.manifest();
  Writer out;
  out.fact("kind", "kind", "penstock model",
           fmt::format("penstock model, format version {}", kFormatVersion));
  out.json()["format_version"] = kFormatVersion;
  out.fact("id", "id", model.id_text(), model.id_text());
  out.json()["model_id"] = hex_text(model.model_id());
  write_config(out, config);
  write_parameters(out, count_parameters(model, config));
  out.json()["options"] = {{"experts", manifest.experts_option},
                           {"resident", manifest.resident_option}};
  out.bytes("resident_bytes", "resident weights", model.resident_bytes());
  write_experts(out, model.experts(), config);
  write_files(out, manifest);
  if (detail == DescribeDetail::kTensors) write_container_tensors(out, model);
  return out.finish();
}

void write_source_tensors(Writer& out, const std::vector<const TensorInfo*>& tensors) {
  Json list = Json::array();
  out.text() += "\n";
  for (const TensorInfo* info : tensors) {
    list.push_back({{"name", info->name},
                    {"dtype", info->type},
                    {"shape", info->shape},
                    {"offset", info->offset},
                    {"bytes", info->bytes}});
    out.text() += fmt::format("{:<64} {:<8} {:<20} {:>10}\n", escaped(info->name), info->type,
                              shape_text(info->shape), format_bytes(info->bytes));
  }
  out.json()["tensors"] = std::move(list);
}

void write_types(Writer& out, const std::vector<const TensorInfo*>& tensors) {
  struct Sum {
    uint64_t count = 0, bytes = 0;
  };
  std::map<std::string, Sum> types;
  uint64_t bytes = 0;
  for (const TensorInfo* info : tensors) {
    types[info->type].count += 1;
    types[info->type].bytes += info->bytes;
    bytes += info->bytes;
  }
  Json json = Json::object();
  std::string text;
  for (const auto& [type, sum] : types) {
    json[type] = {{"tensors", sum.count}, {"bytes", sum.bytes}};
    text += fmt::format("{}{} in {} of {}", text.empty() ? "" : ", ", sum.count, type,
                        format_bytes(sum.bytes));
  }
  out.json()["num_tensors"] = tensors.size();
  out.bytes("bytes", "weights", bytes);
  out.fact("dtypes", "tensors", std::move(json), text);
}

Result<Description> describe_checkpoint(Storage& storage, const std::string& path,
                                        DescribeDetail detail) {
  const Checkpoint checkpoint = PENSTOCK_TRY(Checkpoint::open(storage, path));
  std::vector<const TensorInfo*> tensors;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) tensors.push_back(&tensor.info);
  Writer out;
  out.fact("kind", "kind", "Hugging Face checkpoint", "Hugging Face checkpoint");
  const Result<ModelConfig> config =
      parse_model_config(checkpoint.config(), checkpoint.path_of("config.json"));
  std::string obstacle;
  if (config) {
    write_config(out, *config);
    const Result<PackPlan> plan = PackPlan::make(checkpoint, *config, {});
    if (plan) {
      const PackPlan::Parameters& count = plan->parameters();
      write_parameters(out, {count.resident + count.experts, count.active, count.mtp});
      out.fact("vision_parameters", "vision tower", count.vision, count_text(count.vision));
    } else {
      obstacle = plan.error().message;
    }
  } else {
    obstacle = config.error().message;
  }
  write_types(out, tensors);
  Json shards = Json::array();
  for (const CheckpointShard& shard : checkpoint.shards()) {
    shards.push_back({{"name", shard.name}, {"bytes", shard.stat.bytes}});
  }
  out.fact("shards", "files", std::move(shards), fmt::format("{}", checkpoint.shards().size()));
  out.fact("can_be_packed", "can be packed", obstacle.empty(),
           obstacle.empty() ? "yes" : "no: " + obstacle);
  if (!obstacle.empty()) out.json()["obstacle"] = obstacle;
  if (detail == DescribeDetail::kTensors) write_source_tensors(out, tensors);
  return out.finish();
}

Result<Description> describe_safetensors(Storage& storage, const std::string& path) {
  const SafetensorsFile file = PENSTOCK_TRY(SafetensorsFile::open(storage, path));
  std::vector<const TensorInfo*> tensors;
  for (const TensorInfo& info : file.tensors()) tensors.push_back(&info);
  Writer out;
  out.fact("kind", "kind", "safetensors file", "safetensors file");
  Json metadata = Json::object();
  for (const auto& [key, value] : file.header().metadata) {
    metadata[key] = value;
    out.line("metadata", escaped(key) + ": " + escaped(value));
  }
  out.json()["metadata"] = std::move(metadata);
  write_types(out, tensors);
  write_source_tensors(out, tensors);
  return out.finish();
}

}  // namespace

Result<Description> describe(Storage& storage, const std::string& path, DescribeDetail detail) {
  if (!PENSTOCK_TRY(storage.is_directory(path))) return describe_safetensors(storage, path);
  const Result<FileStat> manifest = storage.stat(path + "/" + std::string(kManifestName));
  if (manifest) return describe_container(storage, path, detail);
  if (manifest.error().code != ErrorCode::kNotFound) return manifest.error();
  const Result<FileStat> config = storage.stat(path + "/config.json");
  if (config) return describe_checkpoint(storage, path, detail);
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: neither a penstock model ({}) nor a Hugging Face folder "
                           "(config.json)",
                           path, kManifestName)};
}

}  // namespace penstock
