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
  return {ErrorCode::kInvalidArgument,
          fmt::format("the text is longer than {}, which is more than {} tokens can hold; give a "
                      "larger --context or shorten it",
                      format_bytes(text_bytes_max(engine)), engine.plan_request().context)};
}

}  // namespace penstock
