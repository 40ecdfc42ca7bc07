// Grammars that answers are held to, compiled once and kept for requests that ask for the same: an
// agent sends its tools with every turn.
//
// Threads  any
// Memory   the tree of the vocabulary; kKeptMax grammars
// Errors   kInvalidArgument and kUnsupported with the place and keyword, of the rooms below
// See also grammar/grammar.h, grammar/matcher.h
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/token_trie.h"
#include "grammar/tool_grammar.h"
#include "text/model_texts.h"
#include "text/token_mask.h"

namespace penstock {

class Constraints {
 public:
  // The texts outlive it.
  Constraints(const ModelTexts& texts, std::vector<TokenId> stop_ids);

  // How the model writes calls.
  ToolForm form() const { return form_; }

  struct Made {
    std::function<std::unique_ptr<TokenMask>()> make;  // choices of one request share a matcher
    std::vector<std::string> left_out;                 // keywords of tools that are not held to
  };
  Result<Made> of_schema(const Json& schema);  // true: any object
  Result<Made> of_gbnf(const std::string& text);
  Result<Made> of_tools(const Json& tools, const ToolChoice& choice, bool begins_in_reasoning);

 private:
  struct Compiled {
    std::string key;
    std::shared_ptr<const Grammar> grammar;  // shared with the requests that are held to it
    std::vector<std::string> left_out;
  };
  using Compile = std::function<Result<Compiled>()>;

  Result<Made> find_or_compile(const std::string& key, const Compile& compile);

  const Tokenizer& tokenizer_;
  const std::vector<TokenId> stop_ids_;
  const std::shared_ptr<const TokenTrie> trie_;  // shared with the masks
  const ToolForm form_;
  std::mutex mutex_;
  std::list<Compiled> kept_;  // guarded by mutex_; the one used last is the first
};

}  // namespace penstock
