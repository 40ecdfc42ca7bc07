#include "text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/nfc.h"

namespace penstock {
namespace {

constexpr size_t kJsonBytesMax = size_t{1} << 30;

class Reader {
 public:
  Reader(std::string_view what, int64_t embedding_rows)
      : what_(what),
        id_end_(embedding_rows > 0 ? std::min(embedding_rows, kTokenIdMax + 1) : kTokenIdMax + 1) {}

  Result<TokenizerTables> read(const Json& root, const TokenizerFiles& files) {
    if (!root.is_object()) return corrupt("the file is not a JSON object");
    const bool is_nfc = PENSTOCK_TRY(read_normalizer(json_find(root, "normalizer")));
    const SplitPattern pattern = PENSTOCK_TRY(read_pre_tokenizer(root));
    PENSTOCK_TRY(check_ends(root));
    std::vector<AddedToken> added = PENSTOCK_TRY(read_added_tokens(root, files));
    std::vector<std::string> notes;
    drop_without_row(added, notes);

    const Json* model = json_find(root, "model");
    if (model == nullptr) return corrupt("\"model\" is missing");
    PENSTOCK_TRY(check_model(*model));
    Vocabulary vocabulary = PENSTOCK_TRY(read_vocabulary(*model, added));
    BpeMerges merges = PENSTOCK_TRY(read_merges(*model, vocabulary));
    // After the merges, which are between ordinary tokens. An added token may be there already.
    for (const AddedToken& token : added) vocabulary.add(token.id, token.text);
    std::vector<AddedToken> raw;
    std::vector<AddedToken> normalized;
    std::vector<AddedToken> any;
    for (AddedToken token : added) {
      if (token.is_normalized && is_nfc) token.text = to_nfc(token.text);
      (token.is_normalized ? normalized : raw).push_back(token);
      any.push_back(std::move(token));
    }
    return TokenizerTables{std::move(vocabulary),
                           std::move(merges),
                           AddedTokens(std::move(added)),
                           AddedTokens(std::move(raw)),
                           AddedTokens(std::move(normalized)),
                           AddedTokens(std::move(any)),
                           pattern,
                           is_nfc,
                           std::move(notes)};
  }

 private:
  Error corrupt(const std::string& sentence) const {
    return {ErrorCode::kCorrupt, fmt::format("{}: {}", what_, sentence)};
  }
  Error unsupported(const std::string& sentence) const {
    return {ErrorCode::kUnsupported, fmt::format("{}: {}", what_, sentence)};
  }

  // The model cannot be asked for a token that its embedding has no row for. Programs that add
  // tokens often leave such ones behind.
  void drop_without_row(std::vector<AddedToken>& added, std::vector<std::string>& notes) const {
    constexpr size_t kNamed = 3;
    std::string names;
    size_t count = 0;
    for (const AddedToken& token : added) {
      if (token.id < id_end_) continue;
      ++count;
      if (count <= kNamed) names += fmt::format(" {} ({})", in_quotes(token.text), token.id);
    }
    if (count == 0) return;
    std::erase_if(added, [this](const AddedToken& token) { return token.id >= id_end_; });
    if (count > kNamed) names += " ...";
    notes.push_back(fmt::format(
        "{}: the embedding has {} rows and none for {} of the added tokens:{}; where they occur, "
        "they are read as plain text",
        what_, id_end_, count, names));
  }

  static std::string type_of(const Json& object) {
    const Json* type = json_find(object, "type");
    return type != nullptr && type->is_string() ? type->get<std::string>() : "";
  }

  Result<bool> read_normalizer(const Json* normalizer) const {
    if (normalizer == nullptr) return false;
    if (type_of(*normalizer) == "NFC") return true;
    return unsupported(fmt::format("\"normalizer\" is of type {}; only NFC or null is known",
                                   in_quotes(type_of(*normalizer))));
  }

