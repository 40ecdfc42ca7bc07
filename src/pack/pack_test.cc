#include "pack/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/memory.h"
#include "compute/panel.h"
#include "format/container.h"
#include "pack/test_checkpoint.h"

namespace penstock {
namespace {

using test::Files;
using test::pack;
using testing::HasSubstr;

PackOptions options_of(std::optional<DType> experts = DType::kQ4,
                       std::optional<DType> resident = std::nullopt) {
  PackOptions options;
  options.source = "/source";
  options.target = "/out/model";
  options.experts = experts;
  if (resident) options.resident = panel_form(*resident);
  return options;
}

Files packed_files(const Files& source, const PackOptions& options) {
  SimStorage disk;
  test::store_all(disk, "/source", source);
  const Result<PackReport> report = pack(disk, options);
  EXPECT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(*disk.list("/out"), std::vector<std::string>{"model"}) << "nothing else is left";
  return test::load_all(disk, "/out/model");
}

// A packed model in memory, to look into.
struct Opened {
  Container container;
  AlignedMemory resident;
  std::string experts;

  static Opened of(Storage& disk, const std::string& directory) {
    Container container = *Container::open(disk, directory);
    AlignedMemory memory = *AlignedMemory::create(container.resident_bytes(), "test");
    container.load_resident(memory.bytes(), {}).value();
    std::string experts = *read_text(disk, container.experts_path(), uint64_t{1} << 30);
    return {std::move(container), std::move(memory), std::move(experts)};
  }
  std::vector<float> row(const std::string& name, int64_t row) const {
    const ResidentTensor& tensor = *container.find(name);
    std::vector<float> values(static_cast<size_t>(tensor.columns));
    const std::byte* start = resident.bytes().data() + tensor.offset;
    if (!tensor.form.is_plain()) {
      panel_row({tensor.form.dtype, tensor.rows, tensor.columns, start}, row, values);
    } else {
      std::memcpy(values.data(), start + static_cast<size_t>(row) * values.size() * 4,
                  values.size() * 4);
    }
    return values;
  }
  std::vector<float> expert_row(int64_t layer, int64_t expert, bool down, int64_t row) const {
    const ExpertParts& parts = container.experts();
    const auto record = static_cast<uint64_t>(layer * parts.num_experts + expert);
    const uint64_t offset = parts.offset_of(record) + (down ? parts.record(layer).down_offset : 0);
    const DType dtype = *parts.one_dtype();
    Matrix matrix{dtype, 2 * parts.intermediate_size, parts.hidden_size, nullptr};
    if (down) matrix = {dtype, parts.hidden_size, parts.intermediate_size, nullptr};
    // Panels want alignment that a string does not have.
    const auto bytes = static_cast<uint64_t>(panel_bytes(dtype, matrix.rows, matrix.columns));
    AlignedMemory copy = *AlignedMemory::create(bytes, "test");
    std::memcpy(copy.bytes().data(), experts.data() + offset, bytes);
    matrix.panels = copy.bytes().data();
    std::vector<float> values(static_cast<size_t>(matrix.columns));
    panel_row(matrix, row, values);
    return values;
  }
};

std::string packed_folder(const std::string& source, SimStorage& disk) {
  test::store_all(disk, "/source", test::load_all(posix_storage(), test::data_path(source)));
  const Result<PackReport> report = pack(disk, options_of(std::nullopt));
  EXPECT_TRUE(report.has_value()) << report.error().message;
  return "/out/model";
}

// The name a tensor has in the source, found the slow way: by trying.
const CheckpointTensor* source_of(const Checkpoint& checkpoint, const std::string& name) {
  for (const std::string prefix : {"model.language_model.", "model.", ""}) {
    for (const std::string suffix : {".weight", ""}) {
      std::string tried = prefix + name + suffix;
      if (tried.ends_with("decay")) tried.replace(tried.size() - 5, 5, "A_log");
      if (const CheckpointTensor* tensor = checkpoint.find(tried)) return tensor;
    }
  }
  return nullptr;
}

bool is_zero_centred(std::string_view name) {
  return name == "norm" || name.ends_with("layernorm") || name.ends_with("q_norm") ||
         name.ends_with("k_norm");
}

TEST(Pack, keeps_every_value_of_every_random_checkpoint) {
  for (const char* name :
       {"random/r0-gva2", "random/r1-tied", "random/r2-top1", "random/r3-wrapped"}) {
    SimStorage disk;
    const Opened model = Opened::of(disk, packed_folder(name, disk));
    Checkpoint checkpoint = *Checkpoint::open(disk, "/source");
    for (const ResidentTensor& tensor : model.container.tensors()) {
      const CheckpointTensor* source = source_of(checkpoint, tensor.name);
      ASSERT_NE(source, nullptr) << name << " " << tensor.name;
      std::vector<float> expected(static_cast<size_t>(tensor.columns));
      for (int64_t row = 0; row < tensor.rows; ++row) {
        checkpoint.read_rows(*source, row, expected).value();
        for (float& value : expected) {
          if (is_zero_centred(tensor.name)) value = 1.0f + value;
          if (tensor.name.ends_with("decay")) value = static_cast<float>(-std::exp(double{value}));
        }
        ASSERT_EQ(model.row(tensor.name, row), expected)
            << name << " " << tensor.name << " " << row;
      }
    }
    const ExpertParts& parts = model.container.experts();
    for (int64_t layer = 0; layer < parts.num_layers; ++layer) {
      const std::string base = "layers." + std::to_string(layer) + ".mlp.experts.";
      const CheckpointTensor& gate_up = *source_of(checkpoint, base + "gate_up_proj");
      const CheckpointTensor& down = *source_of(checkpoint, base + "down_proj");
      for (const int64_t expert : {int64_t{0}, parts.num_experts - 1}) {
        const int64_t row = 2 * parts.intermediate_size - 1;
        std::vector<float> expected(static_cast<size_t>(parts.hidden_size));
        checkpoint.read_rows(gate_up, expert * (row + 1) + row, expected).value();
        EXPECT_EQ(model.expert_row(layer, expert, false, row), expected) << name;
        expected.resize(static_cast<size_t>(parts.intermediate_size));
        checkpoint.read_rows(down, expert * parts.hidden_size + 1, expected).value();
        EXPECT_EQ(model.expert_row(layer, expert, true, 1), expected) << name;
      }
    }
  }
}

TEST(Pack, another_layout_of_the_same_weights_gives_the_same_model) {
  SimStorage first, second;
  const Files flat = test::load_all(first, packed_folder("random/r0-gva2", first));
  const Files next = test::load_all(second, packed_folder("layouts/r0-next", second));
  EXPECT_EQ(flat.at("resident.bin"), next.at("resident.bin"));
  EXPECT_EQ(flat.at("experts.bin"), next.at("experts.bin"));
  EXPECT_NE(flat.at("experts.sum"), next.at("experts.sum")) << "another source, another id";
}

TEST(Pack, experts_are_the_quantisers_codes) {
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    pack(disk, options_of(dtype, DType::kQ8)).value();
    const Opened model = Opened::of(disk, "/out/model");
    Checkpoint checkpoint = *Checkpoint::open(disk, "/source");
    std::vector<float> source(64);
    checkpoint
        .read_rows(*checkpoint.find("model.layers.1.mlp.experts.gate_up_proj"), 2 * 128 + 77,
                   source)
        .value();
    const AffineGroup group =
        quantise_group(std::span<const float, 64>(source.data(), 64), bits_of(dtype));
    const std::vector<float> stored = model.expert_row(1, 2, false, 77);
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(stored[i], std::fma(bf16_to_f32(group.scale), static_cast<float>(group.codes[i]),
                                    bf16_to_f32(group.bias)));
    }
    EXPECT_EQ(model.container.find("lm_head")->form.dtype, DType::kQ8);
  }
}

