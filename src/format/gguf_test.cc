#include "format/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/test_gguf.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using test::GgufBytes;
using test::GgufSpec;
using testing::ElementsAre;
using testing::HasSubstr;

Result<GgufModel> open_bytes(std::string_view bytes) {
  SimStorage disk;
  test::store(disk, "/f.gguf", bytes);
  return GgufModel::open(disk, "/f.gguf");
}

// Two tensors, so that there is a neighbour to overlap with.
GgufSpec good() {
  GgufSpec spec;
  spec.keys = {test::gguf_string("general.architecture", "qwen35moe"),
               test::gguf_u32("qwen35moe.block_count", 4)};
  spec.tensors = {{"a.weight", 8, {32, 3}, std::string(3 * 34, '\1')},
                  {"b.weight", 0, {5}, std::string(20, '\2')}};
  return spec;
}

void expect_refused(const GgufSpec& spec, const char* message,
                    ErrorCode code = ErrorCode::kCorrupt) {
  const auto opened = open_bytes(spec.bytes());
  ASSERT_FALSE(opened.has_value()) << message;
  EXPECT_EQ(opened.error().code, code) << opened.error().message;
  EXPECT_THAT(opened.error().message, HasSubstr("/f.gguf"));
  EXPECT_THAT(opened.error().message, HasSubstr(message));
}

TEST(Gguf, keys_and_tensors_are_read) {
  GgufSpec spec = good();
  spec.keys.push_back(test::gguf_f32("f", 0.5f));
  spec.keys.push_back(test::gguf_strings("words", {"a", "", "ccc"}));
  spec.keys.push_back(test::gguf_list<int16_t>("numbers", GgufType::kI16, {-3, 4}));
  spec.keys.push_back(test::gguf_list<uint8_t>("flags", GgufType::kBool, {1, 0}));
  spec.keys.push_back(test::gguf_key<uint8_t>("yes", GgufType::kBool, 1));
  spec.keys.push_back(test::gguf_list<int32_t>("none", GgufType::kI32, {}));
  spec.keys.push_back(test::gguf_key<uint64_t>("huge", GgufType::kU64, UINT64_MAX));
  const auto model = open_bytes(spec.bytes());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const GgufMetadata& keys = model->metadata();
  EXPECT_EQ(keys.string("general.architecture").value(), "qwen35moe");
  EXPECT_EQ(keys.integer("qwen35moe.block_count", 1, 100).value(), 4);
  EXPECT_EQ(keys.number("f").value(), 0.5);
  EXPECT_EQ(keys.number("qwen35moe.block_count").value(), 4);
  EXPECT_THAT(keys.strings("words").value(), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(keys.integers("numbers").value(), ElementsAre(-3, 4));
  EXPECT_THAT(keys.integers("flags").value(), ElementsAre(1, 0));
  EXPECT_TRUE(keys.integers("none").value().empty());
  EXPECT_TRUE(keys.boolean("yes").value());

  const GgufTensor* a = model->find("a.weight");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->type, BlockType::kQ8_0);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(a->bytes, 3u * 34);
  EXPECT_EQ(spec.bytes()[a->offset], '\1');
  EXPECT_EQ(spec.bytes()[model->find("b.weight")->offset], '\2');
  EXPECT_EQ(model->find("c"), nullptr);
}

