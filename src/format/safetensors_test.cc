#include "format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "format/test_files.h"
#include "format/text.h"

namespace penstock {
namespace {

using test::store;
using testing::HasSubstr;

// Length, header and `data_bytes` zeros, as a well-meaning writer would put them.
std::string file_of(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  out += header;
  return out + std::string(data_bytes, '\0');
}

Result<SafetensorsFile> open_safetensors(std::string_view bytes) {
  SimStorage disk;
  store(disk, "/f.safetensors", bytes);
  return SafetensorsFile::open(disk, "/f.safetensors");
}

std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return std::string(R"({"a":{"dtype":")") + std::string(dtype) + R"(","shape":)" +
         std::string(shape) + R"(,"data_offsets":)" + std::string(offsets) + "}}";
}

struct BadFile {
  const char* what;
  std::string bytes;
  ErrorCode code;
  const char* message;
};

void expect_all_refused(const std::vector<BadFile>& files) {
  for (const BadFile& file : files) {
    const auto opened = open_safetensors(file.bytes);
    ASSERT_FALSE(opened.has_value()) << file.what;
    EXPECT_EQ(opened.error().code, file.code) << file.what;
    EXPECT_THAT(opened.error().message, HasSubstr("/f.safetensors")) << file.what;
    EXPECT_THAT(opened.error().message, HasSubstr(file.message)) << file.what;
  }
}

TEST(Safetensors, metadata_may_be_null) {
  const auto opened = open_safetensors(
      file_of(R"({"__metadata__":null,"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3));
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  EXPECT_TRUE(opened->header().metadata.empty());
}

TEST(Safetensors, what_was_written_is_read_back) {
  SimStorage disk;
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<int32_t> numbers = {-7, 8};
  const std::vector<uint8_t> bytes = {9};
  auto writer = *SafetensorsWriter::create(
      disk, "/f", {{"x", "F32", {2, 3}}, {"n", "I32", {2}}, {"b", "U8", {1}}}, {{"k", "v"}});
  writer.append(std::as_bytes(std::span(floats))).value();
  EXPECT_FALSE(disk.stat("/f").has_value()) << "the name is given at the end";
  writer.append(std::as_bytes(std::span(numbers))).value();
  writer.append(std::as_bytes(std::span(bytes))).value();
  writer.finish().value();

  const SafetensorsFile file = *SafetensorsFile::open(disk, "/f");
  EXPECT_EQ(*file.read<float>("x"), floats);
  EXPECT_EQ(*file.read<int32_t>("n"), numbers);
  EXPECT_EQ(*file.read<uint8_t>("b"), bytes);
  EXPECT_EQ(file.find("x")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.header().metadata.at(0), (std::pair<std::string, std::string>("k", "v")));
  EXPECT_EQ(file.read<float>("n").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(file.read<float>("none").error().code, ErrorCode::kNotFound);
  const std::string all = *read_text(disk, "/f", 1 << 20);
  EXPECT_EQ(checksum(std::as_bytes(std::span(all)), 0), writer.sum());
  EXPECT_EQ(all.size(), writer.file_bytes());
}

TEST(Safetensors, accepts_padding_metadata_scalars_and_empty_tensors) {
  const auto file = open_safetensors(file_of(
      R"({"__metadata__":{"format":"pt"},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"BF16","shape":[0,3],"data_offsets":[4,4]},)"
      R"("m":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[4,8]}}   )",
      8));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->find("s")->bytes, 4u);
  EXPECT_EQ(file->find("e")->bytes, 0u);
  EXPECT_EQ(file->find("m")->float_dtype(), std::nullopt);
}

TEST(Safetensors, says_what_a_foreign_file_looks_like) {
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  expect_all_refused({
      {"empty", "", corrupt, "an empty file"},
      {"one byte", "x", corrupt, "not a safetensors file"},
      {"seven bytes", "1234567", corrupt, "not a safetensors file"},
      {"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", corrupt,
       "Git LFS pointer"},
      {"html", "<!DOCTYPE html><html><body>404</body></html>", corrupt, "an HTML page"},
      {"gguf", std::string("GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", 16), corrupt, "a GGUF model"},
      {"zip", "PK\x03\x04 and so on, for a while", corrupt, "a zip archive"},
      {"zeros", std::string(64, '\0'), corrupt, "zeros"},
  });
}

TEST(Safetensors, refuses_headers_that_cannot_be) {
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  const auto stating = [](uint64_t length, std::string rest) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &length, 8);
    return out + rest;
  };
  std::string deep = R"({"a":)" + std::string(10000, '[') + std::string(10000, ']') + "}";
  expect_all_refused({
      {"100 MB and 1", stating(100'000'001, "{}"), corrupt, "at most 100000000"},
      {"2^32", stating(uint64_t{1} << 32, "{}"), corrupt, "at most"},
      {"2^63", stating(uint64_t{1} << 63, "{}"), corrupt, "at most"},
      {"2^64-1", stating(UINT64_MAX, "{}"), corrupt, "at most"},
      {"longer than the file", stating(1000, "{}        "), corrupt, "cut short"},
      {"not an object", file_of("[1, 2]", 0), corrupt, "not a safetensors file"},
      {"not JSON", file_of("{broken", 0), corrupt, "not JSON"},
      {"not UTF-8", file_of("{\"a\xff\":1}", 0), corrupt, "not JSON"},
      {"depth 10,000", file_of(deep, 0), corrupt, "nested deeper"},
      {"trailing text", file_of("{} x", 0), corrupt, "not JSON"},
      {"metadata not strings", file_of(R"({"__metadata__":{"a":1}})", 0), corrupt, "not a string"},
  });
}

