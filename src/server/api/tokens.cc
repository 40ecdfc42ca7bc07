#include "server/api/tokens.h"

#include <fmt/format.h>

#include "server/api/openai_chat.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// Text where the bytes are whole characters, numbers otherwise.
Json piece_of(const Tokenizer& tokenizer, TokenId id) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  Json numbers = Json::array();
  for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
  return numbers;
}

}  // namespace

std::variant<Json, ApiError> tokenize(const Json& body, const ServedModel& model) {
  Fields fields(body);
  auto content = fields.text("content");
  if (!content) content = fields.text("prompt");  // vLLM's name
  if (!content) fields.refuse("content", "\"content\" is missing");
  const bool with_pieces = fields.boolean("with_pieces").value_or(false);
  const bool parses = fields.boolean("parse_special").value_or(true);
  fields.boolean("add_special");  // the models here add nothing
  if (fields.error()) return *fields.error();
  const Tokenizer& tokenizer = *model.texts->tokenizer;
  Json tokens = Json::array();
  const std::vector<TokenId> ids =
      tokenizer.encode(*content, parses ? SpecialTokens::kParse : SpecialTokens::kAsText);
  for (const TokenId id : ids) {
    if (with_pieces) {
      tokens.push_back(Json{{"id", id}, {"piece", piece_of(tokenizer, id)}});
    } else {
      tokens.push_back(id);
    }
  }
  return Json{{"tokens", std::move(tokens)}, {"count", ids.size()}};
}

std::variant<Json, ApiError> detokenize(const Json& body, const ServedModel& model) {
  Fields fields(body);
  const Json* list = fields.array("tokens", 1 << 24);
  if (list == nullptr) fields.refuse("tokens", "\"tokens\" is missing");
  if (fields.error()) return *fields.error();
  std::vector<TokenId> ids;
  for (const Json& id : *list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= model.vocab) {
      fields.refuse("tokens", fmt::format("\"tokens\" must be ids from 0 to {}", model.vocab - 1));
      return *fields.error();
    }
    ids.push_back(id.get<TokenId>());
  }
  return Json{{"content", replace_invalid_utf8(model.texts->tokenizer->decode(ids))}};
}

std::variant<Json, ApiError> apply_template(const Json& body, const ServedModel& model) {
  auto read = read_openai_chat(body, model);
  if (const ApiError* error = std::get_if<ApiError>(&read)) return *error;
  auto& call = std::get<ChatCall>(read);
  if (const auto error = prepare(model, call)) return *error;
  const std::vector<TokenId>& tokens = call.generation.prompt;
  return Json{{"prompt", replace_invalid_utf8(model.texts->tokenizer->decode(tokens))},
              {"tokens", tokens.size()}};
}

}  // namespace penstock
