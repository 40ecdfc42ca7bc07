#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "grammar/gbnf.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/test_grammar.h"
#include "grammar/tool_grammar.h"

namespace penstock {
namespace {

bool allows(std::span<const uint64_t> mask, size_t id) {
  return (mask[id / 64] >> (id % 64) & 1) != 0;
}

std::vector<Grammar> grammars() {
  std::vector<Grammar> all;
  for (const char* text :
       {"root ::= [a-z]+ (\" \" [a-z]+)* [.!]", "root ::= \"(\" root? \")\" | [0-9]{2,400}",
        "root ::= .*", "root ::= \"a\"* [^\\n]* \"b\"", "root ::= [世界éa-f]{1,7} \"!\"*",
        "root ::= item{3,900}\nitem ::= \"a\" | \"ab\" | \"abc\""}) {
    all.push_back(*Grammar::compile(*parse_gbnf(text)));
  }
  for (const char* text :
       {R"({"type": "string", "maxLength": 5})", R"({"type": "string", "minLength": 3})",
        R"({"type": "string", "pattern": "^[a-z ]*$", "minLength": 2, "maxLength": 9})",
        R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3},
            "n": {"type": "integer"}}, "required": ["name"]})",
        R"({"type": "array", "items": {"enum": ["a", "ab", null]}, "maxItems": 4})", "true"}) {
    all.push_back(*Grammar::compile(*json_schema_grammar(*parse_json(text, "schema"))));
  }
  const Json tools = *parse_json(
      R"([{"name": "f", "parameters": {"properties": {"name": {"type": "string", "maxLength": 6},
          "a": {}, "b": {"type": "boolean"}}, "required": ["name"]}}])",
      "tools");
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    for (const bool reasons : {false, true}) {
      ToolGrammarOptions options{.form = form};
      options.begins_in_reasoning = reasons;
      all.push_back(std::move(tool_grammar(tools, options)->grammar));
    }
  }
  return all;
}

TEST(GrammarMatcher, a_mask_allows_exactly_what_would_be_accepted) {
  std::mt19937_64 random(3);
  for (const Grammar& grammar : grammars()) {
    for (int round = 0; round < 6; ++round) {
      GrammarMatcher matcher(grammar, test_tokens());
      GrammarState state = matcher.start();
      std::string text;
      for (int i = 0; i < 40; ++i) {
        const auto mask = matcher.mask(state);
        ASSERT_TRUE(mask);
        const std::vector<uint64_t> bits(mask->begin(), mask->end());
        std::vector<size_t> allowed;
        for (size_t id = 0; id < test_vocabulary().size(); ++id) {
          GrammarState next = state;
          const auto accepted = matcher.accept(next, test_vocabulary()[id]);
          ASSERT_TRUE(accepted);
          ASSERT_EQ(*accepted, allows(bits, id)) << text << " + " << test_vocabulary()[id];
          if (*accepted) allowed.push_back(id);
        }
        if (allowed.empty()) {
          ASSERT_TRUE(matcher.can_end(state)) << text;
          break;
        }
        // Long tokens are rare and worth a visit.
        size_t id = allowed[random() % allowed.size()];
        if (random() % 2 == 0)
          id = allowed[allowed.size() - 1 - random() % std::min<size_t>(allowed.size(), 6)];
        ASSERT_TRUE(*matcher.accept(state, test_vocabulary()[id]));
        text += test_vocabulary()[id];
      }
    }
  }
}

TEST(GrammarMatcher, states_are_copied_to_go_back_and_to_fork) {
  const Grammar grammar =
      *Grammar::compile(*json_schema_grammar(*parse_json(R"({"type": "array"})", "schema")));
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  ASSERT_TRUE(*matcher.accept(state, "[[1, "));
  const GrammarState before = state;
  EXPECT_FALSE(*matcher.accept(state, "]]"));
  EXPECT_EQ(state, before);  // what does not fit changes nothing
  GrammarState left = before;
  GrammarState right = before;
  ASSERT_TRUE(*matcher.accept(left, "2]]"));
  ASSERT_TRUE(*matcher.accept(right, "[{\"a\": \"x"));
  EXPECT_TRUE(matcher.can_end(left));
  EXPECT_FALSE(matcher.can_end(right));
  GrammarState again = before;
  ASSERT_TRUE(*matcher.accept(again, "2]]"));
  EXPECT_EQ(again, left);
}

