#include "pack/describe.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <memory>
#include <span>
#include <string_view>

#include "base/byte_text.h"
#include "format/checkpoint.h"
#include "format/container.h"
#include "format/quantisation.h"
#include "format/text.h"
#include "model/tensors.h"
#include "pack/describe_source.h"
#include "pack/description_writer.h"
#include "pack/plan.h"
#include "source/model_source.h"

namespace penstock {
namespace {

void write_container_tensors(DescriptionWriter& out, const Container& model) {
  Json tensors = Json::array();
  out.text() += "\n";
  for (const ResidentTensor& tensor : model.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", name_of(tensor.form)},
                       {"layout", std::string(name_of(tensor.form.layout))},
                       {"shape", {tensor.rows, tensor.columns}},
                       {"offset", tensor.offset},
                       {"bytes", tensor.bytes}});
    out.text() += fmt::format(
        "{:<48} {:<5}{:<16} {:>10}\n", tensor.name, name_of(tensor.form) + " ",
        fmt::format("[{}, {}]", tensor.rows, tensor.columns), format_bytes(tensor.bytes));
  }
  out.json()["tensors"] = std::move(tensors);
}

void write_experts(DescriptionWriter& out, const ExpertParts& parts, const ModelConfig& config) {
  const int64_t chosen = config.num_expert_layers() * config.num_experts_per_tok;
  const uint64_t mean = parts.file_bytes() / parts.num_records();
  const uint64_t token_bytes = mean * static_cast<uint64_t>(chosen);
  out.json()["experts"] = {{"dtype", parts.codings()},
                           {"records", parts.num_records()},
                           {"record_bytes", parts.largest_record()},
                           {"bytes", parts.file_bytes()},
                           {"bytes_per_token", token_bytes}};
  out.line(
      "expert weights",
      fmt::format("{} as {}: {} records of {}{}", format_bytes(parts.file_bytes()), parts.codings(),
                  parts.num_records(), mean == parts.largest_record() ? "" : "at most ",
                  format_bytes(parts.largest_record())));
  out.line("one token", fmt::format("{} of experts", format_bytes(token_bytes)));
}

void write_files(DescriptionWriter& out, const Manifest& manifest) {
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
  DescriptionWriter out;
  out.fact("kind", "kind", "penstock model",
           fmt::format("penstock model, format version {}", manifest.version()));
  out.json()["format_version"] = manifest.version();
  out.fact("id", "id", model.id_text(), model.id_text());
  out.json()["model_id"] = hex_text(model.model_id());
  write_config(out, config);
  write_parameters(out, config, 0);
  out.json()["options"] = {{"experts", manifest.experts_option},
                           {"resident", manifest.resident_option}};
  if (manifest.experts_option.starts_with("mixed")) {
    out.fact("mixture", "experts chosen as", manifest.experts_option, manifest.experts_option);
  }
  if (!manifest.quantiser_option.empty()) {
    out.fact("quantiser", "quantised by", manifest.quantiser_option, manifest.quantiser_option);
  }
  out.bytes("resident_bytes", "resident weights", model.resident_bytes());
  write_experts(out, model.experts(), config);
  write_files(out, manifest);
  if (detail == DescribeDetail::kTensors) write_container_tensors(out, model);
  return out.finish();
}

void write_source_tensors(DescriptionWriter& out, const std::vector<const TensorInfo*>& tensors) {
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

void write_types(DescriptionWriter& out, const std::vector<const TensorInfo*>& tensors) {
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
  DescriptionWriter out;
  out.fact("kind", "kind", "Hugging Face checkpoint", "Hugging Face checkpoint");
  const Result<ModelConfig> config =
      parse_model_config(checkpoint.config(), checkpoint.path_of("config.json"));
  const Result<Quantisation> quantisation =
      read_quantisation(checkpoint.config(), checkpoint.path_of("config.json"));
  std::string obstacle = quantisation ? "" : quantisation.error().message;
  if (config) write_config(out, *config);
  if (!obstacle.empty()) {
    // Its tensors would only tell the same in other words.
  } else if (config) {
    const Result<PackPlan> plan = PackPlan::make(checkpoint, *config, {});
    if (plan) {
      write_parameters(out, plan->config(), plan->kept_elements());
      for (const std::string& note : plan->notes()) out.line("note", note);
      out.json()["source_notes"] = plan->notes();
      out.fact("vision_parameters", "vision tower", plan->vision_elements(),
               count_text(plan->vision_elements()));
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
  DescriptionWriter out;
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

// Whether the first bytes are those of a GGUF file.
Result<bool> is_gguf(Storage& storage, const std::string& path) {
  const std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage.open(path, OpenMode::kRead));
  std::array<char, 4> magic{};
  const uint64_t read = PENSTOCK_TRY(file->read_some(0, std::as_writable_bytes(std::span(magic))));
  return read == magic.size() && std::string_view(magic.data(), magic.size()) == "GGUF";
}

// Whether the weights of a folder are coded in a way that we read (FP8, MLX). What we do not read,
// or cannot make out, is described as a checkpoint with the reason.
bool is_quantised_folder(Storage& storage, const std::string& config_path) {
  const Result<std::string> text = read_text(storage, config_path, 1 << 20);
  if (!text) return false;
  const Result<Json> config = parse_json(*text, config_path);
  if (!config || !config->is_object()) return false;
  const Result<Quantisation> quantisation = read_quantisation(*config, config_path);
  return quantisation && quantisation->kind != Quantisation::Kind::kNone;
}

}  // namespace

Result<Description> describe(Storage& storage, const std::string& path, DescribeDetail detail) {
  if (!PENSTOCK_TRY(storage.is_directory(path))) {
    if (PENSTOCK_TRY(is_gguf(storage, path))) return describe_source(storage, path, detail);
    return describe_safetensors(storage, path);
  }
  const Result<FileStat> manifest = storage.stat(path + "/" + std::string(kManifestName));
  if (manifest) return describe_container(storage, path, detail);
  if (manifest.error().code != ErrorCode::kNotFound) return manifest.error();
  const Result<FileStat> config = storage.stat(path + "/config.json");
  if (config && is_quantised_folder(storage, path + "/config.json")) {
    return describe_source(storage, path, detail);
  }
  if (config) {
    const Result<ModelSource> source = ModelSource::open(storage, path);
    if (source && source->format() == SourceFormat::kMlx) {
      return describe_source(storage, path, detail);
    }
    return describe_checkpoint(storage, path, detail);
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: neither a penstock model ({}) nor a Hugging Face folder "
                           "(config.json)",
                           path, kManifestName)};
}

}  // namespace penstock
