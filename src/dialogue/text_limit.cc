#include "dialogue/text_limit.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"

namespace penstock {

uint64_t text_bytes_max(const Engine& engine) {
  constexpr uint64_t kNormalFormShortens = 3;  // three jamo of nine bytes are a syllable of three
  constexpr uint64_t kSpareBytes = 4096;       // byte order mark, blanks around it
  size_t longest = 1;
  if (const auto& tokenizer = engine.texts().tokenizer) {
    for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
      longest = std::max(longest, tokenizer->token_bytes(id).size());
    }
  }
  const auto context = static_cast<uint64_t>(engine.plan_request().context);
  return context * longest * kNormalFormShortens + kSpareBytes;
}

Error text_too_long(const Engine& engine) {
  const int64_t context = engine.plan_request().context;
  // No advice that would be refused.
  const bool is_longest = context >= engine.config().context_max();
  return {
      ErrorCode::kInvalidArgument,
      fmt::format("the text is longer than {}, which is more than {} tokens can hold; {}shorten it",
                  format_bytes(text_bytes_max(engine)), context,
                  is_longest ? "" : "give a larger --context or ")};
}

}  // namespace penstock
