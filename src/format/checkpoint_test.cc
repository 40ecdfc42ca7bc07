#include "format/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "format/test_files.h"

namespace penstock {
namespace {

using test::store;
using testing::HasSubstr;

// A shard with f32 tensors of two elements, 1 and 2.
void store_shard(SimStorage& disk, const std::string& path, const std::vector<std::string>& names) {
  std::vector<SafetensorsWriter::Plan> plan;
  for (const std::string& name : names) plan.push_back({name, "F32", {2}});
  auto writer = *SafetensorsWriter::create(disk, path, plan, {});
  const std::vector<float> values = {1, 2};
  for (size_t i = 0; i < names.size(); ++i) writer.append(std::as_bytes(std::span(values))).value();
  writer.finish().value();
}

// Two shards, tensors a, b | c.
void store_sharded(SimStorage& disk) {
  disk.make_directory("/m").value();
  store(disk, "/m/config.json", "{}");
  store_shard(disk, "/m/one.safetensors", {"a", "b"});
  store_shard(disk, "/m/two.safetensors", {"c"});
  store(disk, "/m/model.safetensors.index.json",
        R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}})");
}

Error open_error(SimStorage& disk) {
  const auto opened = Checkpoint::open(disk, "/m");
  EXPECT_FALSE(opened.has_value());
  return opened ? Error{ErrorCode::kInvalidArgument, ""} : opened.error();
}

TEST(Checkpoint, finds_tensors_across_shards) {
  SimStorage disk;
  store_sharded(disk);
  Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.shards().size(), 2u);
  std::vector<float> values(2);
  checkpoint.read_rows(*checkpoint.find("c"), 0, values).value();
  EXPECT_EQ(values, (std::vector<float>{1, 2}));
  EXPECT_EQ(checkpoint.find("d"), nullptr);
  checkpoint.check_unchanged().value();
}

TEST(Checkpoint, widens_every_float_exactly) {
  const std::vector<float> f32 = {1.5f, -0.0f};
  const std::vector<uint16_t> bf16 = {0x3fc0, 0x8000};
  const std::vector<uint16_t> f16 = {0x3e00, 0x8000};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto bytes = dtype == DType::kF32    ? std::as_bytes(std::span(f32))
                       : dtype == DType::kBF16 ? std::as_bytes(std::span(bf16))
                                               : std::as_bytes(std::span(f16));
    std::vector<float> out(2);
    widen(dtype, bytes, out);
    EXPECT_EQ(out[0], 1.5f);
    EXPECT_TRUE(out[1] == 0 && std::signbit(out[1]));
  }
}

TEST(Checkpoint, lists_all_missing_shards) {
  SimStorage disk;
  store_sharded(disk);
  disk.remove("/m/one.safetensors").value();
  disk.remove("/m/two.safetensors").value();
  const Error error = open_error(disk);
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("one.safetensors, two.safetensors"));
}

TEST(Checkpoint, refuses_a_shard_of_another_model) {
  for (const std::vector<std::string>& foreign :
       {std::vector<std::string>{"z"}, {"x", "y", "z"}, {"a", "b"}}) {  // the last: a doubled one
    SimStorage disk;
    store_sharded(disk);
    store_shard(disk, "/m/two.safetensors", foreign);
    const Error error = open_error(disk);
    EXPECT_EQ(error.code, ErrorCode::kCorrupt);
    EXPECT_THAT(error.message, HasSubstr("two.safetensors"));
    EXPECT_THAT(error.message, HasSubstr("none of the 1 tensors"));
    EXPECT_THAT(error.message, HasSubstr("\"c\""));
  }
}

TEST(Checkpoint, a_name_of_the_index_without_a_tensor_is_told_to_whoever_needs_it) {
  SimStorage disk;
  store_sharded(disk);
  store_shard(disk, "/m/one.safetensors", {"a"});
  const Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.find("b"), nullptr);
  EXPECT_THAT(checkpoint.where_missing("b"), HasSubstr("places it in one.safetensors"));
  EXPECT_EQ(checkpoint.where_missing("d"), "");
}

TEST(Checkpoint, superseded_copies_are_left_out_and_told) {
  SimStorage disk;
  store_sharded(disk);
  std::vector<SafetensorsWriter::Plan> plan = {
      {"b", "F32", {2}}, {"c", "F32", {2}}, {"old", "F32", {2}}};
  auto writer = *SafetensorsWriter::create(disk, "/m/two.safetensors", plan, {});
  const std::vector<float> values = {8, 9};
  for (size_t i = 0; i < plan.size(); ++i) writer.append(std::as_bytes(std::span(values))).value();
  writer.finish().value();

  Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  EXPECT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.find("old"), nullptr);
  std::vector<float> read(2);
  checkpoint.read_rows(*checkpoint.find("b"), 0, read).value();
  EXPECT_EQ(read, (std::vector<float>{1, 2})) << "of the shard that the index names";
  checkpoint.read_rows(*checkpoint.find("c"), 0, read).value();
  EXPECT_EQ(read, values);
  ASSERT_EQ(checkpoint.notes().size(), 1u);
  EXPECT_THAT(checkpoint.notes()[0], HasSubstr("two.safetensors: 2 tensors"));
}

TEST(Checkpoint, refuses_a_tensor_that_lies_elsewhere_than_the_index_says) {
  SimStorage disk;
  store_sharded(disk);
  store_shard(disk, "/m/one.safetensors", {"a"});
  store_shard(disk, "/m/two.safetensors", {"b", "c"});
  const Error error = open_error(disk);
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_THAT(error.message,
              HasSubstr("\"b\" in one.safetensors, which lacks it; two.safetensors"));
}

