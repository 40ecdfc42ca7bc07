// Decoders of foreign weights against what the public packages of their formats say.
//
// The values were recorded by tools/block_golden.py and tools/mlx_golden.py; they are met bit for
// bit.
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "format/safetensors.h"
#include "quant/affine_groups.h"
#include "quant/block_decode.h"

namespace penstock {
namespace {

class Golden {
 public:
  explicit Golden(const std::string& name)
      : path_(std::string(PENSTOCK_SOURCE_DIR) + "/tests/data/golden/" + name),
        file_(SafetensorsFile::open(posix_storage(), path_).value()),
        data_(posix_storage().open(path_, OpenMode::kRead).value()) {}

  const SafetensorsFile& file() const { return file_; }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  const TensorInfo& info(const std::string& name) const {
    const TensorInfo* info = file_.find(name);
    if (info == nullptr) throw std::runtime_error("no tensor " + name + " in " + path_);
    return *info;
  }
  std::vector<std::byte> bytes(const std::string& name) const {
    std::vector<std::byte> bytes(info(name).bytes);
    read_exactly(*data_, info(name).offset, bytes).value();
    return bytes;
  }
  std::vector<float> floats(const std::string& name) const {
    return file_.read<float>(name).value();
  }

 private:
  std::string path_;
  SafetensorsFile file_;
  std::unique_ptr<StorageFile> data_;
};

void expect_same_bits(std::span<const float> values, std::span<const float> expected,
                      const std::string& what) {
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i]))
        << what << " element " << i << ": " << values[i] << " and not " << expected[i];
  }
}

TEST(QuantGolden, every_gguf_type_is_decoded_as_the_public_package_does) {
  const Golden golden("blocks.safetensors");
  int types = 0;
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const BlockLayout& layout = layout_of(static_cast<BlockType>(i));
    const std::string name(layout.name);
    ASSERT_EQ(golden.has(name + ".blocks"), is_decodable(layout.type)) << name;
    if (!is_decodable(layout.type)) continue;
    const std::vector<float> expected = golden.floats(name + ".values");
    std::vector<float> values(expected.size());
    decode_blocks(layout.type, golden.bytes(name + ".blocks"), values);
    expect_same_bits(values, expected, name);
    ++types;
  }
  EXPECT_EQ(types, 25);
}

TEST(QuantGolden, blocks_may_lie_at_any_address) {
  const Golden golden("blocks.safetensors");
  for (int i = 0; i < kNumBlockTypes; ++i) {
    const auto type = static_cast<BlockType>(i);
    if (!is_decodable(type)) continue;
    const std::string name(name_of(type));
    std::vector<std::byte> bytes = golden.bytes(name + ".blocks");
    bytes.insert(bytes.begin(), std::byte{0});
    const std::vector<float> expected = golden.floats(name + ".values");
    std::vector<float> values(expected.size());
    decode_blocks(type, std::span(bytes).subspan(1), values);
    expect_same_bits(values, expected, name);
  }
}

TEST(QuantGolden, every_width_of_mlx_is_decoded_as_the_public_package_does) {
  const Golden golden("mlx.safetensors");
  int cases = 0;
  for (const TensorInfo& info : golden.file().tensors()) {
    if (!info.name.starts_with("affine-") || !info.name.ends_with(".weight")) continue;
    const std::string name = info.name.substr(0, info.name.size() - 7);
    const TensorInfo& scales = golden.info(name + ".scales");
    const std::vector<float> expected = golden.floats(name + ".values");
    const int64_t rows = info.shape[0];
    const int64_t columns = static_cast<int64_t>(expected.size()) / rows;
    AffineCoding coding;
    coding.bits = static_cast<int>(info.shape[1] * 32 / columns);
    coding.group = columns / scales.shape[1];
    coding.scales = scales.float_dtype().value();
    ASSERT_EQ(name.substr(0, name.rfind("-f16")),
              "affine-" + std::to_string(coding.bits) + "-" + std::to_string(coding.group));
    const auto row_of = [&](const std::vector<std::byte>& all, int64_t row) {
      const size_t bytes = all.size() / static_cast<size_t>(rows);
      return std::span(all).subspan(static_cast<size_t>(row) * bytes, bytes);
    };
    const auto w = golden.bytes(name + ".weight"), s = golden.bytes(name + ".scales"),
               b = golden.bytes(name + ".biases");
    std::vector<float> values(expected.size());
    for (int64_t row = 0; row < rows; ++row) {
      decode_affine_row(coding, row_of(w, row), row_of(s, row), row_of(b, row),
                        std::span(values).subspan(static_cast<size_t>(row * columns),
                                                  static_cast<size_t>(columns)));
    }
    expect_same_bits(values, expected, name);
    ++cases;
  }
  EXPECT_EQ(cases, 19);
}

TEST(QuantGolden, mxfp4_of_mlx_is_decoded_as_the_public_package_does) {
  const Golden golden("mlx.safetensors");
  const std::vector<float> expected = golden.floats("mxfp4.values");
  std::vector<float> values(expected.size());
  decode_mlx_mxfp4_row(golden.bytes("mxfp4.weight"), golden.bytes("mxfp4.scales"), values);
  expect_same_bits(values, expected, "mxfp4");  // rows follow one another, whole groups each
}

}  // namespace
}  // namespace penstock
