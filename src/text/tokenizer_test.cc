#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "text/test_data.h"

namespace penstock {
namespace {

using Ids = std::vector<TokenId>;

Tokenizer make(const std::string& json, int64_t embedding_rows = 0) {
  auto tokenizer = Tokenizer::create(json, "tokenizer.json", embedding_rows);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return *std::move(tokenizer);
}

Tokenizer demo_tokenizer() {
  return make(read_test_file("tokenizer.json"));
}
Tokenizer small() {
  return make(to_text(small_tokenizer()));
}

// The corpus of tools/text_goldens.py.
std::vector<std::vector<std::string>> read_pools() {
  std::vector<std::vector<std::string>> pools;
  const Json file = read_test_json("corpus_pools.json");
  for (const auto& [name, pieces] : file.items()) {
    pools.push_back(pieces.get<std::vector<std::string>>());
  }
  return pools;
}

std::string corpus_line(const std::vector<std::vector<std::string>>& pools, uint64_t index) {
  SplitMix64 random(index);
  std::vector<const std::vector<std::string>*> chosen(1 + random.below(3));
  for (auto& pool : chosen) pool = &pools[random.below(pools.size())];
  std::string line;
  const size_t pieces = 5 + random.below(150);
  for (size_t i = 0; i < pieces; ++i) {
    const std::vector<std::string>& pool = *chosen[random.below(chosen.size())];
    const std::string& piece = pool[random.below(pool.size())];
    size_t repeats = 1;
    if (random.below(16) == 0) repeats += random.below(12);
    for (size_t k = 0; k < repeats; ++k) line += piece;
  }
  return line;
}

std::string hash_of(const Ids& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void expect_cases(const std::string& file) {
  const Tokenizer tokenizer = demo_tokenizer();
  const Json cases = read_test_json(file);
  ASSERT_GT(cases.size(), 10u);
  for (const Json& one : cases) {
    const auto text = one.at("text").get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), one.at("ids").get<Ids>()) << text;
  }
}

TEST(Tokenizer, gives_the_recorded_ids_of_the_model_card) {
  expect_cases("tokenizer_golden.json");
}
TEST(Tokenizer, gives_the_recorded_ids_of_mixed_texts) {
  expect_cases("tokenizer_cases.json");
}

class TokenizerCorpus : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerCorpus, gives_the_references_ids_for_every_line) {
  const std::string variant = GetParam();
  Json definition = read_test_json("tokenizer.json");
  if (variant == "qwen2") {
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = kQwen2Regex;
    for (Json& pair : definition["model"]["merges"]) {
      pair = pair[0].get<std::string>() + " " + pair[1].get<std::string>();
    }
  } else if (variant == "not_normalised") {
    definition["normalizer"] = nullptr;
  }
  const Tokenizer tokenizer = make(to_text(definition));
  const Json hashes = read_test_json("tokenizer_hashes.json").at(variant);
  const auto pools = read_pools();
  size_t bytes = 0;
  size_t wrong = 0;
  for (size_t i = 0; i < hashes.size(); ++i) {
    const std::string line = corpus_line(pools, i);
    bytes += line.size();
    if (hash_of(tokenizer.encode(line)) == hashes[i].get<std::string>()) continue;
    ++wrong;
    if (wrong < 4) ADD_FAILURE() << "line " << i << ": " << line.substr(0, 300);
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(bytes, 1'500'000u);
}

INSTANTIATE_TEST_SUITE_P(Variants, TokenizerCorpus,
                         testing::Values("as_is", "qwen2", "not_normalised"));

TEST(Tokenizer, decodes_what_it_encoded) {
  Json definition = read_test_json("tokenizer.json");
  definition["normalizer"] = nullptr;
  const Tokenizer tokenizer = make(to_text(definition));
  const auto pools = read_pools();
  for (uint64_t i = 0; i < 300; ++i) {
    const std::string line = corpus_line(pools, i);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(line)), line);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(line, SpecialTokens::kAsText)), line);
  }
}

TEST(Tokenizer, merges_in_order_of_rank) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{257}));
  EXPECT_EQ(tokenizer.encode("aab"), (Ids{'a', 256}));
  EXPECT_EQ(tokenizer.encode("aaaaa"), (Ids{259, 'a'}));
  EXPECT_EQ(tokenizer.encode(""), (Ids{}));
}

TEST(Tokenizer, gives_the_same_ids_for_repeated_pieces_from_its_memory) {
  const Tokenizer tokenizer = small();
  const Ids once = tokenizer.encode(" abcaab");
  Ids thrice;
  for (int i = 0; i < 3; ++i) thrice.insert(thrice.end(), once.begin(), once.end());
  EXPECT_EQ(tokenizer.encode(" abcaab abcaab abcaab"), thrice);
}

TEST(Tokenizer, recognises_added_tokens_only_when_asked) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.encode("x<end>ab<tag>"), (Ids{'x', 300, 256, 301}));
  EXPECT_EQ(tokenizer.encode("<end>", SpecialTokens::kAsText), (Ids{'<', 'e', 'n', 'd', '>'}));
  EXPECT_EQ(tokenizer.encode("<tag>", SpecialTokens::kAsText), (Ids{'<', 't', 'a', 'g', '>'}));
  EXPECT_EQ(tokenizer.encode("<en<end>"), (Ids{'<', 'e', 'n', 300}));
}

TEST(Tokenizer, prefers_the_longest_added_token) {
  Json definition = small_tokenizer();
  Json longer = definition["added_tokens"][0];
  longer["content"] = "<end>>";
  longer["id"] = 302;
  definition["added_tokens"].push_back(longer);
  const Tokenizer tokenizer = make(to_text(definition));
  EXPECT_EQ(tokenizer.encode("<end>>"), (Ids{302}));
  EXPECT_EQ(tokenizer.encode("<end><end>>x"), (Ids{300, 302, 'x'}));
}

