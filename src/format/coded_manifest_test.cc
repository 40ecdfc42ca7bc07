// Manifests of version 2: matrices in the codes of the file that was packed, records that differ by
// layer. Nothing in them is believed that does not follow from shapes and forms.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/manifest.h"
#include "format/test_files.h"
#include "format/text.h"

namespace penstock {
namespace {

using test::resealed;
using testing::HasSubstr;

Coding blocks(BlockType type) {
  return {.block = type};
}

Manifest coded_manifest() {
  Manifest manifest;
  manifest.model_id = 77;
  manifest.experts_option = manifest.resident_option = "keep";
  manifest.config = {{"model_type", "x"}};
  const Coding affine = {.kind = Coding::Kind::kAffine, .affine = {6, 32, DType::kF16}};
  const Coding fp8 = {.kind = Coding::Kind::kFp8, .scale = DType::kF32};
  manifest.tensors = {
      {"embed_tokens", coded_form(blocks(BlockType::kQ6K), true), 40, 256, {}, 0, 0},
      {"out_proj", coded_form(affine, true), 17, 128, {32, {2, 0, 3, 1}}, 0, 0},
      {"q_proj", coded_form(fp8, false), 5, 100, {}, 0, 0},
      {"norm", plain_form(), 1, 100, {}, 0, 0}};
  for (ResidentTensor& tensor : manifest.tensors) {
    tensor.offset = manifest.resident_bytes;
    tensor.bytes = place_matrix(tensor.form, tensor.rows, tensor.columns)->bytes;
    manifest.resident_bytes = align_file(tensor.offset + tensor.bytes);
  }
  const MatrixForm q4 = coded_form(blocks(BlockType::kQ4K), true);
  const MatrixForm q8 = coded_form(blocks(BlockType::kQ8_0), true);
  const MatrixForm rows = coded_form(blocks(BlockType::kIq1M), false);
  const MatrixForm bf16 = panel_form(DType::kBF16);
  manifest.experts =
      *lay_out_experts({2, 3, 256, 64}, {{false, q4, bf16, q8}, {true, rows, rows, bf16}});
  manifest.files = {{"resident.sum", 1, {1, 2}}, {"experts.sum", 2, {3, 4}}};
  return manifest;
}

TEST(CodedManifest, text_and_struct_are_the_same) {
  const Manifest manifest = coded_manifest();
  EXPECT_EQ(manifest.version(), 2);
  const Result<Manifest> parsed = parse_manifest(manifest_text(manifest), "x");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(manifest_text(*parsed), manifest_text(manifest));
  EXPECT_EQ(parsed->tensors, manifest.tensors);
  EXPECT_EQ(parsed->experts, manifest.experts);
}

TEST(CodedManifest, planes_and_records_do_not_overlap_and_begin_where_kernels_want_them) {
  const Manifest manifest = coded_manifest();
  for (const ResidentTensor& tensor : manifest.tensors) {
    const PlacedPlanes planes = *place_matrix(tensor.form, tensor.rows, tensor.columns);
    EXPECT_EQ(planes.at.scales % kPlaneAlignment, 0u);
    EXPECT_EQ(planes.at.biases % kPlaneAlignment, 0u);
    if (planes.sizes.scales > 0) {
      EXPECT_GE(planes.at.scales, planes.sizes.codes) << tensor.name;
    }
    EXPECT_LE(planes.at.biases + planes.sizes.biases, planes.bytes) << tensor.name;
  }
  const ExpertParts& parts = manifest.experts;
  EXPECT_NE(parts.record(0).bytes, parts.record(1).bytes);
  uint64_t end = 0;
  for (uint64_t index = 0; index < parts.num_records(); ++index) {
    const ExpertRecord& record = parts.record_of(index);
    EXPECT_EQ(parts.offset_of(index), end);
    EXPECT_EQ(record.up_offset % kPlaneAlignment, 0u);
    EXPECT_EQ(record.down_offset % kFileAlignment, 0u);
    EXPECT_GE(record.down_offset, record.gate_up_bytes);
    EXPECT_GE(record.bytes, record.down_offset + record.down_bytes);
    end += record.bytes;
  }
  EXPECT_EQ(parts.file_bytes(), end);
  EXPECT_EQ(parts.largest_record(), std::max(parts.record(0).bytes, parts.record(1).bytes));
  EXPECT_FALSE(parts.one_dtype().has_value());
}

TEST(CodedManifest, models_without_codes_stay_version_1) {
  Manifest manifest = coded_manifest();
  manifest.experts = *lay_out_experts({2, 3, 256, 64}, DType::kQ4);
  EXPECT_EQ(manifest.version(), 2) << "resident weights in codes";
  ASSERT_TRUE(parse_manifest(manifest_text(manifest), "x").has_value());
  manifest.tensors.erase(manifest.tensors.begin(), manifest.tensors.end() - 1);
  manifest.tensors[0].offset = 0;
  manifest.resident_bytes = kFileAlignment;
  EXPECT_EQ(manifest.version(), 1);
  EXPECT_THAT(manifest_text(manifest), HasSubstr("\"gate_up_offset\":0"));
  EXPECT_TRUE(parse_manifest(manifest_text(manifest), "x").has_value());
}

TEST(CodedManifest, lies_are_refused) {
  struct Lie {
    std::string from, to;
  };
  const Lie lies[] = {
      {"\"version\": 2", "\"version\": 1"},
      {"\"coding\":\"Q6_K\"", "\"coding\":\"Q6_L\""},
      {"\"coding\":\"Q6_K\"", "\"coding\":\"Q8_K\""},
      {"\"coding\":\"Q6_K\"", "\"coding\":\"Q4_K\""},
      {"\"coding\":\"Q6_K\"", "\"coding\":7"},
      {"\"coding\":\"Q6_K\"", "\"dtype\":\"q4\""},
      {"affine:6:32:f16", "affine:6:0:f16"},
      {"affine:6:32:f16", "affine:6:-32:f16"},
      {"affine:6:32:f16", "affine:6:9223372036854775807:f16"},
      {"affine:6:32:f16", "affine:7:32:f16"},
      {"affine:6:32:f16", "affine:6:48:f16"},
      {"affine:6:32:f16", "affine:6:32:q4"},
      {"affine:6:32:f16", "affine:6:32"},
      {"fp8:f32", "fp8:f64"},
      {"\"layout\":\"coded panels\"", "\"layout\":\"coded rows\""},
      {"\"layout\":\"coded panels\"", "\"layout\":\"panels\""},
      {"\"layout\":\"coded panels\"", "\"layout\":\"tiles\""},
      {"\"columns\":256", "\"columns\":255"},
      {"\"columns\":256", "\"columns\":512"},
      {"\"rows\":40", "\"rows\":50"},
      {"\"width\":32", "\"width\":0"},
      {"\"width\":32", "\"width\":64"},
      {"\"width\":32", "\"width\":3"},
      {"[2,0,3,1]", "[2,0,3,3]"},
      {"[2,0,3,1]", "[2,0,3,4]"},
      {"[2,0,3,1]", "[2,0,3,-1]"},
      {"[2,0,3,1]", "[2,0,3,18446744073709551615]"},
      {"[2,0,3,1]", "[2,0,3]"},
      {"[2,0,3,1]", "7"},
      {"\"records\": [", "\"records\": [ 7,"},
      {"\"layers\": 2", "\"layers\": 3"},
      {"\"experts\": 3", "\"experts\": 0"},
      {"\"hidden_size\": 256", "\"hidden_size\": 64"},
      {"\"hidden_size\": 256", "\"hidden_size\": 2147483648"},
      {"\"record_bytes\":", "\"record_bytes\":1"},
      {"\"gate\":", "\"gaté\":"},
      {"\"up\":{\"dtype\":\"bf16\",\"layout\":\"panels\"}",
       "\"up\":{\"dtype\":\"f32\",\"layout\":\"plain\"}"},
      {"\"down\":{", "\"down\":[{"},
  };
  const std::string text = manifest_text(coded_manifest());
  for (const Lie& lie : lies) {
    const Result<Manifest> parsed = parse_manifest(resealed(text, lie.from, lie.to), "/m/x");
    ASSERT_FALSE(parsed.has_value()) << lie.from << " -> " << lie.to;
    EXPECT_THAT(parsed.error().message, HasSubstr("/m/x")) << lie.to;
  }
}

TEST(MatrixForm, sizes_that_wrap_are_no_sizes) {
  const int64_t most = int64_t{1} << 31;
  for (const MatrixForm& form :
       {plain_form(), panel_form(DType::kF32), coded_form(blocks(BlockType::kQ8_0), false),
        coded_form(blocks(BlockType::kQ8_0), true)}) {
    EXPECT_FALSE(place_matrix(form, most + 1, 64).has_value());
    EXPECT_FALSE(place_matrix(form, 0, 64).has_value());
    EXPECT_FALSE(place_matrix(form, 16, 0).has_value());
    EXPECT_FALSE(place_matrix(form, -16, 64).has_value());
    EXPECT_TRUE(place_matrix(form, 16, 64).has_value());
  }
  EXPECT_FALSE(place_matrix(plain_form(), most, most).has_value());
}

}  // namespace
}  // namespace penstock
