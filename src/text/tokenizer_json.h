// Reads a Hugging Face tokenizer.json into the tables that the tokenizer works with.
//
// Every part of the file that changes ids is either understood or refused; what only concerns
// batches (truncation, padding) or offsets (trim_offsets) is ignored.
//
// Errors  kCorrupt: not JSON, a key missing or of the wrong type, an id doubled or out of range, a
//         merge of tokens that are not in the vocabulary. kUnsupported: a well-formed file for
//         another kind of tokenizer. The message names the key.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/vocabulary.h"

namespace penstock {

struct TokenizerTables {
  Vocabulary vocabulary;  // ordinary and added tokens
  BpeMerges merges;
  AddedTokens added;
  SplitPattern pattern;
  bool is_nfc;
};

// `what` names the file in errors. embedding_rows: every id must be below it; 0 if unknown.
Result<TokenizerTables> read_tokenizer_json(std::string_view json, std::string_view what,
                                            int64_t embedding_rows);

}  // namespace penstock
