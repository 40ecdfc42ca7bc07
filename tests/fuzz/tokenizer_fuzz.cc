// Any bytes as a tokenizer.json, and any text through a tokenizer that loads: no crash, no hang,
// and what is encoded decodes to the same text.
//
// The first byte chooses: even, the rest is the JSON; odd, the rest is text for a small tokenizer
// without a normaliser.
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

Tokenizer small_tokenizer() {
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
  auto tokenizer = Tokenizer::create(to_text(root), "small", 0);
  PENSTOCK_CHECK(tokenizer.has_value());
  return *std::move(tokenizer);
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
  if (data[0] % 2 == 1) {
    static const Tokenizer tokenizer = penstock::small_tokenizer();
    penstock::check_text(tokenizer, rest);
    return 0;
  }
  const auto tokenizer = Tokenizer::create(rest, "fuzz", 1000);
  if (tokenizer) static_cast<void>(tokenizer->encode("Any text, 12 <|x|> \u0301"));
  return 0;
}