TEST(Safetensors, refuses_sizes_that_wrap_or_disagree) {
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  expect_all_refused({
      {"bytes too few", file_of(one("F32", "[2]", "[0,4]"), 4), corrupt, "does not take"},
      {"bytes too many", file_of(one("F32", "[2]", "[0,12]"), 12), corrupt, "does not take"},
      {"product wraps to 0", file_of(one("F32", "[4294967296,4294967296]", "[0,0]"), 0), corrupt,
       "does not take"},
      {"bytes wrap", file_of(one("F32", "[4611686018427387905]", "[0,4]"), 4), corrupt,
       "does not take"},
      {"2^63", file_of(one("U8", "[9223372036854775808]", "[0,1]"), 1), corrupt, "not a dimension"},
      {"2^64-1", file_of(one("U8", "[18446744073709551615]", "[0,1]"), 1), corrupt,
       "not a dimension"},
      {"negative", file_of(one("U8", "[-1]", "[0,1]"), 1), corrupt, "not a dimension"},
      {"fraction", file_of(one("U8", "[1.5]", "[0,1]"), 1), corrupt, "not a dimension"},
      {"nine dimensions", file_of(one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1), corrupt,
       "9 dimensions"},
      {"half a byte", file_of(one("F4", "[3]", "[0,1]"), 1), corrupt, "does not take"},
      {"backwards", file_of(one("U8", "[1]", "[1,0]"), 1), corrupt, "does not take"},
      {"offset 2^64", file_of(one("U8", "[1]", "[18446744073709551615,0]"), 1), corrupt,
       "data_offsets"},
      {"dtype unknown", file_of(one("Q4_K", "[1]", "[0,1]"), 1), ErrorCode::kUnsupported,
       "unknown dtype \"Q4_K\""},
      {"no shape", file_of(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), corrupt, "shape"},
      {"not described", file_of(R"({"a":7})", 0), corrupt, "described"},
  });
}

