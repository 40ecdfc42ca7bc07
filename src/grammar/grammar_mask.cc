#include "grammar/grammar_mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace penstock {

GrammarMask::GrammarMask(std::shared_ptr<const Grammar> grammar,
                         std::shared_ptr<const TokenTrie> tokens, const Tokenizer& tokenizer,
                         std::vector<TokenId> end_tokens)
    : shared_(std::make_shared<Shared>(std::move(grammar), std::move(tokens))),
      tokenizer_(&tokenizer),
      end_tokens_(std::move(end_tokens)),
      state_(shared_->matcher.start()) {}

bool GrammarMask::is_end(TokenId id) const {
  return std::ranges::find(end_tokens_, id) != end_tokens_.end();
}

Result<std::span<const uint64_t>> GrammarMask::allowed() {
  bits_.assign((static_cast<size_t>(tokenizer_->vocab_size()) + 63) / 64, 0);
  if (!has_ended_) {
    const std::span<const uint64_t> mask = PENSTOCK_TRY(shared_->matcher.mask(state_));
    std::ranges::copy(mask.first(std::min(mask.size(), bits_.size())), bits_.begin());
  }
  for (const TokenId id : end_tokens_) {
    if (id < 0 || id >= tokenizer_->vocab_size()) continue;
    uint64_t& word = bits_[static_cast<size_t>(id) / 64];
    const uint64_t bit = uint64_t{1} << (static_cast<size_t>(id) % 64);
    word = can_end() ? word | bit : word & ~bit;
  }
  if (std::ranges::all_of(bits_, [](uint64_t word) { return word == 0; })) {
    return Error{ErrorCode::kUnsupported,
                 "no token of the vocabulary goes on with the text as the grammar wants it"};
  }
  return std::span<const uint64_t>(bits_);
}

Result<void> GrammarMask::accept(TokenId id) {
  const auto not_allowed = [&] {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("token {} is not what the grammar allows here", id)};
  };
  if (is_end(id)) {
    if (!can_end()) return not_allowed();
    has_ended_ = true;
    return {};
  }
  const std::string_view bytes = tokenizer_->token_bytes(id);
  if (has_ended_ || bytes.empty()) return not_allowed();
  const bool accepted = PENSTOCK_TRY(shared_->matcher.accept(state_, bytes));
  if (!accepted) return not_allowed();
  return {};
}

std::unique_ptr<GrammarMask> GrammarMask::fork() const {
  return std::unique_ptr<GrammarMask>(new GrammarMask(*this));
}

}  // namespace penstock
