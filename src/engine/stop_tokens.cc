#include "engine/stop_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "format/text.h"

namespace penstock {
namespace {

class Union {
 public:
  explicit Union(const StopTokenSources& sources) : sources_(sources) {}

  void add_ids(const Json& config, const char* file) {
    const Json* ids = json_find(config, "eos_token_id");
    if (ids == nullptr || ids->is_null()) return;
    if (!ids->is_array()) {
      add_id(*ids, file);
      return;
    }
    for (const Json& id : *ids) add_id(id, file);
  }

  // "<|im_end|>", or {"content": "<|im_end|>", ...}
  void add_text(const Json& config, const char* file) {
    const Json* token = json_find(config, "eos_token");
    if (token != nullptr && token->is_object()) token = json_find(*token, "content");
    if (token == nullptr || token->is_null() || sources_.tokenizer == nullptr) return;
    if (!token->is_string()) return skip(file, "eos_token is no text");
    const auto& text = token->get_ref<const std::string&>();
    const auto id = sources_.tokenizer->find(text);
    if (!id) return skip(file, fmt::format("eos_token {} is no token", escaped(text)));
    add(*id);
  }

  StopTokens take() { return std::move(result_); }

 private:
  void add_id(const Json& id, const char* file) {
    const bool is_id = id.is_number_integer() && id.get<double>() >= 0 &&
                       id.get<double>() < static_cast<double>(sources_.vocab_size);
    if (is_id) return add(id.get<TokenId>());
    skip(file, fmt::format("eos_token_id {} is no id below {}", escaped(to_text(id)),
                           sources_.vocab_size));
  }

  void add(TokenId id) {
    if (std::ranges::find(result_.ids, id) == result_.ids.end()) result_.ids.push_back(id);
  }

  void skip(const char* file, const std::string& why) {
    result_.notes.push_back(fmt::format("{}: {}, so it ends no answer", file, why));
  }

  const StopTokenSources& sources_;
  StopTokens result_;
};

}  // namespace

StopTokens stop_tokens(const StopTokenSources& sources) {
  Union all(sources);
  all.add_ids(sources.generation_config, "generation_config.json");
  all.add_ids(sources.config, "config.json");
  if (const Json* text_config = json_find(sources.config, "text_config")) {
    all.add_ids(*text_config, "config.json: text_config");
  }
  all.add_text(sources.tokenizer_config, "tokenizer_config.json");
  return all.take();
}

}  // namespace penstock
