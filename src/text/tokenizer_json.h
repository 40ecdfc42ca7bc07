// Reads a Hugging Face tokenizer.json, and the files beside it, into the tables that the tokenizer
// works with.
//
// Every part of the file that changes ids is either understood or refused; what only concerns
// batches (truncation, padding) or offsets (trim_offsets) is ignored.
//
// Errors  kCorrupt: not JSON, a key missing or of the wrong type, an id doubled or out of range, a
//         merge of tokens that are not in the vocabulary. kUnsupported: a well-formed file for
//         another kind of tokenizer. The message names the key.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "text/added_token_files.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/vocabulary.h"

namespace penstock {

struct TokenizerTables {
  Vocabulary vocabulary;  // ordinary and added tokens
  BpeMerges merges;
  AddedTokens added;       // by the texts that they stand for
  AddedTokens raw;         // those that are looked for in the text as it is,
  AddedTokens normalized;  // those in what is left of it, normalised,
  AddedTokens any;         // and both, for a look at what might be found
  SplitPattern pattern;
  bool is_nfc;
  std::vector<std::string> notes;  // what a person should know of the files
};

// embedding_rows: every id must be below it, but an added token that is not is left out and noted;
// 0 if unknown.
Result<TokenizerTables> read_tokenizer(const TokenizerFiles& files, int64_t embedding_rows);

}  // namespace penstock