  Result<SplitPattern> read_pre_tokenizer(const Json& root) const {
    const Json* outer = json_find(root, "pre_tokenizer");
    if (outer == nullptr) return corrupt("\"pre_tokenizer\" is missing");
    const Json* parts = json_find(*outer, "pretokenizers");
    const bool is_pair = type_of(*outer) == "Sequence" && parts != nullptr && parts->is_array() &&
                         parts->size() == 2 && type_of((*parts)[0]) == "Split" &&
                         type_of((*parts)[1]) == "ByteLevel";
    if (!is_pair) {
      return unsupported(
          "\"pre_tokenizer\" is not a Sequence of one Split and one ByteLevel; only tokenizers of "
          "the Qwen2, Qwen3-Next and Qwen3.5 families are known");
    }
    const Json& split = (*parts)[0];
    const Json* behavior = json_find(split, "behavior");
    if (behavior == nullptr || *behavior != "Isolated" || is_true(split, "invert")) {
      return unsupported("\"pre_tokenizer\": the Split must be Isolated and not inverted");
    }
    if (is_true((*parts)[1], "add_prefix_space") || !is_false((*parts)[1], "use_regex")) {
      return unsupported(
          "\"pre_tokenizer\": the ByteLevel must have add_prefix_space and use_regex false");
    }
    const Json* wrapped = json_find(split, "pattern");
    const Json* regex = wrapped == nullptr ? nullptr : json_find(*wrapped, "Regex");
    if (regex == nullptr || !regex->is_string()) {
      return corrupt("\"pre_tokenizer\": the Split's \"pattern\" has no \"Regex\"");
    }
    const auto pattern = find_split_pattern(regex->get_ref<const std::string&>());
    if (pattern) return *pattern;
    return unsupported(
        "\"pre_tokenizer\": the Split's regular expression is neither that of Qwen2 and Qwen3-Next "
        "nor that of Qwen3.5");
  }

  Result<void> check_ends(const Json& root) const {
    const Json* post = json_find(root, "post_processor");
    if (post != nullptr && type_of(*post) != "ByteLevel") {
      return unsupported(
          fmt::format("\"post_processor\" is of type {} and may add tokens; only ByteLevel or null "
                      "is known",
                      in_quotes(type_of(*post))));
    }
    const Json* decoder = json_find(root, "decoder");
    if (decoder != nullptr && type_of(*decoder) != "ByteLevel") {
      return unsupported(fmt::format("\"decoder\" is of type {}; only ByteLevel is known",
                                     in_quotes(type_of(*decoder))));
    }
    return {};
  }

  Result<void> check_model(const Json& model) const {
    if (type_of(model) != "BPE") {
      return unsupported(
          fmt::format("\"model\" is of type {}; only BPE is known", in_quotes(type_of(model))));
    }
    for (const char* key : {"byte_fallback", "ignore_merges"}) {
      if (is_true(model, key)) return unsupported(fmt::format("\"model.{}\" must be false", key));
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* affix = json_find(model, key);
      if (affix != nullptr && *affix != "") {
        return unsupported(fmt::format("\"model.{}\" must be empty", key));
      }
    }
    const Json* dropout = json_find(model, "dropout");
    if (dropout != nullptr && *dropout != 0) {
      return unsupported("\"model.dropout\" must be null: ids would be random");
    }
    return {};
  }

  Result<TokenId> read_id(const Json& value, std::string_view token) const {
    const bool is_id = value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{kTokenIdMax};
    if (!is_id) {
      return corrupt(fmt::format("the id of token {} must be an integer from 0 to {}",
                                 in_quotes(token), kTokenIdMax));
    }
    const auto id = value.get<int64_t>();
    if (id >= id_end_) {
      return corrupt(
          fmt::format("token {} has id {}, but the model's embedding has {} rows; the "
                      "tokenizer is of another model",
                      in_quotes(token), id, id_end_));
    }
    return static_cast<TokenId>(id);
  }