TEST(Tokenizer, reads_invalid_utf8_as_replacement_characters) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.encode("a\xFF\xE4\xB8"), tokenizer.encode("a\uFFFD\uFFFD"));
  EXPECT_EQ(tokenizer.encode("\xC3<end>"), tokenizer.encode("\uFFFD<end>"));
}

TEST(Tokenizer, decodes_bytes_and_hides_special_tokens) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.decode(Ids{257, 300, 301, ' '}), "abc<end><tag> ");
  EXPECT_EQ(tokenizer.decode(Ids{257, 300, 301, ' '}, true), "abc<tag> ");
  EXPECT_EQ(tokenizer.decode(Ids{0xE4, 0xB8}), "\xE4\xB8");
  EXPECT_EQ(tokenizer.decode(Ids{-1, 299, 1000, 'x'}), "x");
}

TEST(Tokenizer, finds_tokens_by_their_bytes) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.find("<end>"), 300);
  EXPECT_EQ(tokenizer.find("abc"), 257);
  EXPECT_EQ(tokenizer.find(" "), ' ');
  EXPECT_EQ(tokenizer.find("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer.vocab_size(), 302);
  EXPECT_TRUE(tokenizer.is_special(300));
  EXPECT_FALSE(tokenizer.is_special(301));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_FALSE(tokenizer.is_special(9999));
  EXPECT_EQ(tokenizer.token_bytes(257), "abc");
  EXPECT_EQ(tokenizer.token_bytes(299), "");
}

TEST(Tokenizer, encodes_a_megabyte_of_one_character_whatever_it_is) {
  const Tokenizer tokenizer = demo_tokenizer();
  for (const std::string piece :
       {"a", " ", "\n", "\u0301", "1", "=", "世", "'s", "\u0315\u0316", "\xFF"}) {
    std::string text;
    while (text.size() < 500'000) text += piece;
    EXPECT_GT(tokenizer.encode(text).size(), 0u);
  }
}

TEST(Tokenizer, serves_several_threads) {
  const Tokenizer tokenizer = demo_tokenizer();
  const auto pools = read_pools();
  std::vector<Ids> expected;
  for (uint64_t i = 0; i < 40; ++i) expected.push_back(tokenizer.encode(corpus_line(pools, i)));
  std::vector<int> wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < 40; ++i) {
          if (tokenizer.encode(corpus_line(pools, i)) != expected[i]) ++wrong[t];
        }
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, counts_its_memory) {
  const int64_t bytes = demo_tokenizer().memory_bytes();
  EXPECT_GT(bytes, 1 << 20);  // the memory of pieces alone
  EXPECT_LT(bytes, 4 << 20);
}

// Every combination of flags, overlapping tokens, white space and marks beside them: ids recorded
// by tools/added_token_goldens.py.
TEST(Tokenizer, finds_added_tokens_as_the_reference_does) {
  const Json definition = read_test_json("tokenizer.json");
  const Json cases = read_test_json("../added_token_cases.json");
  ASSERT_GT(cases.size(), 100u);
  for (const Json& one : cases) {
    Json changed = definition;
    changed["added_tokens"] = one.at("added");
    changed["normalizer"] = one.at("nfc").get<bool>() ? Json{{"type", "NFC"}} : Json();
    const Tokenizer tokenizer = make(to_text(changed));
    for (const Json& text : one.at("texts")) {
      EXPECT_EQ(tokenizer.encode(text[0].get<std::string>()), text[1].get<Ids>())
          << to_text(text) << "\n"
          << to_text(one.at("added")) << (one.at("nfc").get<bool>() ? " NFC" : "");
    }
  }
}

TEST(Tokenizer, knows_added_tokens_and_where_they_stand) {
  Json definition = small_tokenizer();
  definition["added_tokens"][1]["content"] = "e\u0301!";
  definition["added_tokens"][1]["normalized"] = true;
  const Tokenizer tokenizer = make(to_text(definition));
  EXPECT_TRUE(tokenizer.is_added(300));
  EXPECT_TRUE(tokenizer.is_added(301));
  EXPECT_FALSE(tokenizer.is_added(257));
  EXPECT_FALSE(tokenizer.is_added(-1));
  EXPECT_FALSE(tokenizer.is_added(1000));
  const auto match = tokenizer.find_added("abc<end>", 1);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 3u);
  EXPECT_EQ(match->end, 8u);
  EXPECT_EQ(match->id, 300);
  EXPECT_FALSE(tokenizer.find_added("e\u0301!", 0));
  const auto normalised = tokenizer.as_normalised("e\u0301!");
  ASSERT_TRUE(normalised);
  EXPECT_EQ(tokenizer.find_added(*normalised, 0)->id, 301);
  EXPECT_FALSE(tokenizer.as_normalised("\u00e9!"));
  EXPECT_FALSE(small().as_normalised("e\u0301!"));  // no token is looked for there
}

TEST(Tokenizer, takes_white_space_in_linear_time) {
  // Each blank is a token that takes all the blanks behind it: looked at one by one from every
  // place they would be 10^12 steps.
  Json definition = small_tokenizer();
  definition["added_tokens"][1]["content"] = " ";
  definition["added_tokens"][1]["rstrip"] = true;
  definition["added_tokens"][0]["lstrip"] = true;
  const Tokenizer tokenizer = make(to_text(definition));
  EXPECT_EQ(tokenizer.encode(std::string(2'000'000, ' ')).size(), 2'000'000u);
}

}  // namespace
}  // namespace penstock