TEST(Gguf, keys_of_the_wrong_kind_are_told_by_name) {
  GgufSpec spec = good();
  spec.keys.push_back(test::gguf_key<uint64_t>("huge", GgufType::kU64, UINT64_MAX));
  spec.keys.push_back(test::gguf_strings("words", {"a"}));
  const auto model = open_bytes(spec.bytes());
  const GgufMetadata& keys = model->metadata();
  EXPECT_EQ(keys.string("missing").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(keys.integer("qwen35moe.block_count", 5, 9).error().message,
              HasSubstr("key \"qwen35moe.block_count\" is 4, expected 5 to 9"));
  EXPECT_THAT(keys.integer("huge", 0, INT64_MAX).error().message, HasSubstr("beyond 2^63"));
  EXPECT_THAT(keys.integer("words", 0, 1).error().message, HasSubstr("is a list of string"));
  EXPECT_THAT(keys.integer("general.architecture", 0, 1).error().message,
              HasSubstr("is string, expected an integer"));
  EXPECT_THAT(keys.number("general.architecture").error().message, HasSubstr("a number"));
  EXPECT_THAT(keys.boolean("qwen35moe.block_count").error().message, HasSubstr("a bool"));
  EXPECT_THAT(keys.string("qwen35moe.block_count").error().message, HasSubstr("a string"));
  EXPECT_THAT(keys.strings("general.architecture").error().message, HasSubstr("a list"));
  EXPECT_THAT(keys.integers("words").error().message, HasSubstr("a list of integers"));
}

TEST(Gguf, what_is_something_else_is_said) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "an empty file"},
      {"<!DOCTYPE html><html>", "an HTML page"},
      {"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"},
      {"garbage", "not a GGUF file"},
      {"G", "not a GGUF file"},
      {"GGUF", "cut short"},
  };
  for (const auto& [bytes, message] : cases) {
    const auto opened = open_bytes(bytes);
    ASSERT_FALSE(opened.has_value()) << bytes;
    EXPECT_THAT(opened.error().message, HasSubstr(message));
  }
}

TEST(Gguf, other_versions_and_byte_orders_are_refused) {
  for (const uint32_t version : {0u, 1u, 2u, 4u, 0xffffffffu}) {
    GgufSpec spec = good();
    spec.version = version;
    expect_refused(spec, "only 3 is read", ErrorCode::kUnsupported);
  }
  GgufSpec spec = good();
  spec.version = 0x03000000;
  expect_refused(spec, "big-endian", ErrorCode::kUnsupported);
  spec = good();
  spec.magic = "FUGG";
  expect_refused(spec, "big-endian", ErrorCode::kUnsupported);
}

TEST(Gguf, a_file_cut_anywhere_is_refused) {
  const std::string whole = good().bytes();
  ASSERT_TRUE(open_bytes(whole).has_value());
  const size_t unpadded = whole.size() - 12;  // the last tensor has 20 of 32 bytes
  for (size_t bytes = 0; bytes < unpadded; ++bytes) {
    EXPECT_FALSE(open_bytes(whole.substr(0, bytes)).has_value()) << bytes;
  }
  for (size_t bytes = unpadded; bytes <= whole.size(); ++bytes) {
    EXPECT_TRUE(open_bytes(whole.substr(0, bytes)).has_value()) << bytes;
  }
  EXPECT_THAT(open_bytes(whole + "x").error().message, HasSubstr("1 bytes follow"));
}

TEST(Gguf, huge_counts_and_lengths_allocate_nothing) {
  for (const int64_t count : {int64_t{1} << 21, int64_t{1} << 32, INT64_MAX, int64_t{-1} << 62}) {
    GgufSpec spec = good();
    spec.num_tensors = count < 0 ? INT64_MIN + 1 - count : count;
    if (count > 0) expect_refused(spec, "tensors");
    spec = good();
    spec.num_keys = count > 0 ? count : INT64_MAX;
    expect_refused(spec, "keys");
  }
  for (const uint64_t length : {uint64_t{1000}, uint64_t{1} << 32, UINT64_MAX - 3, UINT64_MAX}) {
    GgufSpec spec = good();
    spec.keys.push_back(GgufBytes().number(length).raw("key").text());  // a key's own length
    expect_refused(spec, length == 1000 ? "cut short" : "at most 1024 are read");
    spec = good();
    spec.keys.push_back(GgufBytes().string("k").number<uint32_t>(8).number(length).text());
    expect_refused(spec, length == 1000 ? "cut short" : "at most 16777216 are read");
    spec = good();
    spec.keys.push_back(
        GgufBytes().string("k").number<uint32_t>(9).number<uint32_t>(8).number(length).text());
    expect_refused(spec, length == 1000 ? "cut short" : "elements");
    spec = good();
    spec.keys.push_back(
        GgufBytes().string("k").number<uint32_t>(9).number<uint32_t>(12).number(length).text());
    expect_refused(spec, length == 1000 ? "cut short" : "elements");
    spec = good();
    spec.keys.push_back(GgufBytes()
                            .string("k")
                            .number<uint32_t>(9)
                            .number<uint32_t>(8)
                            .number<uint64_t>(1)
                            .number(length)
                            .text());
    expect_refused(spec, length == 1000 ? "cut short" : "at most 16777216 are read");
  }
}

