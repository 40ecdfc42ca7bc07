// A model as it lies on disk, opened and checked, before anything large is allocated: what `plan`
// needs, and what an engine loads from.
//
// A folder that penstock packed, or a checkpoint as people have it, which is run in place: a GGUF
// file (the first of its shards), an MLX folder, a Hugging Face folder in BF16, F16, F32 or FP8.
//
// Memory   names, places and texts; no weights
// Errors   open_model(): kNotFound, kCorrupt, kUnsupported, naming file, tensor or key
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "experts/expert_source.h"
#include "format/container.h"
#include "io/storage.h"
#include "model/config.h"
#include "source/model_source.h"
#include "source/source_weights.h"
#include "text/model_texts.h"

namespace penstock {

struct ModelFiles {
  // One of the two.
  std::optional<Container> packed;
  std::unique_ptr<ModelSource> source;

  std::optional<SourceWeights> source_weights;  // of `source`
  ModelConfig config;
  ModelTexts texts;
  Json generation_config = Json::object();  // {}: there is none
  // The same experts in fewer bits, where the options name them (engine/low_bit_copy.h).
  std::optional<Container> low_bit_copy;

  const std::string& path() const;
  std::string path_of(std::string_view name) const;  // of a text, for messages
  // A text under the name that it has in a Hugging Face folder; the model may lack it. Of a
  // checkpoint not tokenizer.json, which is long and was used.
  Result<std::optional<std::string>> optional_text(std::string_view name) const;
  Hash128 id() const;  // names the exact content of a packed model, the files of another one
  std::string id_text() const;

  bool has_codes() const;                              // some matrices lie in a file's own codes
  uint64_t resident_bytes() const;                     // in memory
  uint64_t tensor_bytes(std::string_view name) const;  // of a resident one; 0: there is none
  uint64_t expert_bytes() const;                       // of all experts, in the files
  std::optional<DType> experts_dtype() const;          // of panels, where all are of one type
  std::string experts_coding() const;                  // "q4"; "Q4_K, Q6_K"
  std::string resident_coding() const;                 // "as trained", "q8"; "as in the file"
  std::vector<std::string> expert_paths() const;

  // Of a slot that takes any expert, and of the checksums of all.
  struct ExpertSizes {
    uint64_t slot_bytes = 0;
    uint64_t checksum_bytes = 0;
    uint64_t part_bytes = 0;    // of the largest part, which is read at once
    uint64_t layout_bytes = 0;  // that a thread needs to lay a part out
  };
  Result<ExpertSizes> expert_sizes(int num_layers) const;
  Result<ExpertSource> open_experts(Storage& storage, int num_layers) const;
};

// A folder with what other programs put into one, or a file that says it is GGUF: not packed.
Result<bool> is_checkpoint(Storage& storage, const std::string& path);

// `chat_template_file`: in place of the model's own template; empty: that.
Result<ModelFiles> open_model(Storage& storage, const std::string& path,
                              const std::string& chat_template_file = "");

}  // namespace penstock