TEST(Pack, same_source_and_options_give_the_same_bytes) {
  const Files first = packed_files(test::tiny_checkpoint(), options_of());
  PackOptions other = options_of();
  other.num_threads = 3;
  other.sync_bytes = 4096;
  EXPECT_EQ(packed_files(test::tiny_checkpoint(), other), first);
  EXPECT_NE(packed_files(test::tiny_checkpoint(), options_of(DType::kQ3)), first);
}

// A packed model says who made its codes; what was rounded says nothing, as before there was a choice.
TEST(Pack, searched_codes_are_the_same_for_any_number_of_threads_and_go_on_after_a_stop) {
  PackOptions options = options_of(DType::kQ2, DType::kQ4);
  const Files rounded = packed_files(test::tiny_checkpoint(), options);
  EXPECT_THAT(rounded.at("penstock.json"), testing::Not(HasSubstr("quantiser")));
  options.quantiser = Quantiser::kSearch;
  const Files searched = packed_files(test::tiny_checkpoint(), options);
  EXPECT_THAT(searched.at("penstock.json"), HasSubstr("\"quantiser\":\"search\""));
  EXPECT_NE(searched.at("experts.bin"), rounded.at("experts.bin"));
  EXPECT_NE(searched.at("resident.bin"), rounded.at("resident.bin"));
  EXPECT_EQ(searched.at("experts.bin").size(), rounded.at("experts.bin").size());
  options.num_threads = 3;
  options.sync_bytes = 4096;
  EXPECT_EQ(packed_files(test::tiny_checkpoint(), options), searched);

  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  std::stop_source stop;
  int calls = 0;
  const auto stop_late = [&](const PackProgress&) {
    if (++calls == 12) stop.request_stop();
  };
  const Result<PackReport> stopped = pack_model(disk, options, stop_late, stop.get_token());
  ASSERT_FALSE(stopped.has_value());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  const PackReport report = *pack(disk, options);
  EXPECT_GT(report.resumed_bytes, 0u);
  EXPECT_EQ(test::load_all(disk, "/out/model"), searched);
  // Whoever asks for other codes does not get these.
  EXPECT_EQ(packed_files(test::tiny_checkpoint(), options_of(DType::kQ2, DType::kQ4)), rounded);
  // Where nothing is quantised there is no quantiser either.
  PackOptions keep = options_of(std::nullopt);
  const Files kept = packed_files(test::tiny_checkpoint(), keep);
  keep.quantiser = Quantiser::kSearch;
  EXPECT_EQ(packed_files(test::tiny_checkpoint(), keep), kept);
}

