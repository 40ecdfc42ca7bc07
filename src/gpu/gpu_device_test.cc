// Devices, memory, queues and the bit probe, on the software device.
#include "gpu/gpu_device.h"

#include <numeric>

#include "gpu/bit_probe.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::GpuTest;
using testing::HasSubstr;

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  return bytes;
}

TEST_F(GpuTest, a_software_device_is_named_as_such_and_never_chosen) {
  const GpuFacts& facts = device_->facts();
  EXPECT_EQ(facts.kind, GpuKind::kSoftware);
  EXPECT_TRUE(facts.is_usable()) << facts.refusal;
  EXPECT_TRUE(facts.is_unified);
  EXPECT_GT(facts.memory_bytes, 0u);
  EXPECT_FALSE(facts.driver.empty());
  const Result<int> chosen = system_->choose();
  if (chosen) {
    EXPECT_NE(system_->devices()[static_cast<size_t>(*chosen)].kind, GpuKind::kSoftware);
  } else {
    EXPECT_EQ(chosen.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(chosen.error().message, HasSubstr("llvmpipe"));
  }
}

TEST_F(GpuTest, devices_are_found_by_part_of_a_name_or_a_number) {
  EXPECT_EQ(*system_->find("LLVMpipe"), index_);
  EXPECT_EQ(*system_->find(std::to_string(index_)), index_);
  for (const char* name : {"nobody's", "", "97", "-1"}) {
    const Result<int> found = system_->find(name);
    ASSERT_FALSE(found.has_value()) << name;
    EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(found.error().message, HasSubstr("llvmpipe")) << "says who is there";
  }
}

TEST_F(GpuTest, bytes_come_back_as_they_went_also_in_pieces) {
  const std::vector<std::byte> bytes = some_bytes((20 << 20) + 12);  // more than one staging block
  const GpuBuffer buffer = own(bytes.size() + 8);
  ASSERT_TRUE(device_->write(buffer, 8, bytes).has_value());
  std::vector<std::byte> back(bytes.size());
  ASSERT_TRUE(device_->read(buffer, 8, back).has_value());
  EXPECT_TRUE(back == bytes);
}

TEST_F(GpuTest, lists_run_in_order_and_more_than_there_are_wait) {
  const std::vector<std::byte> bytes = some_bytes(64);
  const GpuBuffer from = shared(64), to = shared(64 * 40);
  ASSERT_TRUE(device_->write(from, 0, bytes).has_value());
  GpuQueue& queue = device_->compute();
  Fence last;
  for (uint64_t i = 0; i < 40; ++i) {  // each copies what the one before it wrote
    GpuCommands commands = queue.begin().value();
    commands.copy(i == 0 ? from : to, i == 0 ? 0 : 64 * (i - 1), to, 64 * i, 64);
    const Fence fence = queue.submit(commands).value();
    EXPECT_EQ(fence.number, last.number + 1);
    last = fence;
  }
  ASSERT_TRUE(queue.wait(last).has_value());
  EXPECT_TRUE(*queue.has_passed(last));
  EXPECT_FALSE(*queue.has_passed({last.number + 1}));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), to.host_bytes().end() - 64));
}

TEST_F(GpuTest, memory_is_counted_and_given_back) {
  EXPECT_EQ(device_->allocated_bytes(), 0u);
  {
    const GpuBuffer a = own(1000), b = shared(24);
    GpuBuffer moved = own(8);
    moved = GpuBuffer();
    EXPECT_EQ(device_->allocated_bytes(), 1024u);
    EXPECT_EQ(a.address() % 64, 0u);
    EXPECT_FALSE(a.is_host_visible());
  }
  EXPECT_EQ(device_->allocated_bytes(), 0u);
}

TEST_F(GpuTest, no_memory_is_an_error_that_says_for_what) {
  device_ = make_device({.allocations_before_failure = 2});
  const GpuBuffer a = own(64), b = own(64);
  const Result<GpuBuffer> refused = device_->allocate(1 << 20, GpuMemoryKind::kDevice, "slots");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(refused.error().message, HasSubstr("no memory for slots (1.00 MiB)"));
  EXPECT_THAT(refused.error().message, HasSubstr("llvmpipe"));
  EXPECT_EQ(device_->allocated_bytes(), 128u);
  EXPECT_TRUE(device_->allocate(64, GpuMemoryKind::kDevice, "slots").has_value());
}

