#include "pack/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/container.h"
#include "pack/pack.h"
#include "pack/test_checkpoint.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

void store_tiny(SimStorage& disk) {
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options;
  options.source = "/source";
  options.target = "/m";
  options.experts = DType::kQ4;
  pack_model(disk, options, {}, {}).value();
}

TEST(Describe, a_model_and_its_source_agree_on_the_parameters) {
  SimStorage disk;
  store_tiny(disk);
  const Description model = *describe(disk, "/m", DescribeDetail::kSummary);
  const Description source = *describe(disk, "/source", DescribeDetail::kSummary);
  EXPECT_EQ(model.json["kind"], "penstock model");
  EXPECT_EQ(source.json["kind"], "Hugging Face checkpoint");
  EXPECT_EQ(model.json["parameters"], source.json["parameters"]);
  EXPECT_EQ(model.json["active_parameters"], source.json["active_parameters"]);
  // 3 experts of which 2 are active, in 2 layers, and no embedding row but one.
  const int64_t inactive = 2 * 1 * 3 * 64 * 64 + 40 * 64;
  EXPECT_EQ(
      model.json["parameters"].get<int64_t>() - model.json["active_parameters"].get<int64_t>(),
      inactive);
  EXPECT_EQ(source.json["vision_parameters"], 24);
  EXPECT_EQ(source.json["can_be_packed"], true);
  EXPECT_EQ(model.json["id"], Container::open(disk, "/m")->id_text());
  EXPECT_FALSE(model.json.contains("tensors"));
}

TEST(Describe, lists_tensors_when_asked) {
  SimStorage disk;
  store_tiny(disk);
  const Description model = *describe(disk, "/m", DescribeDetail::kTensors);
  EXPECT_EQ(model.json["tensors"].size(), 32u);
  EXPECT_THAT(model.text, HasSubstr("layers.1.self_attn.q_proj"));
  const Description source = *describe(disk, "/source", DescribeDetail::kTensors);
  EXPECT_EQ(source.json["tensors"].size(), 38u);
  EXPECT_THAT(source.text, HasSubstr("[3, 128, 64]"));
}

TEST(Describe, a_folder_that_cannot_be_packed_is_described_with_the_reason) {
  SimStorage disk;
  test::Files files = test::tiny_checkpoint();
  files["config.json"] = R"({"model_type": "llama"})";
  test::store_all(disk, "/source", files);
  const Description source = *describe(disk, "/source", DescribeDetail::kSummary);
  EXPECT_EQ(source.json["can_be_packed"], false);
  EXPECT_THAT(source.text, HasSubstr("llama"));
  EXPECT_EQ(source.json["num_tensors"], 38);
}

TEST(Describe, escapes_names_of_a_safetensors_file) {
  SimStorage disk;
  auto writer = *SafetensorsWriter::create(disk, "/f", {{"caf\xc3\xa9", "U8", {1}}},
                                           {{"note", "\x1b[31mred"}});
  writer.append(std::as_bytes(std::span(std::string_view("x")))).value();
  writer.finish().value();
  const Description file = *describe(disk, "/f", DescribeDetail::kSummary);
  EXPECT_THAT(file.text, HasSubstr("caf\\xc3\\xa9"));
  EXPECT_THAT(file.text, Not(HasSubstr("\x1b")));
  EXPECT_EQ(file.json["metadata"]["note"], "\x1b[31mred");
}

// A recorded case of tests/data/sources, on a simulated disk.
void store_case(SimStorage& disk, const std::string& name) {
  const std::string folder = std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/sources/" + name;
  disk.make_directory("/case").value();
  const std::vector<std::string> names = posix_storage().list(folder).value();
  for (const std::string& file : names) {
    const std::string bytes = read_text(posix_storage(), folder + "/" + file, 1 << 20).value();
    disk.open("/case/" + file, OpenMode::kCreate)
        .value()
        ->write(0, std::as_bytes(std::span(bytes)))
        .value();
  }
}

TEST(Describe, a_gguf_file_is_described_by_what_its_weights_are_coded_as) {
  SimStorage disk;
  store_case(disk, "gguf-mixed");
  const Description file = *describe(disk, "/case/m.gguf", DescribeDetail::kTensors);
  EXPECT_EQ(file.json["kind"], "GGUF checkpoint");
  EXPECT_EQ(file.json["hidden_size"], 256);
  EXPECT_EQ(file.json["can_be_packed"], true);
  EXPECT_TRUE(file.json["codings"].contains("Q4_K") && file.json["codings"].contains("IQ1_M"));
  EXPECT_THAT(file.text, HasSubstr("layers.0.linear_attn.out_proj"));
  EXPECT_THAT(file.text, HasSubstr("layers.1.mlp.experts.down"));
  // All weights are counted: the rest of the file is header and padding.
  EXPECT_LT(file.json["bytes"].get<uint64_t>(), disk.stat("/case/m.gguf")->bytes);
  EXPECT_GT(file.json["bytes"].get<uint64_t>() + 16384, disk.stat("/case/m.gguf")->bytes);
}

TEST(Describe, folders_of_mlx_and_fp8_are_described_too) {
  SimStorage disk;
  store_case(disk, "mlx-4");
  const Description mlx = *describe(disk, "/case", DescribeDetail::kSummary);
  EXPECT_EQ(mlx.json["kind"], "MLX checkpoint");
  EXPECT_TRUE(mlx.json["codings"].contains("affine 4 bits in 32"));
  EXPECT_TRUE(mlx.json["codings"].contains("affine 8 bits in 64"));
  SimStorage other;
  store_case(other, "fp8");
  const Description fp8 = *describe(other, "/case", DescribeDetail::kSummary);
  EXPECT_TRUE(fp8.json["codings"].contains("FP8 E4M3 in 128x128"));
  EXPECT_GT(fp8.json["mtp_parameters"].get<int64_t>(), 0);
}

TEST(Describe, other_ways_of_quantising_are_named) {
  SimStorage disk;
  test::Files files = test::tiny_checkpoint();
  files["config.json"].insert(1, R"("quantization_config":{"quant_method":"gptq"},)");
  test::store_all(disk, "/source", files);
  const Description source = *describe(disk, "/source", DescribeDetail::kSummary);
  EXPECT_EQ(source.json["can_be_packed"], false);
  EXPECT_THAT(source.text, HasSubstr("quantised with \"gptq\""));
}

TEST(Describe, what_is_nothing_is_not_found) {
  SimStorage disk;
  disk.make_directory("/empty").value();
  EXPECT_EQ(describe(disk, "/empty", DescribeDetail::kSummary).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(describe(disk, "/none", DescribeDetail::kSummary).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace penstock
