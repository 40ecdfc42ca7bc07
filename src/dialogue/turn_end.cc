#include "dialogue/turn_end.h"

#include <string_view>

namespace penstock {
namespace {

constexpr std::string_view kAnswer = "An answer, to see what follows it.";

}  // namespace

std::optional<TokenId> turn_end(const ModelTexts& texts) {
  if (!texts.tokenizer || !texts.chat_template) return std::nullopt;
  const Json messages = {{{"role", "user"}, {"content", "A question"}},
                         {{"role", "assistant"}, {"content", kAnswer}}};
  ChatOptions options;
  options.add_generation_prompt = false;
  const Result<std::string> rendered = texts.chat_template->render(messages, Json(), options);
  if (!rendered) return std::nullopt;
  const size_t answer = rendered->rfind(kAnswer);
  if (answer == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(*rendered).substr(answer + kAnswer.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
  const std::vector<TokenId> parsed = texts.tokenizer->encode(rest);
  const std::vector<TokenId> plain = texts.tokenizer->encode(rest, SpecialTokens::kAsText);
  // The same in both: ordinary text, which an answer may hold too.
  if (parsed.empty() || plain.empty() || parsed.front() == plain.front()) return std::nullopt;
  return parsed.front();
}

}  // namespace penstock