// Each part is what it is in a model of its own bits; only the layout of the record is another.
TEST(Pack, down_matrices_may_have_other_bits) {
  PackOptions options = options_of(DType::kQ2);
  options.quantiser = Quantiser::kSearch;
  const auto opened = [](SimStorage& disk, const PackOptions& how) {
    test::store_all(disk, "/source", test::tiny_checkpoint());
    pack(disk, how).value();
    return Opened::of(disk, "/out/model");
  };
  SimStorage disk_2, disk_3, disk_both;
  const Opened two = opened(disk_2, options);
  options.experts = DType::kQ3;
  const Opened three = opened(disk_3, options);
  options.experts = DType::kQ2;
  options.down = DType::kQ3;
  const Opened both = opened(disk_both, options);
  EXPECT_EQ(both.container.manifest().version(), 2);
  EXPECT_EQ(both.container.manifest().experts_option, "q2, down q3");
  EXPECT_EQ(both.container.experts().codings(), "q2, q3");
  const auto part = [](const Opened& model, uint64_t record, PackedPart which) {
    const ExpertParts& parts = model.container.experts();
    const auto [offset, bytes] = parts.record_of(record).extent(which);
    return model.experts.substr(parts.offset_of(record) + offset, bytes);
  };
  for (uint64_t record = 0; record < both.container.experts().num_records(); ++record) {
    EXPECT_EQ(part(both, record, kGateUpPart), part(two, record, kGateUpPart)) << record;
    EXPECT_EQ(part(both, record, kDownPart), part(three, record, kDownPart)) << record;
  }
  options.down = DType::kQ2;
  SimStorage disk_same;
  EXPECT_EQ(opened(disk_same, options).container.id_text(), two.container.id_text());
}

