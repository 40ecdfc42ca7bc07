// The tokens that a grammar allows for one answer: a matcher, its state and the end of a turn.
//
//   const auto tokens = std::make_shared<const TokenTrie>(TokenTrie::create(tokenizer));  // once
//   GrammarMask mask(grammar, tokens, tokenizer, end_tokens);
//
// Several answers to one prompt share a matcher by fork(): then masks that one has made serve the
// others.
//
// Threads  one at a time, forks included.
// Errors   those of matcher.h; accept(): kInvalidArgument for a token that was not allowed.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/token_trie.h"
#include "text/token_mask.h"
#include "text/tokenizer.h"

namespace penstock {

class GrammarMask : public TokenMask {
 public:
  // The tokenizer must outlive the mask. end_tokens: ids that end an answer.
  GrammarMask(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> tokens,
              const Tokenizer& tokenizer, std::vector<TokenId> end_tokens);

  Result<std::span<const uint64_t>> allowed() override;
  Result<void> accept(TokenId id) override;

  bool can_end() const { return has_ended_ || shared_->matcher.can_end(state_); }
  std::unique_ptr<GrammarMask> fork() const;

 private:
  struct Shared {
    Shared(std::shared_ptr<const Grammar> g, std::shared_ptr<const TokenTrie> t)
        : grammar(std::move(g)), tokens(std::move(t)), matcher(*grammar, *tokens) {}
    std::shared_ptr<const Grammar> grammar;
    std::shared_ptr<const TokenTrie> tokens;
    GrammarMatcher matcher;
  };
  GrammarMask(const GrammarMask&) = default;
  bool is_end(TokenId id) const;

  std::shared_ptr<Shared> shared_;  // by forks of one answer
  const Tokenizer* tokenizer_;
  std::vector<TokenId> end_tokens_;
  GrammarState state_;
  bool has_ended_ = false;
  std::vector<uint64_t> bits_;
};

}  // namespace penstock