TEST(Checkpoint, files_beside_the_shards_are_left_out_and_told) {
  for (const char* stray : {"adapter_model.safetensors", "model-00001-of-00002 (1).safetensors",
                            "model.safetensors", "consolidated.safetensors"}) {
    SimStorage disk;
    store_sharded(disk);
    store(disk, "/m/README.md", "no matter");
    store(disk, std::string("/m/") + stray, "a half download");
    const Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
    EXPECT_EQ(checkpoint.tensors().size(), 3u);
    ASSERT_EQ(checkpoint.notes().size(), 1u);
    EXPECT_THAT(checkpoint.notes()[0], HasSubstr(stray));
  }
}

TEST(Checkpoint, a_whole_file_beside_an_index_without_shards_is_no_guess) {
  SimStorage disk;
  store_sharded(disk);
  disk.remove("/m/one.safetensors").value();
  store_shard(disk, "/m/model.safetensors", {"a"});
  EXPECT_THAT(open_error(disk).message, HasSubstr("remove the index"));
  disk.remove("/m/model.safetensors.index.json").value();
  const Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  EXPECT_EQ(checkpoint.shards()[0].name, "model.safetensors");
  EXPECT_THAT(checkpoint.notes()[0], HasSubstr("\"two.safetensors\" is left out"));
}

TEST(Checkpoint, shards_without_an_index_ask_for_it) {
  SimStorage disk;
  store_sharded(disk);
  disk.remove("/m/model.safetensors.index.json").value();
  const Error error = open_error(disk);
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("fetch it"));
}

TEST(Checkpoint, refuses_a_truncated_shard_at_every_length) {
  SimStorage disk;
  store_sharded(disk);
  const uint64_t bytes = disk.stat("/m/two.safetensors")->bytes;
  for (uint64_t length = bytes; length-- > 0;) {
    disk.truncate("/m/two.safetensors", length);
    const Error error = open_error(disk);
    EXPECT_EQ(error.code, ErrorCode::kCorrupt) << length;
    EXPECT_THAT(error.message, HasSubstr("two.safetensors"));
  }
}

TEST(Checkpoint, refuses_an_index_that_leaves_the_folder) {
  for (const char* shard : {"../other/one.safetensors", "/etc/passwd", "a\\u0000b", "..", ""}) {
    SimStorage disk;
    store_sharded(disk);
    store(disk, "/m/model.safetensors.index.json",
          R"({"weight_map":{"a":")" + std::string(shard) + "\"}}");
    const Error error = open_error(disk);
    EXPECT_EQ(error.code, ErrorCode::kCorrupt) << shard;
    EXPECT_THAT(error.message, HasSubstr("not a file name"));
  }
}

TEST(Checkpoint, refuses_an_index_that_is_none) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& c : {Case{"", "an empty file"}, Case{"<html></html>", "an HTML page"},
                        Case{"{}", "weight_map"}, Case{R"({"weight_map":{}})", "weight_map"},
                        Case{R"({"weight_map":{"a":1}})", "not a file name"},
                        Case{R"({"weight_map":{"a":"x","a":"y"}})", "duplicate key"}}) {
    SimStorage disk;
    store_sharded(disk);
    store(disk, "/m/model.safetensors.index.json", c.text);
    EXPECT_THAT(open_error(disk).message, HasSubstr(c.message)) << c.text;
  }
}

TEST(Checkpoint, tells_what_a_folder_without_safetensors_holds) {
  SimStorage disk;
  disk.make_directory("/m").value();
  EXPECT_EQ(open_error(disk).code, ErrorCode::kNotFound);
  store(disk, "/m/config.json", "{}");
  EXPECT_THAT(open_error(disk).message, HasSubstr("neither model.safetensors"));
  store(disk, "/m/model.gguf", "GGUF");
  EXPECT_THAT(open_error(disk).message, HasSubstr("GGUF"));
  EXPECT_EQ(open_error(disk).code, ErrorCode::kUnsupported);
}

TEST(Checkpoint, notices_that_a_shard_changed) {
  SimStorage disk;
  store_sharded(disk);
  Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  store_shard(disk, "/m/two.safetensors", {"c"});
  EXPECT_THAT(checkpoint.check_unchanged().error().message, HasSubstr("two.safetensors"));
  std::vector<float> values(2);
  EXPECT_THAT(checkpoint.read_rows(*checkpoint.find("c"), 0, values).error().message,
              HasSubstr("changed"));
}

TEST(Checkpoint, names_the_tensor_that_cannot_be_read) {
  SimStorage disk;
  store_sharded(disk);
  Checkpoint checkpoint = *Checkpoint::open(disk, "/m");
  disk.inject({.call = SimCall::kRead, .times = kForEver});
  std::vector<float> values(2);
  const auto read = checkpoint.read_rows(*checkpoint.find("c"), 0, values);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kIo);
  EXPECT_THAT(read.error().message, HasSubstr("\"c\""));
}

TEST(Checkpoint, has_a_sentence_for_fp8) {
  CheckpointTensor tensor;
  tensor.info = {"w", "F8_E4M3", {2}, 0, 2};
  const auto dtype = Checkpoint::float_dtype(tensor);
  ASSERT_FALSE(dtype.has_value());
  EXPECT_EQ(dtype.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(dtype.error().message, HasSubstr("BF16 repository"));
}

}  // namespace
}  // namespace penstock