// Halfway between all experts as q2 and all as q8.
TEST(Pack, a_mixture_within_a_budget_is_what_its_parts_are_alone_and_goes_on_after_a_stop) {
  const auto bytes_as = [](DType dtype) {
    const ExpertShape shape = {
        .num_layers = 2, .num_experts = 3, .hidden_size = 64, .intermediate_size = 64};
    return lay_out_experts(shape, dtype)->file_bytes();
  };
  PackOptions options = options_of(std::nullopt);
  options.quantiser = Quantiser::kSearch;
  options.target_bytes = (bytes_as(DType::kQ2) + bytes_as(DType::kQ8)) / 2;
  std::optional<BitPlan> plan;
  uint64_t measured = 0, to_measure = 1;
  options.on_plan = [&](const BitPlan& made) { plan = made; };
  options.on_survey = [&](uint64_t done, uint64_t total) { measured = done, to_measure = total; };
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  const PackReport report = pack(disk, options).value();
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(measured, to_measure);
  EXPECT_EQ(report.experts_bytes, plan->total_bytes);
  EXPECT_LE(report.experts_bytes, *options.target_bytes);
  EXPECT_GT(report.experts_bytes, bytes_as(DType::kQ2));
  const Opened mixed = Opened::of(disk, "/out/model");
  EXPECT_EQ(mixed.container.manifest().experts_option,
            "mixed, at most " + std::to_string(*options.target_bytes) + " bytes");
  EXPECT_EQ(mixed.container.manifest().quantiser_option, "search");
  const auto part = [](const Opened& model, uint64_t record, PackedPart which) {
    const ExpertParts& parts = model.container.experts();
    const auto [offset, bytes] = parts.record_of(record).extent(which);
    return model.experts.substr(parts.offset_of(record) + offset, bytes);
  };
  for (const DType dtype : kPlannedTypes) {
    PackOptions one = options_of(dtype);
    one.quantiser = Quantiser::kSearch;
    SimStorage other;
    test::store_all(other, "/source", test::tiny_checkpoint());
    pack(other, one).value();
    const Opened alone = Opened::of(other, "/out/model");
    for (uint64_t record = 0; record < mixed.container.experts().num_records(); ++record) {
      const LayerTypes types =
          plan->layers[static_cast<size_t>(mixed.container.experts().layer_of(record))];
      for (const PackedPart which : kPackedParts) {
        if ((which == kGateUpPart ? types.gate_up : types.down) != dtype) continue;
        EXPECT_EQ(part(mixed, record, which), part(alone, record, which)) << record;
      }
    }
  }

  const Files whole = test::load_all(disk, "/out/model");
  options.num_threads = 3;
  options.sync_bytes = 4096;
  SimStorage stopped;
  test::store_all(stopped, "/source", test::tiny_checkpoint());
  std::stop_source stop;
  const auto stop_later = [&](const PackProgress& now) {
    if (now.stage == PackStage::kExperts && now.bytes_done > report.resident_bytes) {
      stop.request_stop();
    }
  };
  const auto cut = pack_model(stopped, options, stop_later, stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::kCancelled);
  EXPECT_GT(pack(stopped, options)->resumed_bytes, 0u);
  EXPECT_EQ(test::load_all(stopped, "/out/model"), whole);
}

