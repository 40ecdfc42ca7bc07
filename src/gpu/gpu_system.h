// The GPUs of this machine: who is there, and which one a name means.
//
//   auto gpus = PENSTOCK_TRY(GpuSystem::open());
//   for (const GpuFacts& gpu : gpus->devices()) ...
//   const GpuFacts& gpu = PENSTOCK_TRY(gpus->find("rtx"));
//   auto device = PENSTOCK_TRY(GpuDevice::create(*gpus, gpu.index));   // gpu/gpu_device.h
//
// Threads  one; it outlives the devices made from it
// Memory   what drivers take, some ten MiB
// Errors   open(): kNotFound (no loader), kUnsupported (no driver, or none of Vulkan 1.3)
//          find(), choose(): kNotFound, with the names that are there
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gpu/gpu_facts.h"
#include "gpu/vulkan_functions.h"

namespace penstock {

struct GpuSystemOptions {
  bool validate = false;  // with the validation layers, where they are installed; for tests
};

class GpuSystem {
 public:
  static Result<std::unique_ptr<GpuSystem>> open(const GpuSystemOptions& options = {});
  ~GpuSystem();
  GpuSystem(const GpuSystem&) = delete;
  GpuSystem& operator=(const GpuSystem&) = delete;

  const std::vector<GpuFacts>& devices() const { return devices_; }

  // By a part of the name, in any case of letters, or by its number.
  Result<int> find(std::string_view name) const;

  // Without a name: a discrete one before an integrated one, the larger memory first; never a
  // software device.
  Result<int> choose() const;

  // What the validation layers have said so far. Empty unless asked for and installed.
  bool is_validated() const { return messenger_ != VK_NULL_HANDLE; }
  const std::vector<std::string>& complaints() const { return complaints_; }

  const VulkanInstanceFunctions& functions() const { return functions_; }
  VkPhysicalDevice physical(int index) const { return physical_[static_cast<size_t>(index)]; }

  // One of its devices does not answer: its drivers stay until the process ends.
  void abandon() { is_abandoned_ = true; }

 private:
  GpuSystem() = default;
  Result<void> create_instance(void* loader, const GpuSystemOptions& options);
  Result<void> list_devices();
  void listen();

  PFN_vkGetInstanceProcAddr get_function_ = nullptr;
  VulkanInstanceFunctions functions_;
  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  bool may_listen_ = false;
  bool is_abandoned_ = false;
  std::vector<VkPhysicalDevice> physical_;
  std::vector<GpuFacts> devices_;
  std::vector<std::string> complaints_;
};

}  // namespace penstock
