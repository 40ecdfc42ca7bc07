#include "survey/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "survey/probes.h"
#include "survey/test_folder.h"

namespace penstock {
namespace {

using test::Folder;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

// A small model: 4 layers of 8 experts with 2 chosen.
ModelConfig small_config() {
  ModelConfig config;
  config.model_type = "qwen3_5_moe_text";
  config.vocab_size = 256;
  config.hidden_size = 128;
  config.num_hidden_layers = 4;
  config.layer_types = {LayerType::kLinearAttention, LayerType::kLinearAttention,
                        LayerType::kLinearAttention, LayerType::kFullAttention};
  config.ffn_types.assign(4, FfnType::kExperts);
  config.attn_output_gate = true;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.linear_num_key_heads = 2;
  config.linear_num_value_heads = 4;
  config.linear_key_head_dim = 16;
  config.linear_value_head_dim = 16;
  config.linear_conv_kernel_dim = 4;
  config.num_experts = 8;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 64;
  config.shared_expert_intermediate_size = 64;
  config.max_position_embeddings = 4096;
  return config;
}

ExpertParts parts_of(const ModelConfig& config) {
  return lay_out_experts({.num_layers = config.num_hidden_layers,
                          .num_experts = config.num_experts,
                          .hidden_size = config.hidden_size,
                          .intermediate_size = config.moe_intermediate_size},
                         DType::kQ4)
      .value();
}

DoctorOptions quick_options(const std::string& experts_path) {
  DoctorOptions options;
  options.config = small_config();
  options.part_bytes = align_file(parts_of(options.config).largest_part());
  options.experts_path = experts_path;
  options.threads = 2;
  options.memory_bytes = 8 << 20;
  options.point_s = 0.002;
  options.looks_at_gpus = false;
  options.version = "test";
  return options;
}

std::unique_ptr<StorageFile> sim_file(SimStorage& disk, uint64_t bytes, OpenMode mode) {
  auto file = disk.open("/experts.bin", OpenMode::kCreate).value();
  const std::vector<std::byte> content(bytes);
  EXPECT_TRUE(file->write(0, content).has_value());
  return disk.open("/experts.bin", mode).value();
}

TEST(FlashProbe, keeps_the_depth_in_flight_and_leaves_nothing_behind) {
  SimStorage disk;
  const auto file = sim_file(disk, 1 << 20, OpenMode::kReadDirect);
  FakeFaults faults;
  FakeReader reader({.seed = 3, .depth = 16}, &faults);
  const Result<FlashPoint> point =
      probe_flash(reader, *file, {.read_bytes = 8192, .depth = 7, .seconds = 0.01}, {});
  ASSERT_TRUE(point.has_value()) << point.error().message;
  EXPECT_EQ(faults.most_in_flight(), 7u);
  EXPECT_EQ(reader.in_flight(), 0);
  EXPECT_TRUE(point->is_direct);
  EXPECT_EQ(point->depth, 7);
  EXPECT_GT(point->gbps, 0);
  EXPECT_LE(point->p50_us, point->p99_us);
}

TEST(FlashProbe, names_the_read_that_failed) {
  SimStorage disk;
  const auto file = sim_file(disk, 1 << 20, OpenMode::kReadDirect);
  FakeFaults faults;
  faults.fail_read(5, EIO, Lasting::kForGood);
  FakeReader reader({.seed = 3, .depth = 16}, &faults);
  const Result<FlashPoint> point =
      probe_flash(reader, *file, {.read_bytes = 4096, .depth = 4, .seconds = 5}, {});
  ASSERT_FALSE(point.has_value());
  EXPECT_EQ(point.error().code, ErrorCode::kIo);
  EXPECT_THAT(point.error().message, HasSubstr("/experts.bin"));
  EXPECT_EQ(reader.in_flight(), 0);
}

TEST(FlashProbe, a_burst_is_all_its_reads_and_a_failed_one_is_named) {
  SimStorage disk;
  const auto file = sim_file(disk, 1 << 20, OpenMode::kReadDirect);
  FakeFaults faults;
  FakeReader reader({.seed = 3, .depth = 16}, &faults);
  const Result<BurstPoint> point =
      probe_burst(reader, *file, {.read_bytes = 4096, .reads = 5, .seconds = 0.02}, {});
  ASSERT_TRUE(point.has_value()) << point.error().message;
  EXPECT_EQ(point->reads, 5);
  EXPECT_GT(point->us, 0);
  EXPECT_EQ(faults.most_in_flight(), 5u);
  EXPECT_EQ(faults.reads_submitted() % 5, 0u);
  faults.fail_read(faults.reads_submitted() + 3, EIO, Lasting::kForGood);
  const Result<BurstPoint> failed =
      probe_burst(reader, *file, {.read_bytes = 4096, .reads = 5, .seconds = 5}, {});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_EQ(reader.in_flight(), 0);
  const BurstCase large{.read_bytes = 2 << 20, .reads = 1, .seconds = 0.01};
  EXPECT_EQ(probe_burst(reader, *file, large, {}).error().code, ErrorCode::kInvalidArgument);
}

TEST(FlashProbe, refuses_a_file_shorter_than_one_read_and_stops_when_asked) {
  SimStorage disk;
  const auto file = sim_file(disk, 8192, OpenMode::kReadDirect);
  FakeReader reader({}, nullptr);
  const FlashCase large{.read_bytes = 16384, .depth = 1, .seconds = 0.01};
  EXPECT_EQ(probe_flash(reader, *file, large, {}).error().code, ErrorCode::kInvalidArgument);
  std::stop_source stop;
  stop.request_stop();
  const FlashCase endless{.read_bytes = 4096, .depth = 2, .seconds = 1e6};
  EXPECT_EQ(probe_flash(reader, *file, endless, stop.get_token()).error().code,
            ErrorCode::kCancelled);
  EXPECT_EQ(reader.in_flight(), 0);
}

TEST(Doctor, measures_flash_memory_and_products_of_a_model) {
  const Folder folder;
  const DoctorOptions options = quick_options(folder.path() + "/experts.bin");
  folder.write("experts.bin", std::string(parts_of(options.config).file_bytes(), 'x'));
  std::vector<std::string> steps;
  int last_total = 0;
  const Result<DoctorReport> report = examine(posix_storage(), options,
                                              [&](const std::string& what, int done, int total) {
                                                EXPECT_EQ(done, static_cast<int>(steps.size()));
                                                steps.push_back(what);
                                                last_total = total;
                                              },
                                              {});
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(static_cast<int>(steps.size()), last_total);
  const MachineProfile& profile = report->profile;
  EXPECT_FALSE(profile.flash.empty());
  EXPECT_THAT(profile.bursts, SizeIs(4));
  for (const BurstPoint& burst : profile.bursts) EXPECT_GT(burst.us, 0);
  EXPECT_THAT(profile.memory, SizeIs(2));
  EXPECT_GT(profile.pages.small_gbps, 0);
  EXPECT_GT(profile.pages.largest_gbps, 0);
  EXPECT_THAT(profile.kernels, SizeIs(2));
  EXPECT_EQ(profile.kernels[0].dtype, "q4");
  EXPECT_GT(profile.op_us, 0);
  EXPECT_FALSE(profile.disk.filesystem.empty());
  // What it writes is what the planner reads.
  const Result<MachineProfile> again = parse_profile(to_json(profile), "report");
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_TRUE(rates_of(*again, options.part_bytes, DType::kQ4).has_value());
  EXPECT_TRUE(to_json(*report).contains("findings"));
}

TEST(Doctor, leaves_flash_out_without_a_file_and_ends_when_stopped) {
  DoctorOptions options = quick_options("");
  const Result<DoctorReport> report = examine(posix_storage(), options, {}, {});
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_TRUE(report->profile.flash.empty());
  EXPECT_TRUE(report->profile.disk.device.empty());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(examine(posix_storage(), options, {}, stop.get_token()).error().code,
            ErrorCode::kCancelled);
}

// Recorded machines.
struct Recorded {
  Folder folder;
  MachineIdentity machine{"Example", 8, uint64_t{8} << 30, "Linux"};