TEST(Gguf, a_number_of_tensors_or_keys_that_the_file_cannot_hold_is_refused) {
  GgufSpec spec = good();
  spec.num_tensors = 200;
  expect_refused(spec, "states 200 tensors");
  spec = good();
  spec.num_keys = 65;
  expect_refused(spec, "states 65 keys");
}

TEST(Gguf, dimensions_are_checked) {
  const auto with = [](std::vector<uint64_t> dimensions, uint32_t type) {
    GgufSpec spec = good();
    spec.tensors[0].dimensions = std::move(dimensions);
    spec.tensors[0].type = type;
    return spec;
  };
  expect_refused(with({}, 0), "has 0 dimensions");
  expect_refused(with({1, 1, 1, 1, 1}, 0), "has 5 dimensions");
  expect_refused(with({1, 1, 1, 1, 1, 1, 1, 1, 1}, 0), "has 9 dimensions");
  expect_refused(with({32, 0}, 0), "has a dimension of 0");
  expect_refused(with({UINT64_MAX, 1}, 0), "has a dimension of");
  expect_refused(with({uint64_t{1} << 32, uint64_t{1} << 32}, 0), "more elements");
  expect_refused(with({uint64_t{1} << 62, 2}, 0), "more elements");
  expect_refused(with({uint64_t{1} << 62}, 0), "more elements");  // they fit, their bytes wrap to 0
  expect_refused(with({uint64_t{1} << 61, 2}, 28), "more elements");  // F64
  expect_refused(with({33, 3}, 8), "multiples of 32");
  expect_refused(with({96 * 3, 1}, 12), "multiples of 256");
  expect_refused(with({32, 4}, 8), "hole or an overlap");  // one row more than its data
  expect_refused(with({32, 1000}, 8), "cut short");
}

TEST(Gguf, offsets_are_checked) {
  const auto with = [](int64_t first, int64_t second) {
    GgufSpec spec = good();
    spec.tensors[0].offset = first;
    spec.tensors[1].offset = second;
    return spec;
  };
  expect_refused(with(0, 32), "overlap");
  expect_refused(with(0, 0), "overlap");
  expect_refused(with(32, 128), "hole");
  expect_refused(with(0, 129), "no multiple of 32");
  expect_refused(with(0, 1 << 20), "cut short");
  expect_refused(with(0, INT64_MAX - 31), "cut short");
  expect_refused(with(0, int64_t{-32} & INT64_MAX), "cut short");
  // The sum of sizes wraps though each alone is far too large already.
  GgufSpec spec = good();
  spec.tensors[0].dimensions = {uint64_t{1} << 61};
  spec.tensors[0].type = 24;
  spec.tensors[1].dimensions = {uint64_t{1} << 61};
  spec.tensors[1].type = 24;
  spec.tensors[1].offset = int64_t{1} << 61;
  expect_refused(spec, "cut short");
}

TEST(Gguf, the_order_of_the_list_is_not_the_order_of_the_data) {
  GgufSpec spec = good();
  std::swap(spec.tensors[0].offset, spec.tensors[1].offset);
  spec.tensors[0].offset = 32;
  spec.tensors[1].offset = 0;
  std::string bytes = spec.bytes();  // data stay where they were; only places are asked for here
  const auto model = open_bytes(bytes);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->find("a.weight")->offset, model->find("b.weight")->offset + 32);
}

TEST(Gguf, the_alignment_is_the_files_own) {
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufSpec spec = good();
    spec.keys.push_back(test::gguf_u32("general.alignment", alignment));
    spec.alignment = alignment;
    const auto model = open_bytes(spec.bytes());
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_EQ(model->find("a.weight")->offset % alignment, 0u);
    spec.alignment = alignment == 1 ? 64 : 1;
    EXPECT_FALSE(open_bytes(spec.bytes()).has_value()) << alignment;
  }
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 21, 1u << 31}) {
    GgufSpec spec = good();
    spec.keys.push_back(test::gguf_u32("general.alignment", alignment));
    expect_refused(spec, "general.alignment");
  }
  GgufSpec spec = good();
  spec.keys.push_back(test::gguf_string("general.alignment", "32"));
  expect_refused(spec, "expected an integer");
}