// Loss at every submit of a small piece of work: an error each time, and nothing hangs or crashes.
TEST_F(GpuTest, a_lost_device_fails_every_call_from_then_on) {
  for (int64_t before = 0; before < 4; ++before) {
    device_ = make_device({.submits_before_loss = before});
    const GpuBuffer buffer = own(64);
    const std::vector<std::byte> bytes = some_bytes(64);
    std::vector<std::byte> back(64);
    for (int64_t i = 0; i < before; ++i) {
      ASSERT_TRUE(device_->write(buffer, 0, bytes).has_value());
    }
    for (int again = 0; again < 2; ++again) {
      const Result<void> written = device_->write(buffer, 0, bytes);
      ASSERT_FALSE(written.has_value());
      EXPECT_EQ(written.error().code, ErrorCode::kIo);
      EXPECT_THAT(written.error().message, HasSubstr("was lost"));
    }
    EXPECT_FALSE(device_->read(buffer, 0, back).has_value());
    EXPECT_FALSE(device_->allocate(64, GpuMemoryKind::kShared, "more").has_value());
    EXPECT_FALSE(probe_bits(*device_, 64).has_value());
  }
}

// As other devices are waited for.
TEST_F(GpuTest, looking_for_the_end_tells_before_and_after) {
  device_ = make_device({.looks_at_software = true});
  std::vector<bool> told;
  device_->compute().set_while_looking([&](bool is_looking) { told.push_back(is_looking); });
  const GpuBuffer buffer = own(1 << 20);
  const std::vector<std::byte> bytes = some_bytes(1 << 20);
  std::vector<std::byte> back(bytes.size());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(device_->write(buffer, 0, bytes).has_value());
    std::ranges::fill(back, std::byte{0});
    ASSERT_TRUE(device_->read(buffer, 0, back).has_value());
    ASSERT_EQ(back, bytes);
  }
  ASSERT_GE(told.size(), 2u);
  for (size_t i = 0; i < told.size(); ++i) EXPECT_EQ(told[i], i % 2 == 0);
  ASSERT_TRUE(probe_bits(*device_, 64).value().is_right());
}

TEST_F(GpuTest, looking_for_the_end_sees_losses_and_silence) {
  std::vector<std::byte> back(64);
  for (const int64_t before : {int64_t{0}, int64_t{3}}) {
    for (const bool is_silent : {false, true}) {
      device_ = make_device({.submits_before_loss = is_silent ? -1 : before,
                             .waits_before_silence = is_silent ? before : -1,
                             .looks_at_software = true});
      const GpuBuffer other = own(64);
      bool failed = false;
      for (int64_t i = 0; i <= before && !failed; ++i) {
        failed = !device_->write(other, 0, some_bytes(64)).has_value();
      }
      EXPECT_TRUE(failed);
      EXPECT_FALSE(device_->read(other, 0, back).has_value());
    }
  }
}

TEST_F(GpuTest, computes_every_primitive_as_the_cpu_does) {
  const Result<BitProbe> probe = probe_bits(*device_, kProbeInputs);
  ASSERT_TRUE(probe.has_value()) << probe.error().message;
  EXPECT_TRUE(probe->is_right()) << probe->refusal();
  EXPECT_EQ(probe->rows.size(), 16u + 7 * common_gpu_codings().size());
  EXPECT_GE(probe->inputs(), 16 * kProbeInputs);
}

TEST(BitProbe, one_wrong_result_refuses_the_device_by_the_name_of_what_is_wrong) {
  BitProbe probe;
  probe.rows = {{"sum", 64, 0, ""}, {"product q4", 50, 0, ""}};
  EXPECT_TRUE(probe.is_right());
  EXPECT_EQ(probe.refusal(), "");
  EXPECT_EQ(probe.inputs(), 114);
  probe.rows[1] = {"product q4", 50, 1, "row 3 of 0: 00000000 instead of 00000001"};
  EXPECT_FALSE(probe.is_right());
  EXPECT_THAT(probe.refusal(), HasSubstr("1 of 50 results of \"product q4\""));
}

}  // namespace
}  // namespace penstock
