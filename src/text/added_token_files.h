// The added tokens of a checkpoint, from all the files that may name them.
//
// tokenizer.json has most. tokenizer_config.json has them again in "added_tokens_decoder", where
// their flags win, and names the special ones ("eos_token", ...), which are added tokens even if no
// list has them. added_tokens.json is what older programs wrote; it counts where there is no
// "added_tokens_decoder". So does the reference implementation read them.
//
// Errors  kCorrupt, with file and key: not JSON, wrong types, an id or a text given twice.
// Source  PreTrainedTokenizerBase of Hugging Face transformers; behaviour measured on tokenizers
//         0.23.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/added_tokens.h"

namespace penstock {

// The files' texts.
struct TokenizerFiles {
  std::string_view tokenizer_json;
  std::string_view what;  // names tokenizer.json in errors
  std::optional<std::string_view> tokenizer_config = std::nullopt;  // tokenizer_config.json
  std::optional<std::string_view> added_tokens = std::nullopt;      // added_tokens.json
};

// No published vocabulary has a tenth of this; it keeps a file from asking for gigabytes.
inline constexpr int64_t kTokenIdMax = (1 << 23) - 1;

// `root` is the parsed tokenizer.json. Ids are distinct and at most kTokenIdMax, texts distinct.
Result<std::vector<AddedToken>> read_added_tokens(const Json& root, const TokenizerFiles& files);

// A token's text for an error message: escaped, and not longer than a line.
std::string in_quotes(std::string_view text);

}  // namespace penstock