TEST(Gguf, names_are_checked_and_printed_escaped) {
  GgufSpec spec = good();
  spec.keys.push_back(test::gguf_u32("qwen35moe.block_count", 4));
  expect_refused(spec, "key \"qwen35moe.block_count\" is there twice");
  spec = good();
  spec.tensors[1].name = "a.weight";
  expect_refused(spec, "tensor \"a.weight\" is there twice");
  for (const std::string& name :
       {std::string(""), std::string("a\0b", 3), std::string("\x1b[2J")}) {
    spec = good();
    spec.tensors[1].name = name;
    expect_refused(spec, "without control characters");
    spec = good();
    spec.keys.push_back(test::gguf_u32(name, 1));
    expect_refused(spec, "without control characters");
  }
  spec = good();
  spec.tensors[1].name = std::string(1 << 20, 'n');
  expect_refused(spec, "at most 512 are read");
}

TEST(Gguf, unknown_types_are_refused) {
  GgufSpec spec = good();
  spec.tensors[0].type = 99;
  expect_refused(spec, "type 99, which is not known", ErrorCode::kUnsupported);
  spec.tensors[0].type = 31;
  expect_refused(spec, "Q4_0_4_4", ErrorCode::kUnsupported);
  spec = good();
  spec.keys.push_back(test::gguf_u32("k", 1));
  spec.keys.back()[9] = 13;  // the type, after length and key
  expect_refused(spec, "has type 13");
  spec = good();
  spec.keys.push_back(
      GgufBytes().string("k").number<uint32_t>(9).number<uint32_t>(9).number<uint64_t>(0).text());
  expect_refused(spec, "a list of lists", ErrorCode::kUnsupported);
  spec = good();
  spec.keys.push_back(test::gguf_key<uint8_t>("k", GgufType::kBool, 2));
  expect_refused(spec, "the bool 2");
}

TEST(Gguf, sizes_of_types_fit_the_rows) {
  // 1024 columns are whole blocks of every type.
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const BlockLayout& layout = layout_of(static_cast<BlockType>(i));
    GgufSpec spec;
    const auto bytes = static_cast<size_t>(bytes_of(layout, 3 * 1024));
    spec.tensors = {{"t", layout.gguf_id, {1024, 3}, std::string(bytes, '\0')}};
    const auto model = open_bytes(spec.bytes());
    ASSERT_TRUE(model.has_value()) << layout.name << model.error().message;
    EXPECT_EQ(model->find("t")->bytes, bytes) << layout.name;
    EXPECT_EQ(model->find("t")->type, layout.type);
  }
}

// Three shards with one tensor each.
struct Split {
  SimStorage disk;
  std::vector<GgufSpec> shards;

  Split() {
    for (uint16_t i = 0; i < 3; ++i) {
      GgufSpec spec;
      if (i == 0) spec.keys.push_back(test::gguf_string("general.architecture", "qwen35moe"));
      spec.keys.push_back(test::gguf_key<uint16_t>("split.no", GgufType::kU16, i));
      spec.keys.push_back(test::gguf_key<uint16_t>("split.count", GgufType::kU16, 3));
      spec.keys.push_back(test::gguf_key<int32_t>("split.tensors.count", GgufType::kI32, 3));
      spec.tensors = {{"t" + std::to_string(i), 0, {8}, std::string(32, '\0')}};
      shards.push_back(spec);
    }
  }
  static std::string path(size_t i) { return "/m-0000" + std::to_string(i + 1) + "-of-00003.gguf"; }
  Result<GgufModel> open(size_t which = 0) {
    for (size_t i = 0; i < shards.size(); ++i) test::store(disk, path(i), shards[i].bytes());
    return GgufModel::open(disk, path(which));
  }
  void expect_refused(const char* message, ErrorCode code = ErrorCode::kCorrupt) {
    const auto opened = open();
    ASSERT_FALSE(opened.has_value()) << message;
    EXPECT_EQ(opened.error().code, code);
    EXPECT_THAT(opened.error().message, HasSubstr(message));
  }
};

