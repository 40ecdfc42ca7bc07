#include "server/choice_text.h"

#include <gtest/gtest.h>

#include "server/api/reply_parser.h"
#include "text/test_data.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// A token for each byte, so that every cut of a text is some sequence of tokens.
const Tokenizer& bytes_tokenizer() {
  static const Tokenizer tokenizer = [] {
    Json json = small_tokenizer();
    json["added_tokens"] = Json::array();
    return *Tokenizer::create(to_text(json), "tokenizer", 0);
  }();
  return tokenizer;
}

struct Told {
  std::string text, stopped_by;
  bool in_reasoning;
  friend bool operator==(const Told&, const Told&) = default;
};

Told tell(const std::string& answer, const std::vector<std::string>& stops, bool reasons) {
  ChoiceText text(bytes_tokenizer(), stops, reasons);
  Told told;
  for (const char c : answer) {
    told.text += text.push(*bytes_tokenizer().find(std::string(1, c)));
    EXPECT_TRUE(is_valid_utf8(told.text));
  }
  told.text += text.finish();
  told.stopped_by = text.stopped_by();
  told.in_reasoning = text.in_reasoning();
  return told;
}

TEST(ChoiceText, a_stop_string_is_kept_out_and_ends_the_text) {
  EXPECT_EQ(tell("one, two", {"END"}, false), (Told{"one, two", "", false}));
  EXPECT_EQ(tell("oneENDtwo", {"END"}, false), (Told{"one", "END", false}));
  EXPECT_EQ(tell("EENND END", {"END"}, false), (Told{"EENND ", "END", false}));
  EXPECT_EQ(tell("one EN", {"END"}, false), (Told{"one EN", "", false}));
  EXPECT_EQ(tell("aaab", {"aab"}, false), (Told{"a", "aab", false}));
  EXPECT_EQ(tell("\xc3\xa9\xe2\x82\xac!", {"\xe2\x82\xac"}, false),
            (Told{"\xc3\xa9", "\xe2\x82\xac", false}));
}

TEST(ChoiceText, stop_strings_do_not_count_inside_of_reasoning) {
  EXPECT_EQ(tell("END</think>one END", {"END"}, true), (Told{"END</think>one ", "END", false}));
  EXPECT_EQ(tell("</thinkEND", {"END"}, true), (Told{"</thinkEND", "", true}));
  EXPECT_EQ(tell("<</think>x", {}, true), (Told{"<</think>x", "", false}));
}

// What a client is told apart, with the text cut into pieces of this length.
ReplyChoice split(const std::string& answer, bool reasons, size_t piece) {
  ReplyParser::Options options;
  options.opens_reasoning = reasons;
  ReplyParser parser(options);
  ReplyChoice choice;
  for (size_t at = 0; at < answer.size(); at += piece) {
    for (const ReplyDelta& delta : parser.push(answer.substr(at, piece))) choice.add(delta);
  }
  for (const ReplyDelta& delta : parser.finish(false)) choice.add(delta);
  return choice;
}

TEST(ReplyParser, reasoning_and_content_come_apart_at_every_cut) {
  struct Row {
    std::string answer;
    bool reasons;
    std::string reasoning, content;
  };
  const Row rows[] = {
      {"\nI think\n\nso.\n</think>\n\nYes.\n", true, "I think\n\nso.", "Yes.\n"},
      {"never done", true, "never done", ""},
      {"never </thin", true, "never </thin", ""},
      {"<think>\nhm\n</think>\n\nYes", false, "hm", "Yes"},
      {"plain <think> text", false, "", "plain <think> text"},
      {"<thin", false, "", "<thin"},
      {"</think>\n\nYes", true, "", "Yes"},
      {"a</think></think>b", true, "a", "</think>b"},
      {"", true, "", ""},
  };
  for (const Row& row : rows) {
    for (size_t piece = 1; piece <= row.answer.size() + 1; ++piece) {
      const ReplyChoice choice = split(row.answer, row.reasons, piece);
      EXPECT_EQ(choice.reasoning, row.reasoning) << row.answer << " by " << piece;
      EXPECT_EQ(choice.content, row.content) << row.answer << " by " << piece;
    }
  }
}

}  // namespace
}  // namespace penstock
