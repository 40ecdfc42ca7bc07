#include "quality/base_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "quality/prediction.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

constexpr const char* kPath = "/base";
constexpr int kTop = 3;
constexpr int64_t kVocab = 20;

std::vector<std::byte> positions(int count, int seed) {
  std::vector<float> logits(kVocab);
  std::vector<TokenId> scratch;
  std::vector<std::byte> bytes;
  for (int i = 0; i < count; ++i) {
    for (size_t t = 0; t < logits.size(); ++t) {
      logits[t] = static_cast<float>((t * 7 + static_cast<size_t>(i + seed) * 3) % 11);
    }
    append_position(logits, i % 5, kTop, scratch, bytes);
  }
  return bytes;
}

BaseInfo info() {
  return {.label = "the \"best\"",
          .model_id = "0123",
          .lossy = "1 expert per token",
          .vocab_size = kVocab,
          .window_tokens = 4,
          .top = kTop,
          .texts = {},
          .sets = {{"tools", 200, {{"a", {1, 2}, true, false}, {"b", {3, 4}, false, true}}}}};
}

void write(Storage& storage) {
  BaseWriter writer = BaseWriter::create(storage, kPath).value();
  for (int text = 0; text < 3; ++text) {
    const int count = 6 * text;  // the first has none
    const auto bytes = positions(count, text);
    writer.append(std::span(bytes).first(bytes.size() / 2)).value();
    writer.append(std::span(bytes).subspan(bytes.size() / 2)).value();
    writer.end_text(
        {"t" + std::to_string(text), {static_cast<uint64_t>(text), 9}, count, 0.1 + text, {}});
  }
  writer.finish(info()).value();
}

std::string whole(Storage& storage) {
  return read_text(storage, kPath, 1 << 20).value();
}

void rewrite(Storage& storage, std::string_view bytes) {
  storage.open(kPath, OpenMode::kCreate).value()->write(0, std::as_bytes(std::span(bytes))).value();
}

TEST(BaseFile, comes_back_as_it_was_written) {
  SimStorage storage;
  write(storage);
  BaseFile base = BaseFile::open(storage, kPath).value();
  EXPECT_EQ(base.info().label, "the \"best\"");
  EXPECT_EQ(base.info().lossy, "1 expert per token");
  EXPECT_EQ(base.info().top, kTop);
  ASSERT_EQ(base.info().texts.size(), 3u);
  EXPECT_EQ(base.info().texts[2].id, "t2");
  EXPECT_EQ(base.info().texts[2].tokens, (Hash128{2, 9}));
  EXPECT_EQ(base.info().texts[2].nll, 2.1);
  const BaseSet* set = base.info().find_set("tools");
  ASSERT_NE(set, nullptr);
  EXPECT_EQ(base.info().find_set("json"), nullptr);
  EXPECT_EQ(set->max_tokens, 200);
  ASSERT_EQ(set->answers.size(), 2u);
  EXPECT_EQ(set->answers[1].prompt, (Hash128{3, 4}));
  EXPECT_TRUE(set->answers[0].is_exact);
  EXPECT_TRUE(set->answers[1].is_valid);

  const auto expected = positions(12, 2);
  const auto first = base.read(2, 0, 5).value();
  EXPECT_TRUE(std::ranges::equal(first, std::span(expected).first(5 * position_bytes(kTop))));
  const auto rest = base.read(2, 5, 7).value();
  EXPECT_TRUE(std::ranges::equal(rest, std::span(expected).subspan(5 * position_bytes(kTop))));
  EXPECT_EQ(base.read(0, 0, 0).value().size(), 0u);
}

TEST(BaseFile, is_not_there_before_it_is_whole) {
  SimStorage storage;
  {
    BaseWriter writer = BaseWriter::create(storage, kPath).value();
    writer.append(positions(4, 0)).value();
  }
  EXPECT_FALSE(storage.stat(kPath).has_value());
}

