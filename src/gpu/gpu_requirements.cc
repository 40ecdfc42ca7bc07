#include "gpu/gpu_requirements.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace penstock {
namespace {

constexpr uint32_t kGroupThreads = 256;
constexpr uint32_t kSharedBytes = 16384;

GpuKind kind_of(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return GpuKind::kDiscrete;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return GpuKind::kIntegrated;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return GpuKind::kVirtual;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return GpuKind::kSoftware;
    default: return GpuKind::kOther;
  }
}

std::string refusal_of(const VulkanInstanceFunctions& functions, VkPhysicalDevice device,
                       const VkPhysicalDeviceProperties& properties,
                       const VkPhysicalDeviceVulkan12Properties& of_1_2) {
  if (properties.apiVersion < VK_API_VERSION_1_3) return "its driver has no Vulkan 1.3";
  GpuFeatures has;
  functions.GetPhysicalDeviceFeatures2(device, &has.core);
  if (!has.of_1_3.shaderIntegerDotProduct) return "it has no packed integer dot products";
  if (!has.of_1_2.bufferDeviceAddress) return "its buffers have no addresses";
  if (!has.of_1_2.timelineSemaphore || !has.of_1_3.synchronization2) return "it has no timelines";
  if (!of_1_2.shaderRoundingModeRTEFloat32) return "it does not promise to round to nearest";
  if (!of_1_2.shaderSignedZeroInfNanPreserveFloat32) {
    return "it does not promise to keep signed zeros, infinities and what is not a number";
  }
  if (properties.limits.maxComputeWorkGroupInvocations < kGroupThreads ||
      properties.limits.maxComputeSharedMemorySize < kSharedBytes) {
    return fmt::format("its groups have fewer than {} threads or {} bytes", kGroupThreads,
                       kSharedBytes);
  }
  return {};
}

uint64_t import_alignment(const VulkanInstanceFunctions& functions, VkPhysicalDevice device) {
  if (!has_extension(functions, device, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME)) return 0;
  VkPhysicalDeviceExternalBufferInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO;
  info.usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
  info.handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  VkExternalBufferProperties buffer = {};
  buffer.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES;
  functions.GetPhysicalDeviceExternalBufferProperties(device, &info, &buffer);
  const VkExternalMemoryFeatureFlags features =
      buffer.externalMemoryProperties.externalMemoryFeatures;
  if ((features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT) == 0) return 0;
  VkPhysicalDeviceExternalMemoryHostPropertiesEXT of_host = {};
  of_host.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT;
  VkPhysicalDeviceProperties2 all = {};
  all.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  all.pNext = &of_host;
  functions.GetPhysicalDeviceProperties2(device, &all);
  return of_host.minImportedHostPointerAlignment;
}

}  // namespace

GpuFeatures::GpuFeatures() {
  core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  of_1_2.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  of_1_3.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
  core.pNext = &of_1_2;
  of_1_2.pNext = &of_1_3;
}

void GpuFeatures::take_needed() {
  of_1_2.bufferDeviceAddress = VK_TRUE;
  of_1_2.timelineSemaphore = VK_TRUE;
  of_1_3.synchronization2 = VK_TRUE;
  of_1_3.maintenance4 = VK_TRUE;  // sizes of groups as SPIR-V 1.6 says them; Vulkan 1.3 promises it
  of_1_3.shaderIntegerDotProduct = VK_TRUE;
}

GpuFacts gpu_facts(const VulkanInstanceFunctions& functions, VkPhysicalDevice device) {
  VkPhysicalDeviceVulkan12Properties of_1_2 = {};
  of_1_2.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
  VkPhysicalDeviceProperties2 all = {};
  all.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  all.pNext = &of_1_2;
  functions.GetPhysicalDeviceProperties2(device, &all);
  const VkPhysicalDeviceProperties& properties = all.properties;

  const bool tells_budget = has_extension(functions, device, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 memory = {};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  if (tells_budget) memory.pNext = &budget;
  functions.GetPhysicalDeviceMemoryProperties2(device, &memory);

  GpuFacts facts;
  facts.name = properties.deviceName;
  facts.kind = kind_of(properties.deviceType);
  facts.driver = fmt::format("{} {}", of_1_2.driverName, of_1_2.driverInfo);
  facts.api = fmt::format("{}.{}.{}", VK_API_VERSION_MAJOR(properties.apiVersion),
                          VK_API_VERSION_MINOR(properties.apiVersion),
                          VK_API_VERSION_PATCH(properties.apiVersion));
  facts.is_unified = facts.kind == GpuKind::kIntegrated || facts.kind == GpuKind::kSoftware;
  for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = memory.memoryProperties.memoryHeaps[i];
    if ((heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) == 0) continue;
    if (heap.size <= facts.memory_bytes) continue;
    facts.memory_bytes = heap.size;
    if (!tells_budget) continue;
    const uint64_t used = budget.heapUsage[i];
    facts.budget_bytes = budget.heapBudget[i] > used ? budget.heapBudget[i] - used : 0;
  }
  facts.import_alignment = import_alignment(functions, device);
  facts.refusal = refusal_of(functions, device, properties, of_1_2);
  return facts;
}

bool has_extension(const VulkanInstanceFunctions& functions, VkPhysicalDevice device,
                   const char* name) {
  uint32_t count = 0;
  if (functions.EnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) !=
      VK_SUCCESS) {
    return false;
  }
  std::vector<VkExtensionProperties> extensions(count);
  if (functions.EnumerateDeviceExtensionProperties(device, nullptr, &count, extensions.data()) <
      VK_SUCCESS) {
    return false;
  }
  return std::any_of(extensions.begin(), extensions.end(), [&](const auto& extension) {
    return std::string_view(extension.extensionName) == name;
  });
}

}  // namespace penstock
