// Packing what is quantised already: every code arrives where it belongs, whatever the disk does on
// the way, and what such sources cannot become is said.

#include "pack/source_input.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>

#include "format/container.h"
#include "pack/checkpoint_input.h"
#include "pack/identity.h"
#include "pack/pack.h"
#include "pack/test_checkpoint.h"
#include "pack/verify.h"
#include "source/model_source.h"
#include "source/stored_form.h"

namespace penstock {
namespace {

using test::Files;
using test::pack;
using testing::HasSubstr;

struct Case {
  const char* folder;
  const char* file;  // "": the folder
};
constexpr Case kCases[] = {{"gguf-mixed", "/m.gguf"},
                           {"gguf-old", "/m-00001-of-00003.gguf"},
                           {"gguf-mtp", "/m.gguf"},
                           {"gguf-next", "/m.gguf"},
                           {"mlx-4", ""},
                           {"mlx-mxfp4", ""},
                           {"fp8", ""}};

Files files_of(const Case& which) {
  return test::load_all(posix_storage(), test::data_path(std::string("sources/") + which.folder));
}

PackOptions options_of(const Case& which) {
  PackOptions options;
  options.source = std::string("/source") + which.file;
  options.target = "/out/model";
  options.sync_bytes = 30000;
  return options;
}

// Rows of a coded matrix at `place`, decoded.
std::vector<float> stored_row(const MatrixForm& form, int64_t rows, int64_t columns,
                              const std::byte* place, int64_t row) {
  const PlacedPlanes planes = *place_matrix(form, rows, columns);
  const CodedRows coded = {.coding = form.coding,
                           .codes = place + planes.at.codes,
                           .scales = place + planes.at.scales,
                           .biases = place + planes.at.biases,
                           .scale_rows = form.layout == MatrixLayout::kCodedPanels ? 0 : 1};
  std::vector<float> values(static_cast<size_t>(columns)), stored(values.size());
  decode_row(coded, row, values, stored);
  return values;
}

void expect_same_values(std::span<const float> found, std::span<const float> expected,
                        const std::string& what) {
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size_bytes()), 0) << what;
}

TEST(PackSource, every_code_of_an_expert_means_what_it_meant) {
  for (const Case& which : kCases) {
    SimStorage disk;
    test::store_all(disk, "/source", files_of(which));
    const PackOptions options = options_of(which);
    const Result<PackReport> packed = pack(disk, options);
    ASSERT_TRUE(packed.has_value()) << which.folder << ": " << packed.error().message;
    const Container model = *Container::open(disk, "/out/model");
    EXPECT_EQ(model.manifest().version(), 2) << which.folder;
    ModelSource source = *ModelSource::open(disk, options.source);
    const std::string bytes = *read_text(disk, model.experts_path(), uint64_t{1} << 30);
    const ExpertParts& parts = model.experts();
    int64_t compared = 0;
    for (uint64_t index = 0; index < parts.num_records(); ++index) {
      const int64_t layer = parts.layer_of(index);
      const int64_t expert = static_cast<int64_t>(index) % parts.num_experts;
      const ExpertRecord& record = parts.record(layer);
      const auto* begin = reinterpret_cast<const std::byte*>(bytes.data()) + parts.offset_of(index);
      const std::array<const std::byte*, 3> places = {begin, begin + record.up_offset,
                                                      begin + record.down_offset};
      const std::array<const MatrixForm*, 3> forms = {&record.forms.gate, &record.forms.up,
                                                      &record.forms.down};
      for (size_t part = 0; part < places.size(); ++part) {
        if (!forms[part]->is_coded() || record.forms.is_fused) continue;
        const StoredMatrix stored =
            source.experts()[static_cast<size_t>(layer)].parts[part].of(expert);
        std::vector<float> expected(static_cast<size_t>(stored.columns));
        for (int64_t row = 0; row < stored.rows; row += 7) {
          source.read_rows(stored, row, expected).value();
          expect_same_values(
              stored_row(*forms[part], stored.rows, stored.columns, places[part], row), expected,
              which.folder);
          ++compared;
        }
      }
    }
    EXPECT_GT(compared, 0) << which.folder;
    const VerifyReport report = *verify_model(disk, "/out/model", {}, {});
    EXPECT_EQ(report.num_faults, 0u) << which.folder;
  }
}

