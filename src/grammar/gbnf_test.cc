#include "grammar/gbnf.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/test_grammar.h"

namespace penstock {
namespace {

using namespace std::string_view_literals;

struct Case {
  const char* grammar;
  std::vector<std::string_view> fits;
  std::vector<std::string_view> does_not;
};

const std::vector<Case> kCases = {
    {R"(root ::= "yes" | "no")", {"yes", "no"}, {"", "ye", "yesno", "YES", "not"}},
    {"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "aabb", "bc"}, {"", "a", "bcc", "ac"}},
    {"root ::= [a-c]{2,3}", {"ab", "abc"}, {"a", "abcd", "ad"}},
    {"root ::= [a-c]{2}", {"ab"}, {"a", "abc"}},
    {"root ::= [a-c]{2,}", {"ab", "abcabc"}, {"a"}},
    {"root ::= [^a-c\\]]", {"d", "é", "世", "👍"}, {"a", "]", "dd", "\xFF", "\xC3"}},
    {"root ::= .", {"d", "\n", "👍"}, {"", "ab", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xC0\x80"}},
    {"root ::= [а-я]+", {"привет"}, {"Привет", "ab"}},
    {"root ::= \"\\x41\\u00e9\\U0001F44D\\n\\\"\"", {"Aé👍\n\""}, {"A"}},
    {"root ::= (\"a\" |\n  \"b\")\n# a comment\nother ::= \"x\"\n", {"a", "b"}, {"x"}},
    {"root ::= item (\",\" item)*\nitem ::= [0-9]+", {"1", "1,22,3"}, {"", "1,", ",1"}},
    {"root ::= \"(\" root? \")\"", {"()", "((()))"}, {"(", "(()"}},
    {"root ::= expr\nexpr ::= term ([+*] term)*\nterm ::= [0-9] | \"(\" expr \")\"",
     {"1", "1+2*(3+4)", "((1))"},
     {"1+", "(1", ")"}},
    {"root ::= \"a\" root | \"a\"", {"a", "aaaa"}, {"", "ab"}},
    {"root ::= x{0,3} \"b\"\nx ::= (\"\" | \"a\")*", {"b", "ab", "aaaaaaab"}, {"a", ""}},
    {"root ::= (\"\"*)* \"a\"", {"a"}, {"", "aa"}},
    {"root ::= \"\"", {""}, {"a"}},
    {"root ::= [a-z]{0,5000} \"!\"", {"!", "abc!"}, {"abc", "A!"}},
    {"root ::= (\"ab\" | \"c\"){600,700} \"!\"", {}, {"!", "ab!", "abc!"}},
};

TEST(Gbnf, accepts_what_its_notation_says) {
  for (const Case& c : kCases) {
    const auto source = parse_gbnf(c.grammar);
    ASSERT_TRUE(source) << c.grammar << ": " << source.error().message;
    const auto grammar = Grammar::compile(*source);
    ASSERT_TRUE(grammar) << c.grammar << ": " << grammar.error().message;
    for (const auto text : c.fits) EXPECT_TRUE(fits(*grammar, text)) << c.grammar << " " << text;
    for (const auto text : c.does_not) {
      EXPECT_FALSE(fits(*grammar, text)) << c.grammar << " " << text;
    }
  }
}

TEST(Gbnf, counts_many_repetitions_exactly) {
  const auto compiled = [](const char* text) { return *Grammar::compile(*parse_gbnf(text)); };
  const Grammar chars = compiled("root ::= [a-z]{700,5000}");
  EXPECT_FALSE(fits(chars, std::string(699, 'x')));
  EXPECT_TRUE(fits(chars, std::string(700, 'x')));
  EXPECT_TRUE(fits(chars, std::string(5000, 'x')));
  EXPECT_FALSE(fits(chars, std::string(5001, 'x')));
  const Grammar groups = compiled("root ::= (\"ab\" | \"c\"){600,700}");
  std::string text;
  for (int i = 0; i < 599; ++i) text += i % 2 == 0 ? "ab" : "c";
  EXPECT_FALSE(fits(groups, text));
  EXPECT_TRUE(fits(groups, text + "ab"));
  for (int i = 599; i < 700; ++i) text += "c";
  EXPECT_TRUE(fits(groups, text));
  EXPECT_FALSE(fits(groups, text + "c"));
}

TEST(Gbnf, many_repetitions_of_what_may_be_nothing_may_be_nothing) {
  for (const char* text :
       {"root ::= x{4,50} \"a\"\nx ::= \"b\"?", "root ::= x{4,50} \"a\"\nx ::= \"\"",
        "root ::= x{40,} \"a\"\nx ::= [bc]*"}) {
    const Grammar grammar = *Grammar::compile(*parse_gbnf(text));
    EXPECT_TRUE(fits(grammar, "a")) << text;
    GrammarMatcher matcher(grammar, test_tokens());
    const auto mask = matcher.mask(matcher.start());
    ASSERT_TRUE(mask.has_value());
    EXPECT_NE((*mask)['a' / 64] >> ('a' % 64) & 1, 0u) << text;
  }
  const Grammar some = *Grammar::compile(*parse_gbnf("root ::= x{4,50} \"a\"\nx ::= \"b\"?"));
  EXPECT_TRUE(fits(some, "bba"));
  EXPECT_TRUE(fits(some, std::string(50, 'b') + "a"));
  EXPECT_FALSE(fits(some, std::string(51, 'b') + "a"));
}

TEST(Gbnf, refuses_with_the_line_what_it_cannot_read_or_bound) {
  const std::string deep =
      "root ::= " + std::string(60'000, '(') + "\"a\"" + std::string(60'000, ')');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no rule \"root\""},
      {"a ::= \"x\"", "no rule \"root\""},
      {"root ::= b", "rule \"b\" is used but not defined"},
      {"root ::= \"x\"\nroot ::= \"y\"", "line 2: rule \"root\" is defined twice"},
      {"root ::= \"x", "line 1: a text does not end"},
      {"root ::= [a", "a class does not end"},
      {"root ::= [b-a]", "ends before it begins"},
      {"root ::= (\"a\"", "expected )"},
      {"root ::= \"a\")", "unexpected \")\""},
      {"root = \"a\"", "expected ::="},
      {"root ::= \"a\"{3,2}", "below the minimum"},
      {"root ::= \"a\"{99999999999999999999}", "more than 1000000 repetitions"},
      {"root ::= \"\\q\"", "an escape is not known"},
      {"root ::= \"\\uD800\"", "no character"},
      {"root ::= <think>", "tokens (<...>) are not supported"},
      {deep, "nested deeper than 64"},
      {"root ::= root \"a\" | \"a\"", "left recursion"},
      {"root ::= a\na ::= b* root | \"y\"\nb ::= \"x\"", "left recursion"},
      {"root ::= a{0,2000} \"x\"\na ::= root? \"y\"?", "left recursion"},
      {"root ::= \"a\" root", "can never end"},
      {"root ::= [ab]* \"a\" [ab]{40}", "too complex"},
      {"root ::= ((((\"a\"{30} \"b\"){30} \"c\"){30} \"d\"){30} \"e\"?)?", ""},
  };
  for (const auto& [text, message] : cases) {
    const auto source = parse_gbnf(text);
    const auto grammar = source ? Grammar::compile(*source) : Result<Grammar>(source.error());
    if (message.empty()) continue;  // either way, but soon and in bounds
    ASSERT_FALSE(grammar) << text.substr(0, 80);
    EXPECT_NE(grammar.error().message.find(message), std::string::npos)
        << text.substr(0, 80) << ": " << grammar.error().message;
  }
}

}  // namespace
}  // namespace penstock
