#include "text/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "text/test_data.h"

namespace penstock {
namespace {

struct BadFile {
  const char* name;
  std::function<void(Json&)> spoil;
  ErrorCode code;
  const char* says;  // a part of the message
};

class TokenizerJsonErrors : public testing::TestWithParam<BadFile> {};

TEST_P(TokenizerJsonErrors, are_reported_with_the_key) {
  Json definition = small_tokenizer();
  GetParam().spoil(definition);
  const std::string text = to_text(definition);
  const auto tables = read_tokenizer({text, "a/tokenizer.json"}, 310);
  ASSERT_FALSE(tables);
  EXPECT_EQ(tables.error().code, GetParam().code) << tables.error().message;
  EXPECT_NE(tables.error().message.find(GetParam().says), std::string::npos)
      << tables.error().message;
  EXPECT_EQ(tables.error().message.find("a/tokenizer.json: "), 0u) << tables.error().message;
}

constexpr auto kCorrupt = ErrorCode::kCorrupt;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

Json& split(Json& root) {
  return root["pre_tokenizer"]["pretokenizers"][0];
}
Json& byte_level(Json& root) {
  return root["pre_tokenizer"]["pretokenizers"][1];
}

INSTANTIATE_TEST_SUITE_P(
    Files, TokenizerJsonErrors,
    testing::Values(
        BadFile{"not_an_object", [](Json& j) { j = Json::array(); }, kCorrupt, "not a JSON object"},
        BadFile{"model_missing", [](Json& j) { j.erase("model"); }, kCorrupt,
                "\"model\" is missing"},
        BadFile{"model_of_other_type", [](Json& j) { j["model"]["type"] = "WordPiece"; },
                kUnsupported, "WordPiece"},
        BadFile{"vocab_missing", [](Json& j) { j["model"].erase("vocab"); }, kCorrupt,
                "model.vocab"},
        BadFile{"vocab_is_a_list", [](Json& j) { j["model"]["vocab"] = Json::array(); }, kCorrupt,
                "model.vocab"},
        BadFile{"merges_missing", [](Json& j) { j["model"].erase("merges"); }, kCorrupt,
                "model.merges"},
        BadFile{"merges_is_text", [](Json& j) { j["model"]["merges"] = "a b"; }, kCorrupt,
                "model.merges"},
        BadFile{"merge_of_unknown_token", [](Json& j) { j["model"]["merges"].push_back("a zz"); },
                kCorrupt, "merges[4]\": token \"zz\""},
        BadFile{"merge_to_unknown_token", [](Json& j) { j["model"]["merges"].push_back("b a"); },
                kCorrupt, "token \"ba\""},
        BadFile{"merge_outside_the_alphabet",
                [](Json& j) {
                  j["model"]["merges"].push_back({"世", "a"});
                },
                kCorrupt, "merges[4]"},
        BadFile{"merge_of_one", [](Json& j) { j["model"]["merges"].push_back("a"); }, kCorrupt,
                "must be two tokens"},
        BadFile{"merge_of_three",
                [](Json& j) {
                  j["model"]["merges"].push_back({"a", "b", "c"});
                },
                kCorrupt, "must be two tokens"},
        BadFile{"merge_of_a_number", [](Json& j) { j["model"]["merges"].push_back(7); }, kCorrupt,
                "must be two tokens"},
        BadFile{"merge_twice",
                [](Json& j) {
                  j["model"]["merges"].push_back({"a", "b"});
                },
                kCorrupt, "there twice"},
        BadFile{"id_twice", [](Json& j) { j["model"]["vocab"]["abc"] = 256; }, kCorrupt,
                "id 256 is given twice"},
        BadFile{"id_negative", [](Json& j) { j["model"]["vocab"]["abc"] = -1; }, kCorrupt,
                "\"abc\""},
        BadFile{"id_a_fraction", [](Json& j) { j["model"]["vocab"]["abc"] = 1.5; }, kCorrupt,
                "\"abc\""},
        BadFile{"id_a_text", [](Json& j) { j["model"]["vocab"]["abc"] = "257"; }, kCorrupt,
                "\"abc\""},
        BadFile{"id_huge", [](Json& j) { j["model"]["vocab"]["abc"] = uint64_t{1} << 63; },
                kCorrupt, "\"abc\""},
        BadFile{"id_beyond_the_embedding", [](Json& j) { j["model"]["vocab"]["abc"] = 310; },
                kCorrupt, "310 rows"},
        BadFile{"byte_missing", [](Json& j) { j["model"]["vocab"].erase("!"); }, kCorrupt,
                "byte 0x21"},
        BadFile{"added_is_an_object", [](Json& j) { j["added_tokens"] = Json::object(); }, kCorrupt,
                "added_tokens"},
        BadFile{"added_without_id", [](Json& j) { j["added_tokens"][1].erase("id"); }, kCorrupt,
                "added_tokens[1]"},
        BadFile{"added_without_content", [](Json& j) { j["added_tokens"][0].erase("content"); },
                kCorrupt, "added_tokens[0]"},
        BadFile{"added_empty", [](Json& j) { j["added_tokens"][0]["content"] = ""; }, kCorrupt,
                "added_tokens[0]"},
        BadFile{"added_long",
                [](Json& j) { j["added_tokens"][0]["content"] = std::string(257, 'x'); }, kCorrupt,
                "257"},
        BadFile{"added_id_twice", [](Json& j) { j["added_tokens"][1]["id"] = 300; }, kCorrupt,
                "id 300 is given twice"},
        BadFile{"added_text_twice", [](Json& j) { j["added_tokens"][1]["content"] = "<end>"; },
                kCorrupt, "there twice"},
        BadFile{"added_id_of_another_token", [](Json& j) { j["added_tokens"][1]["id"] = 257; },
                kCorrupt, "gives to \"abc\""},
        BadFile{"added_in_another_place", [](Json& j) { j["model"]["vocab"]["<end>"] = 305; },
                kCorrupt, "but id 305 in \"model.vocab\""},
        BadFile{"added_flag_a_number", [](Json& j) { j["added_tokens"][1]["lstrip"] = 1; },
                kCorrupt, "added_tokens[1].lstrip"},
        BadFile{"normalizer_other",
                [](Json& j) {
                  j["normalizer"] = {{"type", "NFKC"}};
                },
                kUnsupported, "NFKC"},
        BadFile{"pre_tokenizer_missing", [](Json& j) { j.erase("pre_tokenizer"); }, kCorrupt,
                "pre_tokenizer"},
        BadFile{"pre_tokenizer_other",
                [](Json& j) {
                  j["pre_tokenizer"] = {{"type", "Whitespace"}};
                },
                kUnsupported, "pre_tokenizer"},
        BadFile{"pre_tokenizer_alone", [](Json& j) { j["pre_tokenizer"] = byte_level(j); },
                kUnsupported, "pre_tokenizer"},
        BadFile{"split_of_other_regex", [](Json& j) { split(j)["pattern"]["Regex"] = "\\s+"; },
                kUnsupported, "regular expression"},
        BadFile{"split_without_regex",
                [](Json& j) {
                  split(j)["pattern"] = {{"String", " "}};
                },
                kCorrupt, "Regex"},
        BadFile{"split_removed", [](Json& j) { split(j)["behavior"] = "Removed"; }, kUnsupported,
                "Isolated"},
        BadFile{"split_inverted", [](Json& j) { split(j)["invert"] = true; }, kUnsupported,
                "inverted"},
        BadFile{"prefix_space", [](Json& j) { byte_level(j)["add_prefix_space"] = true; },
                kUnsupported, "add_prefix_space"},
        BadFile{"second_regex", [](Json& j) { byte_level(j)["use_regex"] = true; }, kUnsupported,
                "use_regex"},
        BadFile{"post_processor_adds",
                [](Json& j) {
                  j["post_processor"] = {{"type", "TemplateProcessing"}};
                },
                kUnsupported, "TemplateProcessing"},
        BadFile{"decoder_other",
                [](Json& j) {
                  j["decoder"] = {{"type", "Metaspace"}};
                },
                kUnsupported, "Metaspace"},
        BadFile{"byte_fallback", [](Json& j) { j["model"]["byte_fallback"] = true; }, kUnsupported,
                "byte_fallback"},
        BadFile{"ignore_merges", [](Json& j) { j["model"]["ignore_merges"] = true; }, kUnsupported,
                "ignore_merges"},
        BadFile{"suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, kUnsupported,
                "end_of_word_suffix"},
        BadFile{"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, kUnsupported, "dropout"}),
    [](const auto& file) { return std::string(file.param.name); });

TEST(TokenizerJson, refuses_what_is_not_json) {
  for (const char* text :
       {"", "{", "version https://git-lfs.github.com/spec/v1", "{\"a\":1,\"a\":2}", "\xFF"}) {
    const auto tables = read_tokenizer({text, "tokenizer.json"}, 0);
    ASSERT_FALSE(tables) << text;
    EXPECT_EQ(tables.error().code, ErrorCode::kCorrupt);
  }
}

TEST(TokenizerJson, accepts_what_does_not_matter) {
  Json definition = small_tokenizer();
  definition["truncation"] = {{"max_length", 5}};
  definition["padding"] = {{"pad_id", 0}};
  definition["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  definition["model"]["dropout"] = nullptr;
  definition["model"]["continuing_subword_prefix"] = "";
  definition["model"]["vocab"]["世"] = 305;  // outside the byte alphabet: never reached
  const std::string text = to_text(definition);
  auto tables = read_tokenizer({text, "tokenizer.json"}, 0);
  ASSERT_TRUE(tables) << tables.error().message;
  EXPECT_TRUE(tables->is_nfc);
  EXPECT_EQ(tables->pattern, SplitPattern::kLettersAndMarks);
  EXPECT_EQ(tables->vocabulary.bytes_of(305), "世");
}

TEST(TokenizerJson, escapes_the_names_that_it_prints) {
  Json definition = small_tokenizer();
  definition["model"]["vocab"]["bad\n\x1B[31m" + std::string(1000, 'x')] = -1;
  const std::string text = to_text(definition);
  const auto tables = read_tokenizer({text, "tokenizer.json"}, 0);
  ASSERT_FALSE(tables);
  EXPECT_EQ(tables.error().message.find('\x1B'), std::string::npos);
  EXPECT_EQ(tables.error().message.find('\n'), std::string::npos);
  EXPECT_LT(tables.error().message.size(), 300u);
}

// The added tokens of the small tokenizer and what the files beside it say, by text.
Result<std::map<std::string, AddedToken>> tokens_of(const Json& definition,
                                                    std::optional<std::string> config,
                                                    std::optional<std::string> older = {}) {
  const std::string text = to_text(definition);
  const auto tables = PENSTOCK_TRY(read_tokenizer({text, "tokenizer.json", config, older}, 0));
  std::map<std::string, AddedToken> tokens;
  for (const AddedToken& token : tables.added.all()) tokens[token.text] = token;
  return tokens;
}

TEST(AddedTokenFiles, the_configuration_adds_and_its_flags_win) {
  const auto tokens = tokens_of(small_tokenizer(), R"({
      "added_tokens_decoder": {
        "300": {"content": "<end>", "lstrip": true, "normalized": false, "special": false},
        "305": {"content": "<new>", "special": false}},
      "eos_token": "<end>", "pad_token": {"content": "<pad>", "rstrip": true}, "unk_token": null,
      "additional_special_tokens": ["<new>", "abc"],
      "extra_special_tokens": {"image_token": "<image>"}})");
  ASSERT_TRUE(tokens) << tokens.error().message;
  EXPECT_TRUE(tokens->at("<end>").takes_left);
  EXPECT_TRUE(tokens->at("<end>").is_special);  // because it is named
  EXPECT_EQ(tokens->at("<new>").id, 305);
  EXPECT_TRUE(tokens->at("<new>").is_normalized);  // what add_tokens writes
  EXPECT_EQ(tokens->at("<pad>").id, 306);          // no list has it: the next free id
  EXPECT_TRUE(tokens->at("<pad>").takes_right);
  EXPECT_EQ(tokens->at("abc").id, 257);  // the vocabulary has it
  EXPECT_EQ(tokens->at("<image>").id, 307);
  EXPECT_FALSE(tokens->at("abc").is_normalized);
}

TEST(AddedTokenFiles, the_older_list_counts_without_the_newer) {
  const std::string older = R"({"<old>": 305, "<end>": 300})";
  const auto alone = tokens_of(small_tokenizer(), R"({"eos_token": "<old>"})", older);
  ASSERT_TRUE(alone) << alone.error().message;
  EXPECT_EQ(alone->at("<old>").id, 305);
  EXPECT_TRUE(alone->at("<old>").is_special);
  EXPECT_FALSE(alone->at("<old>").is_normalized);
  EXPECT_EQ(alone->at("<end>"), tokens_of(small_tokenizer(), std::nullopt)->at("<end>"));
  const auto both = tokens_of(small_tokenizer(), R"({"added_tokens_decoder": {}})", older);
  ASSERT_TRUE(both) << both.error().message;
  EXPECT_FALSE(both->contains("<old>"));
}

TEST(AddedTokenFiles, say_what_is_wrong) {
  const auto error_of = [](const char* config, std::optional<std::string> older = {}) {
    const auto tokens = tokens_of(small_tokenizer(), config, std::move(older));
    EXPECT_FALSE(tokens) << config;
    return tokens ? "" : tokens.error().message;
  };
  EXPECT_THAT(error_of("{"), testing::HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": []})"), testing::HasSubstr("must be an object"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": {"x": {"content": "y"}}})"),
              testing::HasSubstr("the id must be"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": {"99999999": {"content": "y"}}})"),
              testing::HasSubstr("the id must be"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": {"305": {"content": "<end>"}}})"),
              testing::HasSubstr("\"<end>\" has id 305, but id 300 elsewhere"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": {"300": {"content": "other"}}})"),
              testing::HasSubstr("id 300 is given twice"));
  EXPECT_THAT(error_of(R"({"added_tokens_decoder": {"305": {}}})"), testing::HasSubstr("content"));
  EXPECT_THAT(error_of("{}", "[]"), testing::HasSubstr("added_tokens.json"));
  EXPECT_THAT(error_of("{}", R"({"x": "y"})"), testing::HasSubstr("the id of token \"x\""));
}

TEST(AddedTokenFiles, a_token_beyond_the_embedding_is_left_out_and_told) {
  Json definition = small_tokenizer();
  definition["added_tokens"][1]["id"] = 310;
  const std::string text = to_text(definition);
  const std::string name = definition["added_tokens"][1]["content"];
  const auto tables = read_tokenizer({text, "tokenizer.json"}, 310);
  ASSERT_TRUE(tables) << tables.error().message;
  ASSERT_EQ(tables->notes.size(), 1u);
  EXPECT_THAT(tables->notes[0], testing::HasSubstr("310 rows and none for 1 of"));
  EXPECT_THAT(tables->notes[0], testing::HasSubstr(name));
  EXPECT_EQ(tables->added.find(name), nullptr);
  EXPECT_TRUE(read_tokenizer({text, "tokenizer.json"}, 311)->notes.empty());
}

}  // namespace
}  // namespace penstock