TEST(GrammarMatcher, a_character_may_be_cut_between_tokens) {
  const Grammar grammar = *Grammar::compile(*parse_gbnf("root ::= [世é👍]{2}"));
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  ASSERT_TRUE(*matcher.accept(state, "\xF0\x9F"));
  EXPECT_FALSE(matcher.can_end(state));
  EXPECT_FALSE(*matcher.accept(state, "\x92"));
  ASSERT_TRUE(*matcher.accept(state, "\x91\x8D\xC3"));
  ASSERT_TRUE(*matcher.accept(state, "\xA9"));
  EXPECT_TRUE(matcher.can_end(state));
}

TEST(GrammarMatcher, nesting_ends_at_the_limit_and_can_still_be_closed) {
  GrammarSource source = *json_schema_grammar(*parse_json("true", "schema"));
  const Grammar grammar = *Grammar::compile(source);
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  int depth = 0;
  while (*matcher.accept(state, "[")) ++depth;
  EXPECT_GE(depth, 90);
  EXPECT_LE(depth, 128);
  for (int i = 0; i < depth; ++i) ASSERT_TRUE(*matcher.accept(state, "]"));
  EXPECT_TRUE(matcher.can_end(state));
}

TEST(GrammarMatcher, too_much_ambiguity_is_an_error_and_not_a_wrong_mask) {
  // Every split of the text into words is a reading of its own.
  std::string text = "root ::= ";
  for (int i = 0; i < 12; ++i) text += "a{0,1000} ";
  text += "\"!\"\na ::= \"x\" | \"xx\" b\nb ::= \"y\"? a?\n";
  const auto grammar = Grammar::compile(*parse_gbnf(text));
  ASSERT_TRUE(grammar) << grammar.error().message;
  GrammarMatcher matcher(*grammar, test_tokens());
  GrammarState state = matcher.start();
  bool is_refused = false;
  for (int i = 0; i < 200 && !is_refused; ++i) {
    const auto accepted = matcher.accept(state, "x");
    is_refused = !accepted;
    if (is_refused) {
      EXPECT_NE(accepted.error().message.find("too ambiguous"), std::string::npos);
    }
  }
  EXPECT_TRUE(is_refused);
}

TEST(GrammarMatcher, frames_of_a_mask_are_forgotten) {
  const Grammar grammar = *Grammar::compile(json_object_grammar());
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  ASSERT_TRUE(*matcher.accept(state, "{\"a\": "));
  const size_t frames = matcher.frame_count();
  ASSERT_TRUE(matcher.mask(state));
  EXPECT_EQ(matcher.frame_count(), frames);
}

TEST(TokenTrie, keeps_the_tokens_of_each_subtree_together) {
  const std::vector<std::string_view> texts = {"b", "a", "ab", "", "abc", "b", "\xE4\xB8\x96x"};
  const TokenTrie trie = TokenTrie::create(texts);
  EXPECT_EQ(trie.token_count(), 6u);
  EXPECT_EQ(trie.all_bits()[0], 0b1110111u);
  EXPECT_EQ(trie.node(0).tokens().end, 6u);
  const TokenTrie::Node& a = trie.node(trie.node(0).first_child);
  EXPECT_EQ(a.byte, 'a');
  EXPECT_EQ(a.end_token - a.first_token, 3u);
  EXPECT_EQ(a.own_tokens().end - a.own_tokens().begin, 1u);
  EXPECT_EQ(trie.token(a.first_token), 1);
  EXPECT_EQ(a.characters, 2u);
  EXPECT_EQ(trie.depth_max(), 4u);
  std::vector<uint64_t> bits(trie.all_bits().begin(), trie.all_bits().end());
  trie.keep_up_to(2, bits);
  EXPECT_EQ(bits[0], 0b1100111u);
  trie.keep_up_to(1, bits);
  EXPECT_EQ(bits[0], 0b0100011u);
  EXPECT_EQ(TokenTrie::create({}).token_count(), 0u);
}

}  // namespace
}  // namespace penstock
