// Sources of several files of weights, for tests of packs that consume them.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "pack/pack.h"
#include "pack/test_checkpoint.h"

namespace penstock::test {

// A folder in shards, cut as hubs cut them: by the order of tensors, in the middle of layers.
inline Files in_shards(Files files, size_t num_shards) {
  const std::string whole = files.at("model.safetensors");
  files.erase("model.safetensors");
  SimStorage disk;
  store(disk, "/whole", whole);
  const SafetensorsFile file = *SafetensorsFile::open(disk, "/whole");
  const std::vector<TensorInfo>& tensors = file.tensors();
  Json map;
  for (size_t shard = 0; shard < num_shards; ++shard) {
    const size_t begin = tensors.size() * shard / num_shards;
    const size_t end = tensors.size() * (shard + 1) / num_shards;
    const std::string name = "model-" + std::to_string(shard) + ".safetensors";
    std::vector<SafetensorsWriter::Plan> plan;
    for (size_t i = begin; i < end; ++i) {
      plan.push_back({tensors[i].name, tensors[i].type, tensors[i].shape});
      map[tensors[i].name] = name;
    }
    auto writer = *SafetensorsWriter::create(disk, "/shard", plan, {});
    for (size_t i = begin; i < end; ++i) {
      const auto bytes = std::as_bytes(std::span(whole));
      writer.append(bytes.subspan(tensors[i].offset, tensors[i].bytes)).value();
    }
    writer.finish().value();
    files[name] = *read_text(disk, "/shard", uint64_t{1} << 30);
  }
  files["model.safetensors.index.json"] = to_text(Json{{"weight_map", map}});
  return files;
}

struct Source {
  const char* name;
  Files files;
  std::string path;  // of SOURCE
  std::set<std::string> weights = {};
};

inline Source folder_of(const char* name, Files files, size_t num_shards) {
  Source source{name, in_shards(std::move(files), num_shards), "/source"};
  for (const auto& [file, bytes] : source.files) {
    if (file.ends_with(".safetensors")) source.weights.insert(file);
  }
  return source;
}

inline Source floats() {
  return folder_of("floats", tiny_checkpoint(), 4);
}

// Codes and their scales in different files, too.
inline Source coded(const char* name) {
  return folder_of(name, load_all(posix_storage(), data_path(std::string("sources/") + name)), 5);
}

inline Source split_gguf() {
  Source source{"gguf", load_all(posix_storage(), data_path("sources/gguf-old")),
                "/source/m-00001-of-00003.gguf"};
  for (const auto& [name, bytes] : source.files) {
    if (name.ends_with(".gguf")) source.weights.insert(name);
  }
  return source;
}

inline PackOptions options_of(const Source& source) {
  PackOptions options;
  options.source = source.path;
  options.target = "/out/model";
  if (std::string_view(source.name) == "floats") options.experts = DType::kQ4;
  options.sync_bytes = 40000;
  return options;
}

inline PackOptions in_place(const Source& source) {
  PackOptions options = options_of(source);
  options.in_place = [](const InPlaceFacts&) { return Result<void>(); };
  return options;
}

// What a plain pack makes of it.
inline const Files& expected(const Source& source) {
  static std::map<std::string, Files> made;
  Files& files = made[source.name];
  if (files.empty()) {
    SimStorage disk;
    store_all(disk, "/source", source.files);
    pack(disk, options_of(source)).value();
    files = load_all(disk, "/out/model");
  }
  return files;
}

inline Files without_weights(const Source& source) {
  Files files = source.files;
  for (const std::string& name : source.weights) files.erase(name);
  return files;
}

inline void expect_done(SimStorage& disk, const Source& source) {
  EXPECT_EQ(load_all(disk, "/out/model"), expected(source));
  EXPECT_EQ(load_all(disk, "/source"), without_weights(source)) << "texts are left alone";
  EXPECT_EQ(*disk.list("/out"), std::vector<std::string>{"model"}) << "nothing else is left";
}

// Ends it before any file is gone.
inline void begin_only(SimStorage& disk, const Source& source) {
  std::stop_source stop;
  int seen = 0;
  const auto stop_early = [&](const PackProgress&) {
    if (++seen == 3) stop.request_stop();
  };
  EXPECT_FALSE(pack_model(disk, in_place(source), stop_early, stop.get_token()).has_value());
}

// Ends it when `gone` files are.
inline void end_after(SimStorage& disk, const Source& source, size_t gone) {
  std::stop_source stop;
  const auto stop_then = [&](const PackProgress& now) {
    if (now.note.find("removed") != std::string::npos && --gone == 0) stop.request_stop();
  };
  const Result<PackReport> packed = pack_model(disk, in_place(source), stop_then, stop.get_token());
  ASSERT_FALSE(packed.has_value());
  ASSERT_EQ(packed.error().code, ErrorCode::kCancelled) << packed.error().message;
}

}  // namespace penstock::test
