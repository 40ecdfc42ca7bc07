#include "format/container.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "base/memory.h"
#include "format/test_files.h"
#include "format/text.h"

namespace penstock {
namespace {

using test::resealed;
using test::store;
using testing::HasSubstr;

constexpr uint64_t kModelId = 77;

std::vector<std::byte> noise(uint64_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(bytes);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

// A model made by hand from the description of the format: two tensors, 2 x 3 experts.
Manifest small_manifest() {
  Manifest manifest;
  manifest.model_id = kModelId;
  manifest.experts_option = "q4";
  manifest.resident_option = "keep";
  manifest.config = {{"model_type", "x"}};
  manifest.tensors = {{"embed_tokens", panel_form(DType::kBF16), 5000, 100, {}, 0, 313 * 2 * 2048},
                      {"norm", plain_form(), 1, 100, {}, 1282048 + 0, 400}};
  manifest.tensors[1].offset = align_file(manifest.tensors[0].bytes);
  manifest.resident_bytes = align_file(manifest.tensors[1].offset + 400);
  manifest.experts = *lay_out_experts({2, 3, 64, 128}, DType::kQ4);
  manifest.sources = {{"model.safetensors", 12345}};
  return manifest;
}

struct SmallModel {
  SimStorage disk;
  Manifest manifest = small_manifest();
  std::vector<std::byte> resident;

  SmallModel() {
    disk.make_directory("/m").value();
    resident = noise(manifest.resident_bytes, 1);
    store(disk, "/m/resident.bin", resident);
    store(disk, "/m/experts.bin", noise(manifest.experts.file_bytes(), 2));
    std::vector<Hash128> sums;
    const std::span<const std::byte> all = resident;
    for (uint64_t offset = 0; offset < all.size(); offset += kResidentBlockBytes) {
      const uint64_t bytes = std::min(kResidentBlockBytes, all.size() - offset);
      sums.push_back(block_checksum(kModelId, sums.size(), all.subspan(offset, bytes)));
    }
    add("resident.sum", std::as_bytes(std::span(sums)));
    add("experts.sum", noise(manifest.experts.num_records() * 2 * sizeof(Hash128), 3));
    add("tokenizer.json", std::as_bytes(std::span(std::string_view("{\"a\":1}"))));
    store_manifest(manifest_text(manifest));
  }

  void add(const std::string& name, std::span<const std::byte> bytes) {
    store(disk, "/m/" + name, bytes);
    manifest.files.push_back({name, bytes.size(), checksum(bytes, 0)});
  }
  void store_manifest(std::string_view text) {
    store(disk, "/m/penstock.json", std::as_bytes(std::span(text)));
  }
  Result<Container> open() { return Container::open(disk, "/m"); }

  Result<void> load(uint64_t misalign = 0) {
    const Container model = *open();
    AlignedMemory memory = *AlignedMemory::create(model.resident_bytes() + misalign, "test");
    const auto target = memory.bytes().subspan(misalign);
    PENSTOCK_TRY(model.load_resident(target, {}));
    EXPECT_TRUE(std::equal(target.begin(), target.end(), resident.begin()));
    return {};
  }
};

TEST(Container, opens_and_loads_what_the_format_describes) {
  SmallModel model;
  const Result<Container> opened = model.open();
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  EXPECT_EQ(opened->model_id(), kModelId);
  EXPECT_EQ(*opened->find("norm"), model.manifest.tensors[1]);
  EXPECT_EQ(opened->find("none"), nullptr);
  EXPECT_EQ(opened->experts(), model.manifest.experts);
  EXPECT_EQ(opened->load_expert_checksums()->size(), 12u);
  EXPECT_EQ(*opened->text_file("tokenizer.json"), "{\"a\":1}");
  EXPECT_EQ(opened->text_file("chat_template.jinja").error().code, ErrorCode::kNotFound);
  model.load().value();
}

TEST(Container, loads_directly_buffered_and_with_progress) {
  SmallModel model;
  model.load(64).value();  // a target that direct reads cannot use
  model.disk.set_direct_alignment(65536);
  model.load().value();
  model.disk.set_direct_alignment(1);
  model.load().value();
  const Container container = *model.open();
  AlignedMemory memory = *AlignedMemory::create(container.resident_bytes(), "test");
  uint64_t seen = 0;
  container
      .load_resident(memory.bytes(),
                     [&](uint64_t done, uint64_t total) {
                       EXPECT_GT(done, seen);
                       EXPECT_EQ(total, container.resident_bytes());
                       seen = done;
                     })
      .value();
  EXPECT_EQ(seen, container.resident_bytes());
}

TEST(Container, a_block_that_fails_once_is_read_again) {
  const uint64_t reads_before = [] {
    SmallModel model;
    model.load().value();
    return model.disk.calls(SimCall::kRead);
  }();
  for (const SimEffect effect : {SimEffect::kError, SimEffect::kFlipBit}) {
    SmallModel model;
    model.disk.inject({.call = SimCall::kRead, .effect = effect, .path_part = "resident.bin"});
    model.load().value();
    EXPECT_EQ(model.disk.faults_struck(), 1u);
    EXPECT_EQ(model.disk.calls(SimCall::kRead), reads_before + 1);
  }
}

TEST(Container, a_damaged_block_is_refused_naming_tensor_and_offset) {
  SmallModel model;
  model.disk.flip_stored_bit("/m/resident.bin", (kResidentBlockBytes + 5) * 8);
  const Result<void> loaded = model.load();
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(loaded.error().message, HasSubstr("embed_tokens"));
  EXPECT_THAT(loaded.error().message, HasSubstr("0x100000"));
  EXPECT_THAT(loaded.error().message, HasSubstr("/m/resident.bin"));
}

TEST(Container, a_misdirected_block_is_refused) {
  SmallModel model;
  // Both blocks equal in content would still differ in their sums; here block 0 is given block 1.
  model.disk.inject({.call = SimCall::kRead,
                     .times = 2,
                     .effect = SimEffect::kMisdirect,
                     .by = static_cast<int64_t>(4096),
                     .path_part = "resident.bin"});
  EXPECT_EQ(model.load().error().code, ErrorCode::kCorrupt);
}

TEST(Container, a_disk_that_fails_twice_is_an_io_error) {
  SmallModel model;
  model.disk.inject(
      {.call = SimCall::kRead, .times = 2, .error = EIO, .path_part = "resident.bin"});
  EXPECT_EQ(model.load().error().code, ErrorCode::kIo);
}

TEST(Container, one_flipped_bit_anywhere_in_the_manifest_is_found) {
  SmallModel model;
  const uint64_t bytes = model.disk.stat("/m/penstock.json")->bytes;
  for (uint64_t bit = 0; bit < bytes * 8; ++bit) {
    model.disk.flip_stored_bit("/m/penstock.json", bit);
    EXPECT_FALSE(model.open().has_value()) << bit;
    model.disk.flip_stored_bit("/m/penstock.json", bit);
  }
  EXPECT_TRUE(model.open().has_value());
}

TEST(Container, a_manifest_cut_anywhere_is_refused) {
  SmallModel model;
  const std::string text = manifest_text(model.manifest);
  for (size_t length = 0; length < text.size(); ++length) {
    model.store_manifest(text.substr(0, length));
    EXPECT_FALSE(model.open().has_value()) << length;
  }
  model.store_manifest(text + "\n");
  EXPECT_FALSE(model.open().has_value());
}

TEST(Container, a_damaged_sum_or_text_file_is_refused) {
  SmallModel model;
  const Container container = *model.open();
  for (const char* name : {"resident.sum", "experts.sum", "tokenizer.json"}) {
    model.disk.flip_stored_bit(std::string("/m/") + name, 9);
  }
  EXPECT_EQ(container.load_resident_checksums().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(container.load_expert_checksums().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(container.text_file("tokenizer.json").error().code, ErrorCode::kCorrupt);
}

TEST(Container, every_missing_or_shortened_file_is_named) {
  for (const char* name :
       {"resident.bin", "resident.sum", "experts.bin", "experts.sum", "tokenizer.json"}) {
    const std::string path = std::string("/m/") + name;
    SmallModel shortened;
    shortened.disk.truncate(path, shortened.disk.stat(path)->bytes - 1);
    const Result<Container> first = shortened.open();
    ASSERT_FALSE(first.has_value()) << name;
    EXPECT_EQ(first.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(first.error().message, HasSubstr(path));
    SmallModel removed;
    removed.disk.remove(path).value();
    const Result<Container> second = removed.open();
    ASSERT_FALSE(second.has_value()) << name;
    EXPECT_EQ(second.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(second.error().message, HasSubstr(path));
  }
}

TEST(Container, tells_what_is_there_instead_of_a_model) {
  SmallModel model;
  EXPECT_THAT(Container::open(model.disk, "/none").error().message, HasSubstr("/none"));
  EXPECT_EQ(Container::open(model.disk, "/none").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(Container::open(model.disk, "/m/resident.bin").error().message,
              HasSubstr("directory"));
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& c : {Case{"", "an empty file"}, Case{"x", "not a manifest"},
                        Case{"<html>", "an HTML page"}, Case{"{}", "not the manifest"},
                        Case{"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"},
                        Case{R"({"format":"penstock"})", "version"}}) {
    model.store_manifest(c.text);
    EXPECT_THAT(model.open().error().message, HasSubstr(c.message)) << c.text;
  }
  model.disk.remove("/m/penstock.json").value();
  EXPECT_THAT(model.open().error().message, HasSubstr("not finished"));
}

TEST(Container, other_versions_are_unsupported_and_say_which_is_read) {
  for (const char* version : {"0", "3", "16777216", "-1", "9223372036854775807"}) {
    SmallModel model;
    model.store_manifest(resealed(manifest_text(model.manifest), "\"version\": 1",
                                  std::string("\"version\": ") + version));
    const Result<Container> opened = model.open();
    ASSERT_FALSE(opened.has_value()) << version;
    EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(opened.error().message, HasSubstr("reads versions 1 to 2"));
  }
}

// Manifests that are whole and sealed, and lie.
TEST(Container, a_manifest_is_not_believed_because_it_is_sealed) {
  struct Lie {
    const char* from;
    const char* to;
  };
  const Lie lies[] = {
      {"\"rows\":5000", "\"rows\":4294967296"},
      {"\"rows\":5000", "\"rows\":2147483648"},
      {"\"rows\":5000", "\"rows\":18446744073709551615"},
      {"\"rows\":5000", "\"rows\":0"},
      {"\"rows\":5000", "\"rows\":-5000"},
      {"\"columns\":100", "\"columns\":101000"},
      {"\"dtype\":\"bf16\"", "\"dtype\":\"f16\""},
      {"\"dtype\":\"bf16\"", "\"dtype\":\"q4\""},  // 100 columns are not whole groups
      {"\"dtype\":\"bf16\"", "\"dtype\":\"q5\""},
      {"\"layout\":\"panels\"", "\"layout\":\"plain\""},
      {"\"layout\":\"plain\"", "\"layout\":\"tiles\""},
      {"\"offset\":0", "\"offset\":4096"},
      {"\"offset\":0", "\"offset\":1"},
      {"\"bytes\":400", "\"bytes\":404"},
      {"\"bytes\":400", "\"bytes\":9223372036854775807"},
      {"\"bytes\":400", "\"bytes\":18446744073709551615"},
      {"\"name\":\"norm\"", "\"name\":\"embed_tokens\""},
      {"\"name\":\"norm\"", "\"name\":\"../norm\""},
      {"\"name\":\"norm\"", "\"name\":\"a\\u0000b\""},
      {"\"name\":\"tokenizer.json\"", "\"name\":\"../tokenizer.json\""},
      {"\"name\":\"tokenizer.json\"", "\"name\":\"resident.bin\""},
      {"\"name\":\"tokenizer.json\"", "\"name\":\"resident.sum\""},
      {"\"name\":\"experts.sum\"", "\"name\":\"experts.som\""},
      {"\"layers\":2", "\"layers\":1000000000"},
      {"\"layers\":2", "\"layers\":0"},
      {"\"experts\":3", "\"experts\":65536"},
      {"\"experts\":3", "\"experts\":4294967296"},
      {"\"hidden_size\":64", "\"hidden_size\":0"},
      {"\"hidden_size\":64", "\"hidden_size\":2147483648"},
      {"\"hidden_size\":64", "\"hidden_size\":65"},
      {"\"record_bytes\":", "\"record_bytes\":1"},
      {"\"gate_up_offset\":0", "\"gate_up_offset\":512"},
      {"\"down_offset\":", "\"down_offset\":-"},
      {"\"model_id\": \"000000000000004d\"", "\"model_id\": \"4d\""},
      {"\"config\": {\"model_type\":\"x\"}", "\"config\": 7"},
      {"\"files\": [", "\"files\": 7, \"x\": ["},
      {"\"format\": \"penstock\"", "\"format\": \"penstock\", \"format\": \"penstock\""},
  };
  SmallModel model;
  for (const Lie& lie : lies) {
    model.store_manifest(resealed(manifest_text(model.manifest), lie.from, lie.to));
    const Result<Container> opened = model.open();
    ASSERT_FALSE(opened.has_value()) << lie.from << " -> " << lie.to;
    EXPECT_TRUE(opened.error().code == ErrorCode::kCorrupt ||
                opened.error().code == ErrorCode::kNotFound)
        << lie.to;
    EXPECT_THAT(opened.error().message, HasSubstr("/m/")) << lie.to;
    for (const char c : opened.error().message) EXPECT_GE(c, ' ') << lie.to;
  }
}

TEST(Manifest, text_and_struct_are_the_same) {
  const Manifest manifest = small_manifest();
  Manifest with_files = manifest;
  with_files.files = {{"resident.sum", 1, {1, 2}}, {"experts.sum", 2, {3, 4}}};
  const Manifest parsed = *parse_manifest(manifest_text(with_files), "x");
  EXPECT_EQ(manifest_text(parsed), manifest_text(with_files));
  EXPECT_EQ(parsed.tensors, manifest.tensors);
  EXPECT_EQ(parsed.experts, manifest.experts);
  EXPECT_EQ(parsed.sources, manifest.sources);
}

TEST(Manifest, content_id_changes_with_any_file) {
  Manifest manifest = small_manifest();
  manifest.files = {{"resident.sum", 1, {1, 2}}, {"experts.sum", 2, {3, 4}}};
  const Hash128 before = *manifest_sum(manifest_text(manifest), "x");
  manifest.files[1].sum.low ^= 1;
  EXPECT_NE(*manifest_sum(manifest_text(manifest), "x"), before);
}

TEST(Manifest, every_part_of_a_record_starts_on_a_page) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    const ExpertParts parts = *lay_out_experts({3, 5, 320, 128}, dtype);
    const ExpertRecord& laid_out = parts.record(2);
    EXPECT_EQ(laid_out.down_offset % kFileAlignment, 0u);
    EXPECT_EQ(laid_out.bytes % kFileAlignment, 0u);
    EXPECT_GE(laid_out.down_offset, laid_out.gate_up_bytes);
    EXPECT_GE(laid_out.bytes, laid_out.down_offset + laid_out.down_bytes);
    EXPECT_EQ(parts.offset_of(11), 11 * laid_out.bytes);
  }
}

}  // namespace
}  // namespace penstock