  Recorded() {
    folder.write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
    folder.write("proc/self/cgroup", "0::/box\n");
  }
  std::vector<Finding> findings() const { return settings_findings(machine, folder.path()); }
};

TEST(Findings, a_machine_without_faults_has_none) {
  const Recorded recorded;
  recorded.folder.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  recorded.folder.write("sys/fs/cgroup/box/cpu.max", "max 100000\n");
  EXPECT_THAT(recorded.findings(), SizeIs(0));
}

TEST(Findings, huge_pages_off_swap_and_a_quota_are_told_with_advice) {
  const Recorded recorded;
  recorded.folder.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  recorded.folder.write("proc/meminfo",
                        "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 2097152 kB\n");
  recorded.folder.write("sys/fs/cgroup/cpu.max", "250000 100000\n");
  recorded.folder.write("sys/fs/cgroup/box/cpu.max", "max 100000\n");
  const std::vector<Finding> findings = recorded.findings();
  ASSERT_THAT(findings, SizeIs(3));
  EXPECT_TRUE(findings[0].is_warning);
  EXPECT_THAT(findings[0].text, HasSubstr("huge pages"));
  EXPECT_THAT(findings[1].text, HasSubstr("swap is on (2.0 GiB)"));
  EXPECT_THAT(findings[2].text,
              HasSubstr("cpu.max of /sys/fs/cgroup grants the time of 2.5 of 8 processors"));
  EXPECT_THAT(findings[2].advice, StartsWith("--threads 2,"));
}

TEST(Findings, quota_of_the_older_kind_of_cgroup) {
  const Recorded recorded;
  recorded.folder.write("proc/self/cgroup", "4:cpu,cpuacct:/docker/a\n");
  recorded.folder.write("sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "400000\n");
  recorded.folder.write("sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us", "100000\n");
  recorded.folder.write("sys/fs/cgroup/cpu/docker/cpu.cfs_quota_us", "-1\n");
  recorded.folder.write("sys/fs/cgroup/cpu/docker/cpu.cfs_period_us", "100000\n");
  ASSERT_THAT(recorded.findings(), SizeIs(1));
  EXPECT_THAT(recorded.findings()[0].advice, StartsWith("--threads 4,"));
}

TEST(Findings, disks_that_refuse_direct_reads_or_rotate) {
  const Folder root;
  root.write("sys/dev/block/8:1/queue/read_ahead_kb", "4096\n");
  root.write("sys/dev/block/8:1/queue/rotational", "1\n");
  DiskFacts facts;
  facts.disk = {"8:1", "/dev/sda1", "tmpfs"};
  facts.path = "/m/experts.bin";
  facts.file_bytes = uint64_t{1} << 40;
  EXPECT_THAT(disk_findings(facts, root.path()), SizeIs(1)) << "read-ahead is no matter for them";
  facts.reads_direct = false;
  facts.reader_note = "reading with threads: refused";
  const std::vector<Finding> findings = disk_findings(facts, root.path());
  ASSERT_THAT(findings, SizeIs(4));
  EXPECT_THAT(findings[0].text, HasSubstr("(tmpfs) refuses direct reads of /m/experts.bin"));
  EXPECT_THAT(findings[1].text, HasSubstr("4096 KiB"));
  EXPECT_THAT(findings[2].text, HasSubstr("refused"));
  EXPECT_THAT(findings[3].text, HasSubstr("rotating"));
  facts.small_read_us = 130;
  EXPECT_THAT(disk_findings(facts, root.path()), SizeIs(3)) << "no disk seeks in 130 us";
  facts.file_bytes = 1 << 20;
  EXPECT_THAT(disk_findings(facts, root.path()).back().text, HasSubstr("has only"));
}

TEST(Findings, slow_disks_and_slow_products_are_named) {
  MachineProfile profile;
  profile.flash = {{1 << 20, 16, true, 0.4, 1, 1}};
  profile.sustained_gbps = 0.2;
  profile.sustained_s = 600;
  profile.memory = {{8, 50, 40}};
  profile.kernels = {{"q4", 45, 900}, {"q8", 12, 900}};
  const std::vector<Finding> findings = rate_findings(profile);
  ASSERT_THAT(findings, SizeIs(3));
  EXPECT_THAT(findings[0].text, HasSubstr("0.40 GB/s"));
  EXPECT_THAT(findings[1].text, HasSubstr("from 0.40 to 0.20"));
  EXPECT_THAT(findings[2].text, HasSubstr("q8"));
  profile.pages = {52, 50, true};
  EXPECT_THAT(rate_findings(profile), SizeIs(3)) << "within what rates vary by";
  profile.pages = {60, 50, false};
  EXPECT_THAT(rate_findings(profile), SizeIs(3)) << "not in every turn";
  profile.pages = {60, 50, true};
  EXPECT_THAT(rate_findings(profile)[2].text, HasSubstr("50.0 GB/s from the largest pages"));
}

}  // namespace
}  // namespace penstock