TEST(PackSource, the_manifest_says_it_all_again) {
  for (const Case& which : kCases) {
    SimStorage disk;
    test::store_all(disk, "/source", files_of(which));
    pack(disk, options_of(which)).value();
    const std::string path = "/out/model/penstock.json";
    const std::string text = *read_text(disk, path, 1 << 24);
    const Manifest manifest = *parse_manifest(text, path);
    EXPECT_EQ(manifest_text(manifest), text) << which.folder;
    // To a reader of version 1 alone it is of another version, not damaged.
    EXPECT_THAT(text, HasSubstr("\"version\": 2"));
  }
}

TEST(PackSource, the_same_again_gives_the_same_bytes_for_any_number_of_threads) {
  SimStorage one, three;
  for (SimStorage* disk : {&one, &three}) {
    test::store_all(*disk, "/source", files_of(kCases[0]));
    PackOptions options = options_of(kCases[0]);
    options.num_threads = disk == &one ? 1 : 3;
    pack(*disk, options).value();
  }
  EXPECT_EQ(test::load_all(one, "/out/model"), test::load_all(three, "/out/model"));
}

TEST(PackSource, power_lost_at_random_can_be_continued_to_the_same_bytes) {
  for (const size_t index : {size_t{1}, size_t{4}, size_t{6}}) {
    const Case& which = kCases[index];
    const PackOptions options = options_of(which);
    SimStorage whole;
    const Files source = files_of(which);
    test::store_all(whole, "/source", source);
    const uint64_t before = whole.calls(SimCall::kAny);
    pack(whole, options).value();
    const uint64_t calls = whole.calls(SimCall::kAny) - before;
    const Files expected = test::load_all(whole, "/out/model");
    std::mt19937_64 random(index);
    for (uint64_t round = 0; round < 15; ++round) {
      SimStorage disk(round);
      test::store_all(disk, "/source", source);
      disk.inject({.after = random() % calls, .times = kForEver, .error = EIO});
      static_cast<void>(pack(disk, options));
      disk.crash();
      if (disk.stat("/out/model").has_value()) {
        EXPECT_EQ(test::load_all(disk, "/out/model"), expected);
      } else {
        const Result<PackReport> again = pack(disk, options);
        ASSERT_TRUE(again.has_value()) << again.error().message;
        EXPECT_EQ(test::load_all(disk, "/out/model"), expected) << which.folder << " " << round;
      }
      EXPECT_EQ(test::load_all(disk, "/source"), source);
    }
  }
}

// One scale, code or value of a matrix becomes no number, in the bytes of its file.
struct Poison {
  size_t index;        // of kCases
  const char* tensor;  // of resident ones; else of expert 1 in layer 1
  ExpertPart part;     // of that
  CodedPlane plane;
  std::string bytes;
  int64_t row;
};

StoredMatrix poisoned_matrix(const ModelSource& source, const Poison& poison) {
  if (*poison.tensor == 0) return source.experts()[1][poison.part].of(1);
  return source.find(poison.tensor)->ranges.front().matrix;
}

