// The functions of Vulkan that we call: a list, and a table of pointers made of it.
//
// Nothing of Vulkan is linked (vulkan_library.h), so each function is asked for by its name: those of
// a system of drivers (an instance) once, those of a device again for each device, which saves the
// loader's own dispatch.
//
// Threads  tables are filled once and then only read
// Source   Vulkan 1.3 specification; headers of libvulkan-dev, at build time alone
#pragma once

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

// clang-format off
#define PENSTOCK_VULKAN_OF_INSTANCE(X)                                                        \
  X(CreateDevice) X(DestroyInstance) X(EnumerateDeviceExtensionProperties)                    \
  X(EnumeratePhysicalDevices) X(GetDeviceProcAddr)                                            \
  X(GetPhysicalDeviceExternalBufferProperties) X(GetPhysicalDeviceFeatures2)                  \
  X(GetPhysicalDeviceMemoryProperties2) X(GetPhysicalDeviceProperties2)                       \
  X(GetPhysicalDeviceQueueFamilyProperties)

#define PENSTOCK_VULKAN_OF_DEVICE(X)                                                          \
  X(AllocateCommandBuffers) X(AllocateMemory) X(BeginCommandBuffer) X(BindBufferMemory)       \
  X(CmdBindPipeline) X(CmdCopyBuffer) X(CmdDispatch) X(CmdFillBuffer)                         \
  X(CmdPipelineBarrier2) X(CmdPushConstants) X(CreateBuffer) X(CreateCommandPool)             \
  X(CreateComputePipelines) X(CreatePipelineLayout) X(CreateSemaphore)                        \
  X(CreateShaderModule) X(DestroyBuffer) X(DestroyCommandPool) X(DestroyDevice)               \
  X(DestroyPipeline) X(DestroyPipelineLayout) X(DestroySemaphore) X(DestroyShaderModule)      \
  X(DeviceWaitIdle) X(EndCommandBuffer) X(FreeMemory) X(GetBufferDeviceAddress)               \
  X(GetBufferMemoryRequirements) X(GetDeviceQueue) X(GetSemaphoreCounterValue) X(MapMemory)   \
  X(QueueSubmit2) X(WaitSemaphores)
// clang-format on

namespace penstock {

#define PENSTOCK_VULKAN_POINTER(name) PFN_vk##name name = nullptr;

struct VulkanInstanceFunctions {
  PENSTOCK_VULKAN_OF_INSTANCE(PENSTOCK_VULKAN_POINTER)
};

struct VulkanDeviceFunctions {
  PENSTOCK_VULKAN_OF_DEVICE(PENSTOCK_VULKAN_POINTER)
};

#undef PENSTOCK_VULKAN_POINTER

}  // namespace penstock
