// The tokens that end an answer: all that a model's files name, because no file is to be trusted to
// name them all. Base models name the end of a document alone; some checkpoints lack a file.
//
//   generation_config.json   eos_token_id, a number or a list
//   config.json              the same, also under text_config
//   tokenizer_config.json    eos_token, a text or an object with `content`
//
// In a chat the token with which the template ends a turn comes on top: dialogue/turn_end.h.
//
// Threads  plain function
// Errors   none: what cannot be used is left out, and a note says so
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace penstock {

struct StopTokenSources {
  const Json& generation_config;  // each may be null
  const Json& config;
  const Json& tokenizer_config;
  const Tokenizer* tokenizer = nullptr;  // may be absent
  int64_t vocab_size = 0;
};

struct StopTokens {
  std::vector<TokenId> ids;  // each once; empty: nothing but a limit ends an answer
  std::vector<std::string> notes;
};

StopTokens stop_tokens(const StopTokenSources& sources);

}  // namespace penstock