TEST(PackSource, scales_and_codes_that_are_no_numbers_are_refused_with_tensor_and_row) {
  const std::string half("\x00\x7e", 2), brain("\xc0\x7f", 2), nan8("\x7f", 1), e8m0("\xff", 1);
  const Poison poisons[] = {
      {3, "", ExpertPart::kUp, CodedPlane::kCodes, half, 3},
      {0, "embed_tokens", ExpertPart::kUp, CodedPlane::kCodes, half, 11},
      {4, "", ExpertPart::kDown, CodedPlane::kScales, brain, 5},
      {4, "embed_tokens", ExpertPart::kUp, CodedPlane::kBiases, brain, 7},
      {5, "", ExpertPart::kGate, CodedPlane::kScales, e8m0, 1},
      {6, "", ExpertPart::kGate, CodedPlane::kCodes, nan8, 17},
      {6, "layers.0.mlp.shared_expert.down_proj", ExpertPart::kUp, CodedPlane::kCodes, nan8, 9},
  };
  for (const Poison& poison : poisons) {
    const Case& which = kCases[poison.index];
    SimStorage disk;
    Files files = files_of(which);
    test::store_all(disk, "/source", files);
    const PackOptions options = options_of(which);
    const ModelSource source = *ModelSource::open(disk, options.source);
    ASSERT_GT(source.config().num_experts, 1);
    const StoredMatrix matrix = poisoned_matrix(source, poison);
    SCOPED_TRACE(std::string(which.folder) + " " + poison.tensor + " " + name_of(matrix.coding));
    const Plane& plane = poison.plane == CodedPlane::kCodes    ? matrix.codes
                         : poison.plane == CodedPlane::kScales ? matrix.scales
                                                               : matrix.biases;
    ASSERT_GT(plane.row_bytes, 0u);
    const std::string path = source.files()[plane.file].path;
    std::string& bytes = files[path.substr(path.rfind('/') + 1)];
    const uint64_t at = plane.offset + static_cast<uint64_t>(poison.row) * plane.row_bytes;
    bytes.replace(at, poison.bytes.size(), poison.bytes);
    test::store(disk, path, bytes);
    const Result<PackReport> packed = pack(disk, options);
    ASSERT_FALSE(packed.has_value());
    EXPECT_EQ(packed.error().code, ErrorCode::kCorrupt);
    const std::string name = *poison.tensor == 0 ? "of expert 1 in layer 1" : poison.tensor;
    EXPECT_THAT(packed.error().message, HasSubstr(name));
    EXPECT_THAT(packed.error().message, HasSubstr(fmt::format("row {}, column 0", poison.row)));
    EXPECT_FALSE(disk.stat("/out/model").has_value());
  }
}

TEST(PackSource, texts_come_from_the_keys_of_the_file) {
  SimStorage disk;
  test::store_all(disk, "/source", files_of(kCases[1]));
  pack(disk, options_of(kCases[1])).value();
  const Container model = *Container::open(disk, "/out/model");
  const ModelSource source = *ModelSource::open(disk, options_of(kCases[1]).source);
  EXPECT_FALSE(source.texts().empty());
  for (const SourceText& text : source.texts()) EXPECT_EQ(*model.text_file(text.name), text.text);
}

TEST(PackSource, other_types_are_made_when_asked_for_and_refused_by_their_flag) {
  SimStorage disk;
  test::store_all(disk, "/source", files_of(kCases[6]));
  PackOptions options = options_of(kCases[6]);
  options.experts = DType::kQ4;
  const Result<PackReport> refused = pack(disk, options);  // rows of 160 and 32
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("--experts 4"));
  EXPECT_FALSE(disk.stat("/out/model.partial").has_value());

  SimStorage other;
  test::store_all(other, "/source", files_of(kCases[4]));
  options = options_of(kCases[4]);
  options.resident = panel_form(DType::kQ8);
  pack(other, options).value();
  const Container model = *Container::open(other, "/out/model");
  EXPECT_EQ(model.find("embed_tokens")->form, panel_form(DType::kQ8));
  EXPECT_EQ(model.manifest().resident_option, "q8");
}

// The same weights, read as a folder of floats and as a source of any coding.
TEST(PackSource, a_mixture_within_a_budget_is_the_same_one_whoever_reads_the_weights) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options;
  options.source = "/source";
  options.quantiser = Quantiser::kSearch;
  options.target_bytes = 86016;  // halfway between 2 bits and 8
  std::vector<BitPlan> plans;
  options.on_plan = [&](const BitPlan& made) { plans.push_back(made); };
  const auto source = *open_source_input(disk, options, {});
  const auto folder = *open_checkpoint_input(disk, options, {});
  ASSERT_EQ(plans.size(), 2u);
  EXPECT_EQ(plans[0].losses, plans[1].losses);
  EXPECT_EQ(source->experts(), folder->experts());
  EXPECT_EQ(source->experts().file_bytes(), plans[0].total_bytes);
  EXPECT_EQ(experts_text(source->types()), "mixed, at most 86016 bytes");
  const auto largest = source->experts().largest_part();
  std::vector<std::byte> of_source(largest), of_folder(largest);
  for (const PackedPart part : kPackedParts) {
    const uint64_t bytes = source->experts().record(1).extent(part).bytes;
    source->make_part(1, 2, part, std::span(of_source).first(bytes), {}).value();
    folder->make_part(1, 2, part, std::span(of_folder).first(bytes), {}).value();
    EXPECT_EQ(of_source, of_folder);
  }
  options.target_bytes = 4096;
  const auto refused = open_source_input(disk, options, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(plans[0].least_bytes)));
}