TEST(Pack, a_budget_that_cannot_hold_the_experts_is_refused_before_any_work) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options = options_of(std::nullopt);
  options.target_bytes = 1000;
  options.calibrate = []() -> Result<Calibration> { return Error{ErrorCode::kIo, "was run"}; };
  const auto refused = pack(disk, options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("--target-bytes"));
  EXPECT_FALSE(disk.list("/out").has_value());
}

TEST(Pack, measuring_for_a_mixture_can_be_stopped) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options = options_of(std::nullopt);
  options.target_bytes = uint64_t{1} << 30;
  std::stop_source stop;
  options.on_survey = [&](uint64_t done, uint64_t) {
    if (done == 2) stop.request_stop();
  };
  const auto cut = pack_model(disk, options, {}, stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::kCancelled);
}

TEST(Pack, copies_small_files_and_the_mtp_block) {
  const Files files = packed_files(test::tiny_checkpoint(), options_of());
  EXPECT_EQ(files.at("tokenizer.json"), "{\"tokens\": []}");
  EXPECT_EQ(files.at("config.json"), test::tiny_checkpoint().at("config.json"));
  EXPECT_FALSE(files.contains("README.md"));
  SimStorage disk;
  test::store_all(disk, "/m", files);
  test::store_all(disk, "/source", test::tiny_checkpoint());
  const SafetensorsFile mtp = *SafetensorsFile::open(disk, "/m/mtp.safetensors");
  ASSERT_EQ(mtp.tensors().size(), 1u);
  EXPECT_EQ(mtp.tensors()[0].name, "mtp.fc.weight");
  Checkpoint checkpoint = *Checkpoint::open(disk, "/source");
  std::vector<std::byte> source(mtp.tensors()[0].bytes);
  checkpoint.read(*checkpoint.find("mtp.fc.weight"), 0, source).value();
  EXPECT_EQ(std::memcmp(files.at("mtp.safetensors").data() + mtp.tensors()[0].offset, source.data(),
                        source.size()),
            0);
}

TEST(Pack, tells_progress_to_the_last_byte) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  uint64_t last = 0, total = 0;
  const auto callback = [&](const PackProgress& progress) {
    EXPECT_GE(progress.bytes_done, last);
    last = progress.bytes_done;
    total = progress.bytes_total;
  };
  const PackReport report = *pack_model(disk, options_of(), callback, {});
  EXPECT_EQ(last, total);
  EXPECT_EQ(report.resident_bytes + report.experts_bytes, total);
  EXPECT_EQ(report.resumed_bytes, 0u);
  EXPECT_EQ(report.id, Container::open(disk, "/out/model")->id_text());
}

// Writes one bf16 value over an element of a tensor of the tiny checkpoint.
Files poisoned(const std::string& name, uint64_t element, float value) {
  Files files = test::tiny_checkpoint();
  SimStorage disk;
  test::store_all(disk, "/m", files);
  const SafetensorsFile file = *SafetensorsFile::open(disk, "/m/model.safetensors");
  const uint16_t bits = f32_to_bf16(value);
  std::memcpy(files["model.safetensors"].data() + file.find(name)->offset + 2 * element, &bits, 2);
  return files;
}

