// The software device that tests run on (Mesa's lavapipe), with the validation layers listening.
#pragma once

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "gpu/gpu_device.h"
#include "gpu/gpu_system.h"

namespace penstock::test {

// What scripts/install test installs; without it the tests fail, since they would test nothing.
inline constexpr const char* kSoftwareGpu = "llvmpipe";

// Widths that are no power of two.
inline constexpr int64_t kHidden = 320, kWidth = 192;

// Drivers keep what they allocated for the whole process in variables of their own; unloaded before the
// process ends, as the loader does, they make that look like leaks to the address sanitizer. So the
// software device's stays.
inline const bool kDriverStays = ::dlopen("libvulkan_lvp.so", RTLD_NOW | RTLD_NODELETE) != nullptr;

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = GpuSystem::open({.validate = true});
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    system_ = std::move(*opened);
    ASSERT_TRUE(system_->is_validated()) << "the validation layers are not installed";
    const Result<int> index = system_->find(kSoftwareGpu);
    ASSERT_TRUE(index.has_value()) << index.error().message;
    index_ = *index;
    device_ = make_device({});
  }
  void TearDown() override {
    device_.reset();
    if (system_ == nullptr) return;
    EXPECT_THAT(system_->complaints(), testing::IsEmpty());
  }
  std::unique_ptr<GpuDevice> make_device(const GpuFaults& faults) {
    auto device = GpuDevice::create(*system_, index_, faults);
    EXPECT_TRUE(device.has_value()) << device.error().message;
    return std::move(*device);
  }
  GpuBuffer shared(uint64_t bytes) {
    return device_->allocate(bytes, GpuMemoryKind::kShared, "a test").value();
  }
  GpuBuffer own(uint64_t bytes) {
    return device_->allocate(bytes, GpuMemoryKind::kDevice, "a test").value();
  }

  std::unique_ptr<GpuSystem> system_;
  int index_ = 0;
  std::unique_ptr<GpuDevice> device_;
};

}  // namespace penstock::test