// The types of panels of our own have 8, 4, 3 and 2 bits.
TEST(PackSource, resident_weights_of_six_or_five_bits_are_affine_codes_whoever_reads_them) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  Checkpoint checkpoint = *Checkpoint::open(disk, "/source");
  for (const int bits : {6, 5}) {
    PackOptions options;
    options.source = "/source";
    options.experts = DType::kQ4;
    options.resident = quantised_form(std::to_string(bits));
    const auto source = *open_source_input(disk, options, {});
    const auto folder = *open_checkpoint_input(disk, options, {});
    ASSERT_EQ(source->resident().size(), folder->resident().size());
    int coded = 0;
    for (size_t i = 0; i < source->resident().size(); ++i) {
      const ResidentTensor& tensor = folder->resident()[i];
      std::vector<std::byte> of_source, of_folder;
      const auto into = [](std::vector<std::byte>& bytes) {
        return [&bytes](std::span<const std::byte> part) -> Result<void> {
          bytes.insert(bytes.end(), part.begin(), part.end());
          return {};
        };
      };
      source->make_resident(i, into(of_source), {}).value();
      folder->make_resident(i, into(of_folder), {}).value();
      EXPECT_EQ(of_source, of_folder) << tensor.name;
      EXPECT_EQ(of_folder.size(), tensor.bytes) << tensor.name;
      EXPECT_EQ(tensor.form, source->resident()[i].form);
      if (!tensor.form.is_coded()) continue;
      ++coded;
      if (tensor.name != "lm_head") continue;
      const RowBytes at = place_matrix(tensor.form, tensor.rows, tensor.columns)->at;
      std::vector<float> values(static_cast<size_t>(tensor.columns)), stored(values.size());
      for (const int64_t row : {int64_t{0}, tensor.rows - 1}) {
        checkpoint.read_rows(*checkpoint.find("lm_head.weight"), row, values).value();
        decode_panel_row({.coding = tensor.form.coding,
                          .codes = of_folder.data() + at.codes,
                          .scales = of_folder.data() + at.scales,
                          .biases = of_folder.data() + at.biases,
                          .scale_rows = 0},
                         row, stored);
        for (size_t c = 0; c < values.size(); c += kGroupColumns) {
          const AffineGroup group = quantise_group(
              std::span<const float, kGroupColumns>(&values[c], kGroupColumns), bits);
          for (size_t k = 0; k < static_cast<size_t>(kGroupColumns); ++k) {
            EXPECT_EQ(stored[c + k],
                      std::fma(bf16_to_f32(group.scale), static_cast<float>(group.codes[k]),
                               bf16_to_f32(group.bias)));
          }
        }
      }
    }
    EXPECT_GT(coded, 8);
  }
}

TEST(PackSource, a_prediction_block_is_packed_or_left_out) {
  SimStorage disk;
  test::store_all(disk, "/source", files_of(kCases[2]));
  PackOptions options = options_of(kCases[2]);
  pack(disk, options).value();
  const Container with = *Container::open(disk, "/out/model");
  EXPECT_NE(with.find("mtp.fc"), nullptr);
  options.target = "/out/other";
  options.without_prediction = true;
  pack(disk, options).value();
  const Container without = *Container::open(disk, "/out/other");
  EXPECT_EQ(without.find("mtp.fc"), nullptr);
  EXPECT_EQ(without.experts().num_layers + 1, with.experts().num_layers);
  EXPECT_NE(without.model_id(), with.model_id());
}

TEST(PackSource, a_file_that_changes_meanwhile_ends_it) {
  SimStorage disk;
  test::store_all(disk, "/source", files_of(kCases[0]));
  bool changed = false;
  const auto change = [&](const PackProgress& now) {
    if (now.stage != PackStage::kExperts || std::exchange(changed, true)) return;
    std::string bytes = *read_text(disk, "/source/m.gguf", 1 << 24);
    bytes.push_back('\0');
    test::store(disk, "/source/m.gguf", bytes);
  };
  const Result<PackReport> packed = pack_model(disk, options_of(kCases[0]), change, {});
  ASSERT_FALSE(packed.has_value());
  EXPECT_THAT(packed.error().message, HasSubstr("changed while it was being read"));
  EXPECT_FALSE(disk.stat("/out/model").has_value());
}

}  // namespace
}  // namespace penstock