// Each tensor is possible by itself; together they wrap 64 bits.
TEST(Safetensors, refuses_a_sum_of_sizes_that_wraps) {
  std::string header = "{";
  const uint64_t quarter = uint64_t{1} << 62;
  for (int i = 0; i < 4; ++i) {
    const uint64_t begin = static_cast<uint64_t>(i) * quarter;
    header += (i == 0 ? "\"t" : ",\"t") + std::to_string(i) + R"(":{"dtype":"U8","shape":[)" +
              std::to_string(quarter) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
              std::to_string(begin + quarter) + "]}";
  }
  header += "}";
  const auto opened = open_safetensors(file_of(header, 0));
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
}

std::string two(std::string_view first, std::string_view second) {
  return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + std::string(first) +
         R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + std::string(second) + "}}";
}

TEST(Safetensors, refuses_holes_overlaps_and_loose_ends) {
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  expect_all_refused({
      {"hole", file_of(two("[0,2]", "[3,5]"), 5), corrupt, "a hole or an overlap"},
      {"overlap", file_of(two("[0,2]", "[1,3]"), 3), corrupt, "a hole or an overlap"},
      {"same place", file_of(two("[0,2]", "[0,2]"), 2), corrupt, "a hole or an overlap"},
      {"starts late", file_of(two("[2,4]", "[4,6]"), 6), corrupt, "a hole or an overlap"},
      {"cut short", file_of(two("[0,2]", "[2,4]"), 3), corrupt, "cut short"},
      {"trailing bytes", file_of(two("[0,2]", "[2,4]"), 5), corrupt, "1 bytes follow"},
      {"bytes without tensors", file_of("{}", 5), corrupt, "5 bytes follow"},
  });
  EXPECT_TRUE(open_safetensors(file_of(two("[2,4]", "[0,2]"), 4)).has_value())
      << "any order of names";
}

TEST(Safetensors, refuses_odd_names_and_prints_them_escaped) {
  const std::string tensor = R"(:{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  const auto named = [&](std::string_view name) {
    return open_safetensors(file_of("{\"" + std::string(name) + "\"" + tensor + "}", 0));
  };
  for (const char* name : {"a\\u0000b", "a\\nb", "a\\u001b[2Jb", ""}) {
    const auto opened = named(name);
    ASSERT_FALSE(opened.has_value()) << name;
    EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
    for (const char c : opened.error().message) EXPECT_GE(c, ' ') << name;
  }
  const auto huge = named(std::string(1 << 20, 'n'));
  ASSERT_FALSE(huge.has_value());
  EXPECT_LT(huge.error().message.size(), 400u) << "a name of 1 MB is cut when told";
  const auto doubled = open_safetensors(file_of("{\"a\"" + tensor + ",\"a\"" + tensor + "}", 0));
  ASSERT_FALSE(doubled.has_value());
  EXPECT_THAT(doubled.error().message, HasSubstr("duplicate key"));
}

TEST(Text, names_are_escaped_and_cut) {
  EXPECT_EQ(escaped("a\tb\x1b\xff\"\\"), "\"a\\x09b\\x1b\\xff\\x22\\x5c\"");
  EXPECT_THAT(escaped(std::string(500, 'x')), HasSubstr("(500 bytes)"));
}

TEST(Text, only_plain_file_names_pass) {
  EXPECT_TRUE(is_plain_file_name("model-00001-of-00005.safetensors"));
  for (const char* name : {"", ".", "..", "../x", "a/b", ".hidden", "a b", "a\nb"}) {
    EXPECT_FALSE(is_plain_file_name(name)) << name;
  }
}

TEST(Text, hex_goes_both_ways) {
  const Hash128 sum{0x0123456789abcdefu, 0xfedcba9876543210u};
  EXPECT_EQ(hex_text(sum), "fedcba98765432100123456789abcdef");
  EXPECT_EQ(parse_hex128(hex_text(sum)), sum);
  for (const char* text : {"", "0", "g123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0"}) {
    EXPECT_FALSE(parse_hex64(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace penstock
