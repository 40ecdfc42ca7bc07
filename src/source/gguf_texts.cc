#include "source/gguf_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "format/text.h"
#include "text/pretokenizer.h"

namespace penstock {
namespace {

constexpr int64_t kTokensMax = 1 << 23;

// The types of tokens.
constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

// Texts of tokens that end an answer, beside the one that a key names.
constexpr std::string_view kStopTexts[] = {"<|im_end|>", "<|endoftext|>"};

struct SamplingKey {
  const char* gguf;
  const char* config;
};
constexpr SamplingKey kSamplingNumbers[] = {
    {"general.sampling.top_p", "top_p"},
    {"general.sampling.min_p", "min_p"},
    {"general.sampling.temp", "temperature"},
    {"general.sampling.penalty_repeat", "repetition_penalty"}};

class TextReader {
 public:
  TextReader(const GgufMetadata& keys, const std::string& what) : keys_(keys), what_(what) {}

  Result<std::vector<SourceText>> read();

 private:
  Error error(ErrorCode code, const std::string& reason) const {
    return {code, fmt::format("{}: {}", what_, reason)};
  }
  Result<void> read_tokens();
  Result<std::string> split_regex() const;
  Result<std::string> tokenizer() const;
  Result<std::string> vocabulary(Json& added) const;
  Result<Json> tokenizer_config() const;
  Result<Json> generation_config() const;
  Result<std::optional<int64_t>> token_of(std::string_view key) const;

  const GgufMetadata& keys_;
  const std::string& what_;
  std::vector<std::string_view> tokens_;
  std::vector<int64_t> types_;
};

Result<void> TextReader::read_tokens() {
  const std::string model = PENSTOCK_TRY(keys_.string("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return error(ErrorCode::kUnsupported,
                 fmt::format("tokenizer.ggml.model {} is not supported, only gpt2 (byte-level BPE)",
                             escaped(model)));
  }
  tokens_ = PENSTOCK_TRY(keys_.strings("tokenizer.ggml.tokens"));
  types_ = PENSTOCK_TRY(keys_.integers("tokenizer.ggml.token_type"));
  if (types_.size() != tokens_.size() || tokens_.size() > static_cast<size_t>(kTokensMax)) {
    return error(ErrorCode::kCorrupt,
                 fmt::format("tokenizer.ggml.tokens has {} entries, tokenizer.ggml.token_type {}; "
                             "both must be the same, at most {}",
                             tokens_.size(), types_.size(), kTokensMax));
  }
  constexpr std::string_view kBos = "tokenizer.ggml.add_bos_token";
  if (keys_.has(kBos) && PENSTOCK_TRY(keys_.boolean(kBos))) {
    return error(ErrorCode::kUnsupported,
                 fmt::format("{} is true; no tokenizer of the supported families does that", kBos));
  }
  return {};
}

Result<std::string> TextReader::split_regex() const {
  const std::string pre = PENSTOCK_TRY(keys_.string("tokenizer.ggml.pre"));
  if (pre == "qwen35") return std::string(regex_of(SplitPattern::kLettersAndMarks));
  if (pre == "qwen2") return std::string(regex_of(SplitPattern::kLetters));
  return error(ErrorCode::kUnsupported,
               fmt::format("tokenizer.ggml.pre {} is not supported; supported are qwen2 and qwen35",
                           escaped(pre)));
}

// As text: an object of a quarter of a million members is slow to put together, and the tokenizer
// looks at every one of them again, at doubles as well.
Result<std::string> TextReader::vocabulary(Json& added) const {
  std::string members;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const std::string text(tokens_[id]);
    const int64_t type = types_[id];
    if (type == kUnused) continue;
    if (type == kNormal || type == kByte) {
      members += fmt::format("{}{}:{}", members.empty() ? "" : ",", to_text(Json(text)), id);
      continue;
    }
    if (type != kControl && type != kUserDefined) {
      return error(
          ErrorCode::kUnsupported,
          fmt::format("tokenizer.ggml.token_type of token {} ({}) is {}; known are 1, 3, 4, "
                      "5 and 6",
                      id, escaped(text), type));
    }
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type == kControl}});
  }
  return "{" + members + "}";
}

