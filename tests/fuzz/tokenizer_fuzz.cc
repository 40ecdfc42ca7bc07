// Any bytes as a tokenizer.json, and any text through a tokenizer that loads: no crash, no hang,
// and what is encoded decodes to the same text.
//
// The first byte chooses by its remainder by 4: 0, the rest is the JSON; 1, text for a small
// tokenizer without a normaliser; 2, text for one with NFC and added tokens of all flags; 3, a
// tokenizer_config.json beside a small tokenizer.
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/utf8_stream.h"
#include "text/vocabulary.h"

namespace penstock {
namespace {

constexpr const char* kRegex =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)re"
    R"re( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

Json small_definition() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[spelling_of_byte(static_cast<uint8_t>(byte))] = byte;
  }
  Json merges = Json::array();
  int next = 256;
  for (const char* merge : {"a a", "aa aa", "a b", "ab ab", "e r", "= =", "== =="}) {
    std::string merged(merge);
    merged.erase(merged.find(' '), 1);
    vocab[merged] = next++;
    merges.push_back(merge);
  }
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kRegex}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  Json root = Json::object();
  root["added_tokens"] = Json::array({Json{{"id", next}, {"content", "<|x|>"}, {"special", true}}});
  root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
  root["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
  return root;
}

Tokenizer small_tokenizer(const Json& definition) {
  auto tokenizer = Tokenizer::create(to_text(definition), "small", 0);
  PENSTOCK_CHECK(tokenizer.has_value());
  return *std::move(tokenizer);
}

// Tokens of every combination of flags, which overlap.
Tokenizer tokenizer_with_flags() {
  Json root = small_definition();
  root["normalizer"] = {{"type", "NFC"}};
  int id = 1000;
  for (const char* text : {"<x>", "x", " ", "<x", ">\n", "e\u0301", "ab", "\u212b!"}) {
    const int flags = (id * 7) % 16;
    // One that the vocabulary has keeps its number.
    const Json& vocab = root["model"]["vocab"];
    const Json number = vocab.contains(text) ? vocab[text] : Json(id);
    ++id;
    root["added_tokens"].push_back({{"id", number},
                                    {"content", text},
                                    {"single_word", (flags & 1) != 0},
                                    {"lstrip", (flags & 2) != 0},
                                    {"rstrip", (flags & 4) != 0},
                                    {"normalized", (flags & 8) != 0},
                                    {"special", id % 2 == 0}});
  }
  return small_tokenizer(root);
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  const std::string expected = replace_invalid_utf8(text);
  for (const auto special : {SpecialTokens::kParse, SpecialTokens::kAsText}) {
    const auto ids = tokenizer.encode(text, special);
    PENSTOCK_CHECK(tokenizer.decode(ids) == expected);
  }
  Utf8Stream stream;
  std::string streamed;
  for (const char byte : text) streamed += stream.push({&byte, 1});
  PENSTOCK_CHECK(streamed + stream.finish() == expected);
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using penstock::Tokenizer;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 4 == 1) {
    static const Tokenizer tokenizer = penstock::small_tokenizer(penstock::small_definition());
    penstock::check_text(tokenizer, rest);
    return 0;
  }
  if (data[0] % 4 == 2) {
    static const Tokenizer tokenizer = penstock::tokenizer_with_flags();
    const auto parsed = tokenizer.encode(rest);
    PENSTOCK_CHECK(parsed.size() <= rest.size() * 3);
    for (size_t from = 0; const auto match = tokenizer.find_added(rest, from); from = match->end) {
      PENSTOCK_CHECK(match->begin >= from && match->end > match->begin &&
                     match->end <= rest.size());
    }
    return 0;
  }
  if (data[0] % 4 == 3) {
    static const std::string definition = penstock::to_text(penstock::small_definition());
    const auto tokenizer = Tokenizer::create({definition, "small", rest}, 0);
    if (tokenizer) static_cast<void>(tokenizer->encode("Any text, 12 <|x|> \u0301"));
    return 0;
  }
  const auto tokenizer = Tokenizer::create(rest, "fuzz", 1000);
  if (tokenizer) static_cast<void>(tokenizer->encode("Any text, 12 <|x|> \u0301"));
  return 0;
}
