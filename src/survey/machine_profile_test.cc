#include "survey/machine_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "survey/test_folder.h"

namespace penstock {
namespace {

using test::Folder;
using testing::HasSubstr;

MachineProfile example() {
  MachineProfile profile;
  profile.date = "2026-11-22T13:20:00Z";
  profile.version = "0.1.0";
  profile.machine = {"Example 9000", 16, uint64_t{64} << 30, "Linux 6.1.0"};
  profile.disk = {"259:1", "/dev/nvme0n1p2", "ext4"};
  profile.reader = "io_uring, depth 64";
  profile.compute = "AVX3, 16 threads";
  profile.flash = {{1 << 20, 1, true, 1.5, 700, 900},
                   {1 << 20, 16, true, 6.0, 2800, 4000},
                   {1 << 20, 64, true, 6.2, 9000, 9900},
                   {1 << 16, 64, true, 3.0, 900, 1000},
                   {1 << 20, 16, false, 9.0, 2000, 3000}};
  // 150 us and 5 GB/s.
  profile.bursts = {{1 << 20, 2, 150 + 2 * (1 << 20) / 5e3},
                    {1 << 20, 16, 150 + 16 * (1 << 20) / 5e3}};
  profile.memory = {{1, 14.0, 11.0}, {8, 60.0, 45.0}, {16, 58.0, 44.0}};
  profile.pages = {54.5, 60.5, true};
  profile.kernels = {{"q8", 55, 900, 70}, {"q4", 48, 1000, 80}};
  profile.op_us = 4;
  profile.gpus = {{.name = "Example RTX",
                   .memory_bytes = uint64_t{24} << 30,
                   .read_gbps = 900,
                   .link_gbps = 25,
                   .round_trip_us = 30,
                   .dispatch_us = 4,
                   .experts_gbps = 600,
                   .origin = "measured here"}};
  profile.knobs = {{"experts_ahead", 5}, {"spins", 0}};
  return profile;
}

TEST(MachineProfile, survives_a_save_and_a_load) {
  const Folder folder;
  const std::string path = folder / "state/penstock/profile.json";
  ASSERT_TRUE(save_profile(posix_storage(), path, example()).has_value());
  const Result<MachineProfile> loaded = load_profile(posix_storage(), path);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(to_json(*loaded), to_json(example()));
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST(MachineProfile, a_missing_file_is_not_found) {
  const Result<MachineProfile> loaded = load_profile(posix_storage(), Folder() / "none.json");
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
}

// Doctor's report lists devices that were not measured, and profiles of before have no such list.
TEST(MachineProfile, takes_the_gpus_that_were_measured) {
  Json json = to_json(example());
  json["gpus"].push_back(Json{{"name", "llvmpipe"}, {"memory_bytes", 1}, {"unified", true}});
  const MachineProfile both = parse_profile(json, "p").value();
  ASSERT_EQ(both.gpus.size(), 1u);
  EXPECT_EQ(both.gpus[0].name, "Example RTX");
  EXPECT_EQ(both.gpus[0].experts_gbps, 600);
  json.erase("gpus");
  EXPECT_TRUE(parse_profile(json, "p").value().gpus.empty());
  for (const char* key : {"name", "memory_bytes", "unified", "to_device_gbps", "dispatch_us"}) {
    Json bad = to_json(example());
    bad["gpus"][0].erase(key);
    const Result<MachineProfile> refused = parse_profile(bad, "p");
    ASSERT_FALSE(refused.has_value()) << key;
    EXPECT_THAT(refused.error().message, HasSubstr("gpus[0]"));
    EXPECT_THAT(refused.error().message, HasSubstr(key));
  }
}

struct Damage {
  const char* name;
  const char* pointer;  // JSON pointer of what is changed
  Json value;
  ErrorCode code;
  const char* said;
};

class Damaged : public ::testing::TestWithParam<Damage> {};
INSTANTIATE_TEST_SUITE_P(
    Profiles, Damaged,
    ::testing::Values(
        Damage{"version", "/profile_version", 1, ErrorCode::kUnsupported, "profile_version is 1"},
        Damage{"knob_kind", "/knobs/spins", "few", ErrorCode::kCorrupt, "spins"},
        Damage{"knobs", "/knobs", 3, ErrorCode::kCorrupt, "knobs is not an object"},
        Damage{"burst", "/bursts/1/us", 0, ErrorCode::kCorrupt, "bursts[1]: us is 0"},
        Damage{"rate_zero", "/flash/1/gbps", 0, ErrorCode::kCorrupt, "flash[1]: gbps is 0"},
        Damage{"rate_negative", "/op_us", -1, ErrorCode::kCorrupt, "op_us is -1"},
        Damage{"rate_huge", "/kernels/0/token_gbps", 1e9, ErrorCode::kCorrupt, "token_gbps"},
        Damage{"type", "/memory/0/threads", "two", ErrorCode::kCorrupt, "threads"},
        Damage{"range", "/machine/processors", 0, ErrorCode::kCorrupt, "processors"},
        Damage{"list", "/memory", 7, ErrorCode::kCorrupt, "memory is not a list"},
        Damage{"pages", "/pages/small_gbps", -1, ErrorCode::kCorrupt, "pages: small_gbps"},
        Damage{"object", "/disk", "sda", ErrorCode::kCorrupt, "disk is not an object"},
        Damage{"absent", "/date", nullptr, ErrorCode::kNotFound, "date"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(Damaged, is_refused_with_the_key) {
  Json json = to_json(example());
  json[Json::json_pointer(GetParam().pointer)] = GetParam().value;
  const Result<MachineProfile> parsed = parse_profile(json, "profile.json");
  ASSERT_FALSE(parsed.has_value());
  EXPECT_EQ(parsed.error().code, GetParam().code) << parsed.error().message;
  EXPECT_THAT(parsed.error().message, HasSubstr("profile.json"));
  EXPECT_THAT(parsed.error().message, HasSubstr(GetParam().said));
}

TEST(MachineProfile, gives_the_rates_of_reads_like_the_engines) {
  const MachineProfile profile = example();
  const FlashPoint* large = flash_near(profile, 1'769'472);
  ASSERT_NE(large, nullptr);
  EXPECT_TRUE(large->is_direct) << "the faster buffered point came from the page cache";
  EXPECT_EQ(large->depth, 64);
  EXPECT_EQ(flash_near(profile, 70'000)->read_bytes, 1u << 16);
  const Result<MachineRates> rates = rates_of(profile, 1'769'472, DType::kQ4);
  ASSERT_TRUE(rates.has_value()) << rates.error().message;
  EXPECT_EQ(rates->flash_gbps, 6.2);
  EXPECT_EQ(rates->memory_gbps, 60);
  EXPECT_EQ(rates->weights_gbps, 48);
  EXPECT_EQ(rates->prefill_gflops, 1000);
  EXPECT_EQ(rates->layer_us, 13 * 4);
  EXPECT_EQ(rates->pause_us, 80);
  EXPECT_NEAR(rates->first_read_us, 150, 1e-6);
}

TEST(MachineProfile, without_bursts_of_two_sizes_a_single_read_tells_the_latency) {
  MachineProfile profile = example();
  profile.bursts.resize(1);
  const Result<MachineRates> rates = rates_of(profile, 1'769'472, DType::kQ4);
  ASSERT_TRUE(rates.has_value()) << rates.error().message;
  EXPECT_NEAR(rates->first_read_us, 700 - (1 << 20) / 6.2e3, 1e-9);
}

TEST(MachineProfile, a_sustained_rate_goes_before_a_short_one) {
  MachineProfile profile = example();
  profile.sustained_gbps = 4.4;
  EXPECT_EQ(rates_of(profile, 1 << 20, DType::kQ4)->flash_gbps, 4.4);
}

TEST(MachineProfile, says_what_it_lacks) {
  MachineProfile profile = example();
  profile.flash.clear();
  const Result<MachineRates> rates = rates_of(profile, 1 << 20, DType::kQ4);
  ASSERT_FALSE(rates.has_value());
  EXPECT_THAT(rates.error().message, HasSubstr("rate of the disk"));
}

TEST(Machine, differs_by_processor_number_of_them_and_memory) {
  const MachineIdentity here = example().machine;
  EXPECT_TRUE(differences(here, here).empty());
  MachineIdentity rebooted = here;
  rebooted.memory_bytes -= 100 << 20;
  rebooted.kernel = "Linux 6.2.0";
  EXPECT_TRUE(differences(rebooted, here).empty());
  const MachineIdentity other{"Another 1", 8, uint64_t{16} << 30, "Linux 6.1.0"};
  EXPECT_EQ(differences(other, here).size(), 3u);
}

TEST(Machine, is_read_from_recorded_files) {
  const Folder root;
  const auto write = [&](const std::string& name, const char* text) {
    const std::filesystem::path path = root / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  };
  write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Example 9000\nflags : a b\n");
  write("proc/meminfo", "MemFree: 12 kB\nMemTotal:       65536 kB\n");
  write("proc/sys/kernel/osrelease", "6.1.0-9\n");
  const MachineIdentity machine = this_machine(root / "");
  EXPECT_EQ(machine.cpu_model, "Example 9000");
  EXPECT_EQ(machine.memory_bytes, uint64_t{64} << 20);
  EXPECT_EQ(machine.kernel, "Linux 6.1.0-9");
  EXPECT_GE(machine.processors, 1);
}

TEST(Machine, knows_the_file_system_under_a_path) {
  const Result<DiskIdentity> disk = disk_under(posix_storage(), "/proc");
  ASSERT_TRUE(disk.has_value()) << disk.error().message;
  EXPECT_EQ(disk->filesystem, "proc");
  EXPECT_EQ(disk_under(posix_storage(), "/no/such/place").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace penstock