TEST(Pack, refuses_weights_that_are_not_numbers_with_tensor_and_index) {
  struct Case {
    const char* tensor;
    uint64_t element;
    float value;
    const char* place;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const Case cases[] = {
      {"lm_head.weight", 64 * 39 + 63, nan, "row 39, column 63"},
      {"model.norm.weight", 5, infinity, "row 0, column 5"},
      {"model.layers.0.linear_attn.A_log", 1, -infinity, "row 0, column 1"},
      {"model.layers.0.linear_attn.A_log", 1, 1000, "row 0, column 1"},
      {"model.layers.0.linear_attn.conv1d.weight", 7, nan, "row 3, column 1"},
      {"model.layers.1.mlp.experts.gate_up_proj", 64 * 300 + 2, nan, "row 300, column 2"},
      {"model.layers.1.mlp.experts.down_proj", 0, -infinity, "row 0, column 0"},
      {"model.layers.1.mlp.experts.down_proj", 3, 3e38f, "row 0, column 3"}};
  for (const Case& c : cases) {
    SimStorage disk;
    test::store_all(disk, "/source", poisoned(c.tensor, c.element, c.value));
    const Result<PackReport> packed = pack(disk, options_of());
    ASSERT_FALSE(packed.has_value()) << c.tensor;
    EXPECT_EQ(packed.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(packed.error().message, HasSubstr(c.tensor));
    EXPECT_THAT(packed.error().message, HasSubstr(c.place));
    EXPECT_FALSE(disk.stat("/out/model").has_value());
  }
}

TEST(Pack, an_existing_target_is_left_alone_without_force) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  pack(disk, options_of()).value();
  const Files before = test::load_all(disk, "/out/model");
  const Result<PackReport> again = pack(disk, options_of(DType::kQ2));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(again.error().message, HasSubstr("--force"));
  EXPECT_EQ(test::load_all(disk, "/out/model"), before);
}

TEST(Pack, with_force_the_old_model_stays_until_the_new_one_is_complete) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  pack(disk, options_of()).value();
  const Files before = test::load_all(disk, "/out/model");
  PackOptions options = options_of(DType::kQ2);
  options.force = true;
  const auto watch = [&](const PackProgress&) {
    EXPECT_EQ(test::load_all(disk, "/out/model"), before);
  };
  pack_model(disk, options, watch, {}).value();
  EXPECT_EQ(test::load_all(disk, "/out/model"),
            packed_files(test::tiny_checkpoint(), options_of(DType::kQ2)));
  EXPECT_EQ(*disk.list("/out"), std::vector<std::string>{"model"});
}

TEST(Pack, force_does_not_delete_what_is_not_a_model) {
  const auto attempt = [](const Files& there) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    test::store_all(disk, "/out/model", there);
    PackOptions options = options_of();
    options.force = true;
    const Result<PackReport> packed = pack(disk, options);
    EXPECT_FALSE(packed.has_value());
    EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(test::load_all(disk, "/out/model"), there);
  };
  attempt({{"letters.txt", "dear"}});
  attempt({{"penstock.json", "{}"}, {"letters.txt", "dear"}});
}

TEST(Pack, the_source_is_never_its_own_target) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options = options_of();
  options.target = "/source";
  options.force = true;
  EXPECT_EQ(pack(disk, options).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(test::load_all(disk, "/source"), test::tiny_checkpoint());
}

TEST(Pack, a_second_packer_on_the_same_target_is_refused) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  bool tried = false;
  const auto second = [&](const PackProgress&) {
    if (std::exchange(tried, true)) return;
    const Result<PackReport> packed = pack(disk, options_of());
    ASSERT_FALSE(packed.has_value());
    EXPECT_EQ(packed.error().code, ErrorCode::kIo);
  };
  pack_model(disk, options_of(), second, {}).value();
  EXPECT_TRUE(tried);
  EXPECT_EQ(test::load_all(disk, "/out/model"),
            packed_files(test::tiny_checkpoint(), options_of()));
}

TEST(Pack, works_on_real_files) {
  std::string folder = testing::TempDir() + "penstock-pack-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  PackOptions options;
  options.source = test::data_path("random/r3-wrapped");
  options.target = folder + "/new/model/";
  options.num_threads = 2;
  const Result<PackReport> report = pack(posix_storage(), options);
  ASSERT_TRUE(report.has_value()) << report.error().message;
  SimStorage disk;
  const Files simulated = test::load_all(disk, packed_folder("random/r3-wrapped", disk));
  EXPECT_EQ(test::load_all(posix_storage(), folder + "/new/model"), simulated);
  EXPECT_EQ(posix_storage().list(folder + "/new")->size(), 1u);
  posix_storage().remove_tree(folder).value();
}

}  // namespace
}  // namespace penstock
