#include "text/added_token_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <unordered_map>

namespace penstock {
namespace {

constexpr const char* kNamedTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
constexpr std::string_view kConfigName = "tokenizer_config.json";
constexpr std::string_view kAddedName = "added_tokens.json";

class Collector {
 public:
  explicit Collector(const TokenizerFiles& files) : what_(files.what) {}

  Result<std::vector<AddedToken>> collect(const Json& root, const Json& config,
                                          const Json* older_list) {
    const Json* model = json_find(root, "model");
    if (model != nullptr) vocab_ = json_find(*model, "vocab");
    PENSTOCK_TRY(read_list(root));
    PENSTOCK_TRY(read_named(config));
    const Json* decoder = json_find(config, "added_tokens_decoder");
    if (decoder != nullptr) {
      PENSTOCK_TRY(read_decoder(*decoder));
    } else if (older_list != nullptr) {
      PENSTOCK_TRY(read_older_list(*older_list));
    }
    PENSTOCK_TRY(add_named());
    PENSTOCK_TRY(check_ids());
    return std::move(tokens_);
  }

 private:
  static Error corrupt(std::string_view file, const std::string& sentence) {
    return {ErrorCode::kCorrupt, fmt::format("{}: {}", file, sentence)};
  }

  static Result<TokenId> read_id(const Json& value, std::string_view file, std::string_view text) {
    if (value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{kTokenIdMax}) {
      return value.get<TokenId>();
    }
    return corrupt(file, fmt::format("the id of token {} must be an integer from 0 to {}",
                                     in_quotes(text), kTokenIdMax));
  }

  static Result<bool> read_flag(const Json& entry, const char* name, bool otherwise,
                                std::string_view file, const std::string& key) {
    const Json* flag = json_find(entry, name);
    if (flag == nullptr) return otherwise;
    if (flag->is_boolean()) return flag->get<bool>();
    return corrupt(file, fmt::format("\"{}.{}\" must be true or false", key, name));
  }

  // {"content": "...", "special": true, "lstrip": false, ...}, without the id.
  static Result<AddedToken> read_token(const Json& entry, std::string_view file,
                                       const std::string& key) {
    const Json* content = json_find(entry, "content");
    if (content == nullptr || !content->is_string()) {
      return corrupt(file, fmt::format("\"{}\" must have a text \"content\"", key));
    }
    AddedToken token;
    token.text = content->get<std::string>();
    PENSTOCK_TRY(check_text(token.text, file, key + ".content"));
    token.is_special = PENSTOCK_TRY(read_flag(entry, "special", false, file, key));
    token.single_word = PENSTOCK_TRY(read_flag(entry, "single_word", false, file, key));
    token.takes_left = PENSTOCK_TRY(read_flag(entry, "lstrip", false, file, key));
    token.takes_right = PENSTOCK_TRY(read_flag(entry, "rstrip", false, file, key));
    token.is_normalized =
        PENSTOCK_TRY(read_flag(entry, "normalized", !token.is_special, file, key));
    return token;
  }

  static Result<void> check_text(const std::string& text, std::string_view file,
                                 const std::string& key) {
    if (!text.empty() && text.size() <= kAddedTokenBytesMax) return {};
    return corrupt(file, fmt::format("\"{}\" must have 1 to {} bytes, not {}", key,
                                     kAddedTokenBytesMax, text.size()));
  }

  // Of the same text the later one counts, but its id must be the same.
  Result<void> put(AddedToken token, std::string_view file) {
    const auto [known, is_new] = index_of_.emplace(token.text, tokens_.size());
    if (is_new) {
      tokens_.push_back(std::move(token));
      return {};
    }
    AddedToken& old = tokens_[known->second];
    if (old.id != token.id) {
      return corrupt(file, fmt::format("added token {} has id {}, but id {} elsewhere",
                                       in_quotes(token.text), token.id, old.id));
    }
    old = std::move(token);
    return {};
  }

  // tokenizer.json
  Result<void> read_list(const Json& root) {
    const Json* list = json_find(root, "added_tokens");
    if (list == nullptr) return {};
    if (!list->is_array()) return corrupt(what_, "\"added_tokens\" must be an array");
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string key = fmt::format("added_tokens[{}]", i);
      const Json* id = json_find((*list)[i], "id");
      if (id == nullptr) {
        return corrupt(what_, fmt::format("\"{}\" must have an \"id\" and a \"content\"", key));
      }
      AddedToken token = PENSTOCK_TRY(read_token((*list)[i], what_, key));
      token.id = PENSTOCK_TRY(read_id(*id, what_, token.text));
      const auto known = index_of_.find(token.text);
      if (known != index_of_.end() && tokens_[known->second] != token) {
        return corrupt(what_,
                       fmt::format("\"added_tokens\": {} is there twice, as {} and as {}",
                                   in_quotes(token.text), tokens_[known->second].id, token.id));
      }
      PENSTOCK_TRY(put(std::move(token), what_));
    }
    return {};
  }

