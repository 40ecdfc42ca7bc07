// One member of the kind a line: what a checkpoint may say about the end of an answer.

#include "engine/stop_tokens.h"

#include <gmock/gmock.h>

#include "text/test_data.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// Its tokens <end> and <tag> have the ids 300 and 301.
const Tokenizer& tokenizer() {
  static const Tokenizer made = *Tokenizer::create(to_text(small_tokenizer()), "tokenizer.json", 0);
  return made;
}

StopTokens stops(const char* generation, const char* config, const char* tokenizer_config) {
  const Json parsed[] = {*parse_json(generation, "g"), *parse_json(config, "c"),
                         *parse_json(tokenizer_config, "t")};
  return stop_tokens({.generation_config = parsed[0],
                      .config = parsed[1],
                      .tokenizer_config = parsed[2],
                      .tokenizer = &tokenizer(),
                      .vocab_size = 302});
}

TEST(StopTokens, every_file_alone_ends_an_answer) {
  EXPECT_THAT(stops(R"({"eos_token_id": 7})", "{}", "{}").ids, ElementsAre(7));
  EXPECT_THAT(stops(R"({"eos_token_id": [7, 0]})", "{}", "{}").ids, ElementsAre(7, 0));
  EXPECT_THAT(stops("null", R"({"eos_token_id": 8})", "null").ids, ElementsAre(8));
  EXPECT_THAT(stops("{}", R"({"eos_token_id": [8, 9]})", "{}").ids, ElementsAre(8, 9));
  EXPECT_THAT(stops("{}", R"({"text_config": {"eos_token_id": 9}})", "{}").ids, ElementsAre(9));
  EXPECT_THAT(stops("{}", "{}", R"({"eos_token": "<end>"})").ids, ElementsAre(300));
  EXPECT_THAT(stops("{}", "{}", R"({"eos_token": {"content": "<tag>", "lstrip": false}})").ids,
              ElementsAre(301));
}

TEST(StopTokens, all_files_together_are_a_union_without_doubles) {
  const StopTokens all = stops(R"({"eos_token_id": [7, 300]})",
                               R"({"eos_token_id": 7, "text_config": {"eos_token_id": [8, 7]}})",
                               R"({"eos_token": "<end>"})");
  EXPECT_THAT(all.ids, ElementsAre(7, 300, 8));
  EXPECT_THAT(all.notes, IsEmpty());
}

TEST(StopTokens, nothing_named_is_an_empty_list) {
  for (const char* nothing :
       {"{}", "null", "[]", R"({"eos_token_id": null})", R"({"eos_token_id": []})",
        R"({"eos_token": null})", R"({"eos_token": {}})", R"({"text_config": {}})"}) {
    const StopTokens none = stops(nothing, nothing, nothing);
    EXPECT_THAT(none.ids, IsEmpty()) << nothing;
    EXPECT_THAT(none.notes, IsEmpty()) << nothing;
  }
}

TEST(StopTokens, what_cannot_be_a_token_is_told_and_the_rest_counts) {
  for (const char* wrong :
       {"302", "-1", "4294967298", "1e300", "7.5", "\"<end>\"", "true", "{}", "[302, [1]]"}) {
    const std::string text = std::string(R"({"eos_token_id": )") + wrong + "}";
    const StopTokens found = stops(text.c_str(), R"({"eos_token_id": 5})", "{}");
    EXPECT_THAT(found.ids, ElementsAre(5)) << wrong;
    EXPECT_FALSE(found.notes.empty()) << wrong;
  }
  for (const char* wrong :
       {"\"<none>\"", "\"\"", "5", R"({"content": "<none>"})", R"({"content": 5})"}) {
    const std::string text = std::string(R"({"eos_token": )") + wrong + "}";
    EXPECT_THAT(stops("{}", "{}", text.c_str()).notes, SizeIs(1)) << wrong;
  }
}

TEST(StopTokens, without_a_tokenizer_ids_still_count) {
  const Json none;
  const Json generation{{"eos_token_id", 3}};
  const Json text{{"eos_token", "<end>"}};
  const StopTokens found = stop_tokens({generation, none, text, nullptr, 10});
  EXPECT_THAT(found.ids, ElementsAre(3));
  EXPECT_THAT(found.notes, IsEmpty());
}

}  // namespace
}  // namespace penstock