// Every byte of it is under a checksum, or is one.
TEST(BaseFile, with_any_byte_changed_is_refused_or_its_positions_are) {
  SimStorage storage;
  write(storage);
  const std::string good = whole(storage);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    rewrite(storage, bad);
    Result<BaseFile> base = BaseFile::open(storage, kPath);
    bool refused = !base;
    for (size_t text = 0; base && text < base->info().texts.size(); ++text) {
      const auto read = base->read(text, 0, base->info().texts[text].predictions);
      refused |= !read;
      EXPECT_TRUE(read || read.error().code == ErrorCode::kCorrupt);
    }
    EXPECT_TRUE(refused) << "byte " << i;
  }
}

TEST(BaseFile, cut_anywhere_is_refused) {
  SimStorage storage;
  write(storage);
  const std::string good = whole(storage);
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    rewrite(storage, std::string_view(good).substr(0, bytes));
    EXPECT_FALSE(BaseFile::open(storage, kPath)) << bytes;
  }
}

// The JSON is exchanged, and sealed again.
Result<BaseFile> open_with(Storage& storage, const std::string& from, const std::string& to) {
  write(storage);
  std::string bytes = whole(storage);
  constexpr size_t kTrailerBytes = 40;
  std::string trailer = bytes.substr(bytes.size() - kTrailerBytes);
  uint64_t offset = 0;
  std::memcpy(&offset, trailer.data(), sizeof offset);
  std::string json = bytes.substr(offset, bytes.size() - kTrailerBytes - offset);
  const size_t at = json.find(from);
  PENSTOCK_CHECK(at != std::string::npos);
  json.replace(at, from.size(), to);
  const Hash128 sum = checksum(std::as_bytes(std::span(json)), 0);
  const uint64_t numbers[] = {offset, json.size(), sum.low, sum.high};
  std::memcpy(trailer.data(), numbers, sizeof numbers);
  rewrite(storage, bytes.substr(0, offset) + json + trailer);
  return BaseFile::open(storage, kPath);
}

TEST(BaseFile, that_says_what_cannot_be_is_refused) {
  SimStorage disk;
  EXPECT_TRUE(open_with(disk, "\"top\":3", "\"top\":3"));
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"top\":3", "\"top\":0"},
           {"\"top\":3", "\"top\":21"},
           {"\"top\":3", "\"top\":4"},
           {"\"predictions\":12", "\"predictions\":13"},
           {"\"predictions\":12", "\"predictions\":11"},
           {"\"predictions\":12", "\"predictions\":999999999999999999"},
           {"\"vocab_size\":20", "\"vocab_size\":0"},
           {"\"nll\":2.1", "\"nll\":\"2.1\""},
           {"\"exact\":true", "\"exact\":1"},
           {"\"label\"", "\"lapel\""},
           {"\"lossy\"", "\"glossy\""},
           {"\"lossy\":\"1 expert per token\"", "\"lossy\":false"},
           {"\"texts\":[", "\"texts\":[7,"}}) {
    const auto base = open_with(disk, from, to);
    ASSERT_FALSE(base) << to;
    EXPECT_EQ(base.error().code, ErrorCode::kCorrupt) << to;
    EXPECT_NE(base.error().message.find(kPath), std::string::npos) << base.error().message;
  }
  // The first kept no word of what was lossy: whether it was the model's nobody knows.
  for (const char* other : {"\"version\":1", "\"version\":3"}) {
    const auto base = open_with(disk, "\"version\":2", other);
    ASSERT_FALSE(base) << other;
    EXPECT_EQ(base.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(base.error().message.find("--write-base"), std::string::npos);
  }
}

TEST(BaseFile, a_token_beyond_the_vocabulary_is_refused_when_it_is_read) {
  SimStorage disk;
  Result<BaseFile> base = open_with(disk, "\"vocab_size\":20", "\"vocab_size\":5");
  ASSERT_TRUE(base);
  EXPECT_EQ(base->read(2, 0, 12).error().code, ErrorCode::kCorrupt);
}

TEST(BaseFile, the_hash_of_tokens_depends_on_their_order) {
  EXPECT_EQ(tokens_hash(std::vector<TokenId>{1, 2}), tokens_hash(std::vector<TokenId>{1, 2}));
  EXPECT_NE(tokens_hash(std::vector<TokenId>{1, 2}), tokens_hash(std::vector<TokenId>{2, 1}));
}

}  // namespace
}  // namespace penstock
