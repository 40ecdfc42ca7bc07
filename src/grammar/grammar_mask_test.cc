#include "grammar/grammar_mask.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "text/vocabulary.h"

namespace penstock {
namespace {

constexpr TokenId kEnd = 258;

// All bytes, one word, an end.
Tokenizer tokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[spelling_of_byte(static_cast<uint8_t>(byte))] = byte;
  }
  vocab["ab"] = 256;
  const Json split = {
      {"type", "Split"},
      {"pattern",
       {{"Regex", R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)re"
                  R"re( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  Json root = Json::object();
  root["added_tokens"] =
      Json::array({Json{{"id", 257}, {"content", "<tool_call>"}, {"special", false}},
                   Json{{"id", kEnd}, {"content", "<|im_end|>"}, {"special", true}}});
  root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
  root["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"a b"})}};
  auto made = Tokenizer::create(to_text(root), "small", 0);
  PENSTOCK_CHECK(made.has_value());
  return *std::move(made);
}

bool has(std::span<const uint64_t> bits, TokenId id) {
  return (bits[static_cast<size_t>(id) / 64] >> (static_cast<size_t>(id) % 64) & 1) != 0;
}

class GrammarMaskTest : public testing::Test {
 protected:
  GrammarMask mask(const GrammarSource& source) const {
    return {
        std::make_shared<const Grammar>(*Grammar::compile(source)), tokens_, tokenizer_, {kEnd}};
  }
  Tokenizer tokenizer_ = tokenizer();
  std::shared_ptr<const TokenTrie> tokens_ =
      std::make_shared<const TokenTrie>(TokenTrie::create(tokenizer_));
};

TEST_F(GrammarMaskTest, the_end_is_allowed_where_the_text_may_end) {
  GrammarMask mask = this->mask(*parse_gbnf("root ::= \"ab\" \"c\"?"));
  const auto first = mask.allowed();
  ASSERT_TRUE(first);
  EXPECT_TRUE(has(*first, 256));
  EXPECT_TRUE(has(*first, 'a'));
  EXPECT_FALSE(has(*first, 'b'));
  EXPECT_FALSE(has(*first, kEnd));
  EXPECT_FALSE(mask.accept(kEnd));
  EXPECT_FALSE(mask.accept('b'));
  ASSERT_TRUE(mask.accept(256));
  EXPECT_TRUE(has(*mask.allowed(), kEnd));
  EXPECT_TRUE(has(*mask.allowed(), 'c'));
  ASSERT_TRUE(mask.accept('c'));
  EXPECT_TRUE(has(*mask.allowed(), kEnd));
  EXPECT_FALSE(has(*mask.allowed(), 'c'));
  ASSERT_TRUE(mask.accept(kEnd));
  EXPECT_TRUE(has(*mask.allowed(), kEnd));
  EXPECT_FALSE(mask.accept('a'));
}

TEST_F(GrammarMaskTest, special_tokens_are_no_text_but_tags_are) {
  GrammarMask any = mask(*parse_gbnf("root ::= .*"));
  EXPECT_TRUE(has(*any.allowed(), 257));
  EXPECT_TRUE(has(*any.allowed(), kEnd));  // as the end
  ASSERT_TRUE(any.accept(257));
  GrammarMask string = mask(*json_schema_grammar(*parse_json(R"({"type": "string"})", "")));
  ASSERT_TRUE(string.accept('"'));
  EXPECT_TRUE(has(*string.allowed(), 257));
  EXPECT_FALSE(has(*string.allowed(), kEnd));
}

TEST_F(GrammarMaskTest, forks_go_their_own_way) {
  GrammarMask mask = this->mask(*parse_gbnf("root ::= [a-c]{2}"));
  ASSERT_TRUE(mask.accept('a'));
  const auto fork = mask.fork();
  ASSERT_TRUE(mask.accept('b'));
  EXPECT_TRUE(mask.can_end());
  EXPECT_FALSE(fork->can_end());
  ASSERT_TRUE(fork->accept('c'));
  EXPECT_TRUE(fork->can_end());
}

}  // namespace
}  // namespace penstock
