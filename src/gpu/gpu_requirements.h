// What a device must have to be used: Vulkan 1.3, and of what that leaves optional a few things.
//
//   packed integer dots         products (shaders/product.comp)
//   rounding to nearest, signed zeros and infinities kept, for f32: the same bits as the CPU
//   buffer addresses, timelines, the second form of synchronisation
//   groups of 256 threads
//
// Whether it also computes right is another question (gpu/bit_probe.h).
//
// Threads  plain functions
#pragma once

#include "gpu/gpu_facts.h"
#include "gpu/vulkan_functions.h"

namespace penstock {

// The features that a device is made with.
struct GpuFeatures {
  VkPhysicalDeviceFeatures2 core = {};
  VkPhysicalDeviceVulkan12Features of_1_2 = {};
  VkPhysicalDeviceVulkan13Features of_1_3 = {};

  GpuFeatures();  // none, chained
  GpuFeatures(const GpuFeatures&) = delete;
  GpuFeatures& operator=(const GpuFeatures&) = delete;
  void take_needed();
};

GpuFacts gpu_facts(const VulkanInstanceFunctions& functions, VkPhysicalDevice device);

bool has_extension(const VulkanInstanceFunctions& functions, VkPhysicalDevice device,
                   const char* name);

}  // namespace penstock