Result<std::string> TextReader::tokenizer() const {
  Json added = Json::array();
  const std::string vocabulary_text = PENSTOCK_TRY(vocabulary(added));
  Json merges = Json::array();
  for (const std::string_view merge : PENSTOCK_TRY(keys_.strings("tokenizer.ggml.merges"))) {
    merges.push_back(std::string(merge));
  }
  const std::string regex = PENSTOCK_TRY(split_regex());
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", regex}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", false},
                      {"use_regex", false}};
  const Json pre = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
  return fmt::format(
      R"({{"version":"1.0","added_tokens":{},"normalizer":{{"type":"NFC"}},"pre_tokenizer":{},)"
      R"("post_processor":{},"decoder":{},"model":{{"type":"BPE","byte_fallback":false,)"
      R"("ignore_merges":false,"vocab":{},"merges":{}}}}})",
      to_text(added), to_text(pre), to_text(bytes), to_text(bytes), vocabulary_text,
      to_text(merges));
}

Result<std::optional<int64_t>> TextReader::token_of(std::string_view key) const {
  if (!keys_.has(key)) return std::optional<int64_t>();
  return std::optional(
      PENSTOCK_TRY(keys_.integer(key, 0, static_cast<int64_t>(tokens_.size()) - 1)));
}

Result<Json> TextReader::tokenizer_config() const {
  Json json = Json::object();
  const std::pair<const char*, const char*> names[] = {
      {"bos_token", "tokenizer.ggml.bos_token_id"},
      {"eos_token", "tokenizer.ggml.eos_token_id"},
      {"pad_token", "tokenizer.ggml.padding_token_id"}};
  for (const auto& [name, key] : names) {
    const std::optional<int64_t> id = PENSTOCK_TRY(token_of(key));
    if (id) json[name] = std::string(tokens_[static_cast<size_t>(*id)]);
  }
  return json;
}

Result<Json> TextReader::generation_config() const {
  Json stop = Json::array();
  const auto add = [&](int64_t id) {
    if (std::find(stop.begin(), stop.end(), Json(id)) == stop.end()) stop.push_back(id);
  };
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const std::optional<int64_t> id = PENSTOCK_TRY(token_of(key));
    if (id) add(*id);
  }
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (types_[id] != kControl) continue;
    for (const std::string_view text : kStopTexts) {
      if (tokens_[id] == text) add(static_cast<int64_t>(id));
    }
  }
  Json json = {{"eos_token_id", std::move(stop)}};
  if (keys_.has("general.sampling.top_k")) {
    json["top_k"] = PENSTOCK_TRY(keys_.integer("general.sampling.top_k", 0, 1 << 24));
  }
  for (const SamplingKey& key : kSamplingNumbers) {
    if (!keys_.has(key.gguf)) continue;
    // As it was written: 0.95 became a float, and is meant as 0.95.
    const auto value = static_cast<float>(PENSTOCK_TRY(keys_.number(key.gguf)));
    json[key.config] = std::strtod(fmt::format("{}", value).c_str(), nullptr);
  }
  if (json.size() > 1) json["do_sample"] = true;
  return json;
}

Result<std::vector<SourceText>> TextReader::read() {
  std::vector<SourceText> texts;
  constexpr std::string_view kModel = "tokenizer.ggml.model";
  if (!keys_.has(kModel)) return texts;  // weights alone
  // llama.cpp's words for the same.
  const std::string model = PENSTOCK_TRY(keys_.string(kModel));
  if (model == "no_vocab" || model == "none") return texts;
  PENSTOCK_TRY(read_tokens());
  const auto add = [&](const char* name, std::string text) {
    texts.push_back({name, std::move(text)});
  };
  add("tokenizer.json", PENSTOCK_TRY(tokenizer()));
  add("tokenizer_config.json", to_text(PENSTOCK_TRY(tokenizer_config())));
  if (keys_.has("tokenizer.chat_template")) {
    add("chat_template.jinja", PENSTOCK_TRY(keys_.string("tokenizer.chat_template")));
  }
  add("generation_config.json", to_text(PENSTOCK_TRY(generation_config())));
  return texts;
}

}  // namespace

Result<std::vector<SourceText>> gguf_texts(const GgufMetadata& keys, const std::string& what) {
  return TextReader(keys, what).read();
}

}  // namespace penstock