  // tokenizer_config.json: {"151643": {"content": ...}, ...}
  Result<void> read_decoder(const Json& decoder) {
    if (!decoder.is_object()) {
      return corrupt(kConfigName, "\"added_tokens_decoder\" must be an object of id to token");
    }
    for (const auto& [digits, entry] : decoder.items()) {
      const std::string key = fmt::format("added_tokens_decoder[{}]", in_quotes(digits));
      AddedToken token = PENSTOCK_TRY(read_token(entry, kConfigName, key));
      int64_t id = -1;
      const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), id);
      const bool is_number = end.ec == std::errc() && end.ptr == digits.data() + digits.size();
      if (!is_number || id < 0 || id > kTokenIdMax) {
        return corrupt(kConfigName,
                       fmt::format("\"{}\": the id must be from 0 to {}", key, kTokenIdMax));
      }
      token.id = static_cast<TokenId>(id);
      PENSTOCK_TRY(put(std::move(token), kConfigName));
    }
    return {};
  }

  // added_tokens.json: {"<|im_end|>": 151645, ...}; what tokenizer.json knows, it knows better.
  Result<void> read_older_list(const Json& list) {
    if (!list.is_object()) return corrupt(kAddedName, "it must be an object of token to id");
    for (const auto& [text, id] : list.items()) {
      PENSTOCK_TRY(check_text(text, kAddedName, "token"));
      AddedToken token;
      token.text = text;
      token.id = PENSTOCK_TRY(read_id(id, kAddedName, text));
      token.is_special = named_.contains(text);
      token.is_normalized = !token.is_special;
      const auto known = index_of_.find(text);
      if (known != index_of_.end() && tokens_[known->second].id == token.id) continue;
      PENSTOCK_TRY(put(std::move(token), kAddedName));
    }
    return {};
  }

  // The tokens that tokenizer_config.json has a name for: "text" or {"content": "text", ...}.
  Result<void> read_named(const Json& config) {
    const auto read = [this](const Json& entry, const std::string& key) -> Result<void> {
      AddedToken token;
      if (entry.is_string()) {
        token.text = entry.get<std::string>();
        if (token.text.empty()) return {};  // said to be none
        PENSTOCK_TRY(check_text(token.text, kConfigName, key));
      } else if (entry.is_object()) {
        token = PENSTOCK_TRY(read_token(entry, kConfigName, key));
      } else {
        return {};
      }
      token.is_special = true;
      if (named_.insert(token.text).second) named_tokens_.push_back(std::move(token));
      return {};
    };
    for (const char* name : kNamedTokens) {
      const Json* entry = json_find(config, name);
      if (entry != nullptr) PENSTOCK_TRY(read(*entry, name));
    }
    // The newer name may have a list, or an object of name to token.
    for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
      const Json* more = json_find(config, name);
      if (more == nullptr || !more->is_structured()) continue;
      for (const Json& entry : *more) PENSTOCK_TRY(read(entry, name));
    }
    return {};
  }

  // Named tokens that no list has get the vocabulary's id, or else the next free one.
  Result<void> add_named() {
    for (AddedToken& token : tokens_) token.is_special |= named_.contains(token.text);
    std::erase_if(named_tokens_,
                  [this](const AddedToken& token) { return index_of_.contains(token.text); });
    if (named_tokens_.empty()) return {};
    std::unordered_map<std::string_view, const Json*> ordinary;
    int64_t next = 0;
    if (vocab_ != nullptr && vocab_->is_object()) {
      for (const auto& [spelling, id] : vocab_->items()) ordinary.emplace(spelling, &id);
      next = static_cast<int64_t>(vocab_->size());
    }
    for (const AddedToken& token : tokens_) next = std::max<int64_t>(next, token.id + 1);
    for (AddedToken& token : named_tokens_) {
      const auto known = ordinary.find(token.text);
      if (known != ordinary.end()) {
        token.id = PENSTOCK_TRY(read_id(*known->second, what_, token.text));
      } else {
        if (next > kTokenIdMax) return corrupt(kConfigName, "there are too many tokens");
        token.id = static_cast<TokenId>(next++);
      }
      PENSTOCK_TRY(put(std::move(token), kConfigName));
    }
    return {};
  }

  Result<void> check_ids() const {
    std::vector<const AddedToken*> order;
    for (const AddedToken& token : tokens_) order.push_back(&token);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->id < b->id; });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i - 1]->id != order[i]->id) continue;
      return corrupt(what_, fmt::format("among the added tokens id {} is given twice, to {} and {}",
                                        order[i]->id, in_quotes(order[i - 1]->text),
                                        in_quotes(order[i]->text)));
    }
    return {};
  }

  const std::string_view what_;
  const Json* vocab_ = nullptr;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> index_of_;  // by text
  std::set<std::string> named_;
  std::vector<AddedToken> named_tokens_;
};

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr size_t kShownBytes = 60;
  const bool is_long = text.size() > kShownBytes;
  return to_text(Json(std::string(text.substr(0, kShownBytes)))) + (is_long ? "..." : "");
}

Result<std::vector<AddedToken>> read_added_tokens(const Json& root, const TokenizerFiles& files) {
  Json config = Json::object();
  if (files.tokenizer_config) {
    config = PENSTOCK_TRY(parse_json(*files.tokenizer_config, kConfigName));
  }
  Json older;
  if (files.added_tokens) older = PENSTOCK_TRY(parse_json(*files.added_tokens, kAddedName));
  return Collector(files).collect(root, config, files.added_tokens ? &older : nullptr);
}

}  // namespace penstock
