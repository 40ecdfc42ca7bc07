// The families of models that we have: one line each in registry.cc.
//
// A family is a file (or a few) under families/ that says how its config.json is read, which
// tensors it has and what they are called in a checkpoint, and how a token passes through it.
// Nothing outside of families/ knows a family's name or its tensors.
//
// Threads  any; constant data
// Errors   bind_model(): kCorrupt naming the tensor
// See also docs/adding_a_model.md
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "model/config_reader.h"
#include "model/model.h"
#include "model/tensors.h"
#include "model/weights.h"

namespace penstock {

struct Family {
  std::string_view name;                            // as people say it: in errors and documents
  std::span<const std::string_view> model_types;    // of config.json or its text part
  std::span<const std::string_view> text_prefixes;  // of tensors in a checkpoint, best first

  // Ranges are checked here; the reader notices which keys nobody asked for. Sets all but what
  // every family has in common (tie_word_embeddings).
  Result<ModelConfig> (*read_config)(ConfigReader& config, std::string_view model_type);
  Json (*write_config)(const ModelConfig& config);
  TensorList (*list_tensors)(const ModelConfig& config, std::string_view prefix);
  Result<std::unique_ptr<Model>> (*bind)(const ModelConfig& config, WeightBinder& weights,
                                         RopeTable rope);
};

std::span<const Family* const> families();

// By the model_type that a ModelConfig has.
const Family& family_of(const ModelConfig& config);

// With the names that a checkpoint of this prefix uses; without one the first of the family's.
TensorList list_tensors(const ModelConfig& config);
TensorList list_tensors(const ModelConfig& config, std::string_view prefix);

// The graph over a model's weights, every one of which it must want. What these are views of
// outlives the model, as do the tables of `rope`.
Result<std::unique_ptr<Model>> bind_model(const ModelConfig& config,
                                          const ResidentWeights& resident, RopeTable rope);

}  // namespace penstock