  Result<Vocabulary> read_vocabulary(const Json& model,
                                     const std::vector<AddedToken>& added) const {
    const Json* vocab = json_find(model, "vocab");
    if (vocab == nullptr) return corrupt("\"model.vocab\" is missing");
    if (!vocab->is_object()) return corrupt("\"model.vocab\" must be an object of token to id");
    int64_t id_count = 0;
    for (const AddedToken& token : added) id_count = std::max<int64_t>(id_count, token.id + 1);
    for (const auto& [spelling, value] : vocab->items()) {
      const TokenId id = PENSTOCK_TRY(read_id(value, spelling));
      id_count = std::max<int64_t>(id_count, id + 1);
    }
    Vocabulary vocabulary(id_count, vocab->size() + added.size());
    std::unordered_map<std::string_view, TokenId> id_of_added;
    for (const AddedToken& token : added) id_of_added.emplace(token.text, token.id);
    for (const auto& [spelling, value] : vocab->items()) {
      const auto same = id_of_added.find(spelling);
      if (same != id_of_added.end() && value != same->second) {
        return corrupt(fmt::format("added token {} has id {}, but id {} in \"model.vocab\"",
                                   in_quotes(spelling), same->second, to_text(value)));
      }
      // A token outside the byte alphabet can never be reached by merging; it stands for itself.
      const std::string bytes = bytes_of_spelling(spelling).value_or(spelling);
      const TokenId id = value.get<TokenId>();
      if (!vocabulary.add(id, bytes)) {
        return corrupt(fmt::format("\"model.vocab\": id {} is given twice, the second time to {}",
                                   id, in_quotes(spelling)));
      }
    }
    for (const AddedToken& token : added) {
      const bool is_other = vocabulary.has(token.id) && vocabulary.bytes_of(token.id) != token.text;
      if (is_other) {
        return corrupt(fmt::format("added token {} has id {}, which \"model.vocab\" gives to {}",
                                   in_quotes(token.text), token.id,
                                   in_quotes(vocabulary.bytes_of(token.id))));
      }
    }
    return vocabulary;
  }

  Result<BpeMerges> read_merges(const Json& model, const Vocabulary& vocabulary) const {
    std::array<TokenId, 256> byte_ids{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const char text = static_cast<char>(static_cast<uint8_t>(byte));
      const auto id = vocabulary.find({&text, 1});
      if (!id) {
        return corrupt(fmt::format(
            "\"model.vocab\" has no token for byte 0x{:02x} (spelled {}); texts with it "
            "could not be encoded",
            byte, in_quotes(spelling_of_byte(static_cast<uint8_t>(byte)))));
      }
      byte_ids[byte] = *id;
    }
    const Json* list = json_find(model, "merges");
    if (list == nullptr) return corrupt("\"model.merges\" is missing");
    if (!list->is_array()) return corrupt("\"model.merges\" must be an array");
    BpeMerges merges(byte_ids, list->size());
    for (size_t i = 0; i < list->size(); ++i) {
      PENSTOCK_TRY(add_merge((*list)[i], i, vocabulary, merges));
    }
    return merges;
  }

  Result<void> add_merge(const Json& entry, size_t index, const Vocabulary& vocabulary,
                         BpeMerges& merges) const {
    std::string_view left;
    std::string_view right;
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else if (entry.is_string()) {
      const std::string_view both = entry.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      left = both.substr(0, space);
      right = space == std::string_view::npos ? std::string_view() : both.substr(space + 1);
    }
    if (left.empty() || right.empty()) {
      return corrupt(fmt::format(
          "\"model.merges[{}]\" must be two tokens, as \"a b\" or [\"a\", \"b\"]", index));
    }
    const auto id_of = [&](const std::string& spelling) -> std::optional<TokenId> {
      const auto bytes = bytes_of_spelling(spelling);
      return bytes ? vocabulary.find(*bytes) : std::nullopt;
    };
    std::array<TokenId, 3> ids{};
    const std::array<std::string, 3> parts = {std::string(left), std::string(right),
                                              std::string(left) + std::string(right)};
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto id = id_of(parts[i]);
      if (!id) {
        return corrupt(fmt::format("\"model.merges[{}]\": token {} is not in \"model.vocab\"",
                                   index, in_quotes(parts[i])));
      }
      ids[i] = *id;
    }
    if (merges.add(ids[0], ids[1], ids[2])) return {};
    return corrupt(fmt::format("\"model.merges[{}]\": the pair {} {} is there twice", index,
                               in_quotes(left), in_quotes(right)));
  }

  static bool is_true(const Json& object, const char* key) {
    const Json* value = json_find(object, key);
    return value != nullptr && *value == true;
  }
  static bool is_false(const Json& object, const char* key) {
    const Json* value = json_find(object, key);
    return value != nullptr && *value == false;
  }

  std::string_view what_;
  int64_t id_end_;
};

}  // namespace

Result<TokenizerTables> read_tokenizer(const TokenizerFiles& files, int64_t embedding_rows) {
  const std::string_view json = files.tokenizer_json;
  const std::string_view what = files.what;
  if (json.size() > kJsonBytesMax) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: {} bytes are too many for a tokenizer; at "
                                                  "most {} are read",
                                                  what, json.size(), kJsonBytesMax)};
  }
  const Json root = PENSTOCK_TRY(parse_json(json, what));
  return Reader(what, embedding_rows).read(root, files);
}

}  // namespace penstock