TEST(GgufSplit, shards_make_one_model) {
  Split split;
  const auto model = split.open();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->shards().size(), 3u);
  EXPECT_EQ(model->find("t2")->shard, 2u);
  EXPECT_EQ(model->metadata().string("general.architecture").value(), "qwen35moe");
}

TEST(GgufSplit, what_does_not_belong_together_is_refused) {
  Split other_shard;
  EXPECT_THAT(other_shard.open(1).error().message,
              HasSubstr("is shard 2 of a split model; open its first shard, /m-00001-of-00003"));
  Split doubled;
  doubled.shards[2] = doubled.shards[1];
  doubled.expect_refused("key split.no is 1, expected 2");
  Split twice;
  twice.shards[2].tensors[0].name = "t1";
  twice.expect_refused("is in another shard too");
  Split total;
  for (GgufSpec& shard : total.shards) {
    shard.keys[shard.keys.size() - 1] =
        test::gguf_key<int32_t>("split.tensors.count", GgufType::kI32, 4);
  }
  total.expect_refused("split.tensors.count is 4, the shards hold 3");
  Split foreign;
  foreign.shards[1].keys[2] = test::gguf_key<int32_t>("split.tensors.count", GgufType::kI32, 9);
  foreign.expect_refused("a shard of another model");
  Split count;
  count.shards[0].keys[2] = test::gguf_key<uint16_t>("split.count", GgufType::kU16, 2);
  count.expect_refused("does not fit the name");
  count.shards[0].keys[2] = test::gguf_key<uint64_t>("split.count", GgufType::kU64, UINT64_MAX);
  count.expect_refused("split.count");
  Split cut;
  cut.shards[2].num_keys = 4;
  cut.expect_refused("/m-00003-of-00003.gguf");
}

TEST(GgufSplit, missing_shards_are_listed) {
  Split split;
  const auto opened = split.open();
  ASSERT_TRUE(split.disk.remove(Split::path(1)).has_value());
  ASSERT_TRUE(split.disk.remove(Split::path(2)).has_value());
  const auto again = GgufModel::open(split.disk, Split::path(0));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(again.error().message, HasSubstr("/m-00002-of-00003.gguf, /m-00003-of-00003.gguf"));
}

TEST(GgufSplit, names_of_shards) {
  ShardName name;
  EXPECT_TRUE(parse_shard_name("a/b-00002-of-00005.gguf", name));
  EXPECT_EQ(name.stem, "a/b");
  EXPECT_EQ(name.index, 2);
  EXPECT_EQ(name.count, 5);
  EXPECT_EQ(shard_path(name), "a/b-00002-of-00005.gguf");
  for (const char* path : {"b.gguf", "-00001-of-00002.gguf", "b-0001-of-00002.gguf",
                           "b-00003-of-00002.gguf", "b-00000-of-00002.gguf", "b-00001-of-00002.bin",
                           "b-0000x-of-00002.gguf", "b_00001-of-00002.gguf"}) {
    EXPECT_FALSE(parse_shard_name(path, name)) << path;
  }
}

TEST(Gguf, a_long_header_goes_through_the_window) {
  GgufSpec spec = good();
  std::vector<std::string> words;
  for (int i = 0; i < 50'000; ++i) words.push_back("word" + std::to_string(i * 7919));
  spec.keys.push_back(test::gguf_strings("tokenizer.ggml.tokens", words));
  const auto model = open_bytes(spec.bytes());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const auto read = model->metadata().strings("tokenizer.ggml.tokens").value();
  EXPECT_TRUE(std::equal(read.begin(), read.end(), words.begin(), words.end()));
  EXPECT_EQ(spec.bytes()[model->find("a.weight")->offset], '\1');
}

TEST(Gguf, every_failing_read_is_an_error) {
  const std::string bytes = good().bytes();
  for (uint64_t after = 0;; ++after) {
    SimStorage disk;
    test::store(disk, "/f.gguf", bytes);
    disk.inject({.call = SimCall::kRead, .after = after});
    const auto opened = GgufModel::open(disk, "/f.gguf");
    if (disk.faults_struck() == 0) {
      EXPECT_TRUE(opened.has_value());
      EXPECT_GT(after, 1u);
      break;
    }
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, ErrorCode::kIo);
  }
}

}  // namespace
}  // namespace penstock
