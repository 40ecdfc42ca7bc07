// Whether the text files of a model folder are what an engine will need: asked before hours of
// packing, and by whoever looks at a folder.
//
// What makes a model unusable is an error; what only takes something away (no template, so no chat),
// or what a flag can overrule, is a note.
//
// Memory   a tokenizer, for the time of the call
// Errors   kNotFound, kCorrupt, kUnsupported, kIo, naming the file
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"
#include "model/config.h"
#include "source/model_source.h"

namespace penstock {

// Of Hugging Face folders or packed models: each file is the first folder's that has it.
// `manifest_config`: for a packed model that has no config.json.
Result<std::vector<std::string>> judge_texts(Storage& storage, std::span<const std::string> folders,
                                             const ModelConfig& config,
                                             const Json& manifest_config);

// Of a checkpoint that is run in place or packed: the texts that it came with.
Result<std::vector<std::string>> judge_texts(const ModelSource& source);

}  // namespace penstock
