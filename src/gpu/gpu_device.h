// A GPU at work: its memory, its queues, its kernels.
//
//   auto device = PENSTOCK_TRY(GpuDevice::create(gpus, index));
//   GpuBuffer buffer = PENSTOCK_TRY(device->allocate(bytes, GpuMemoryKind::kDevice, "slots"));
//   const GpuKernel kernel = PENSTOCK_TRY(device->kernel(Shader::kRead, {}));
//   device->compute() ...                                              // gpu/gpu_queue.h
//
// Invariants
//   (1) A device that was lost, or did not answer in time, is never asked again: every call fails.
//   (2) What a device that does not answer may still write to is never given back.
//
// Threads  one, import() any; the system it was made from outlives it, and it outlives its buffers
// Memory   counts what it has given out (allocated_bytes)
// Errors   create(): kUnsupported (what it lacks), kIo. allocate(): kOutOfMemory, naming the purpose
//          and the bytes. All: kIo when the device is lost
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "gpu/gpu_buffer.h"
#include "gpu/gpu_facts.h"
#include "gpu/gpu_faults.h"
#include "gpu/gpu_queue.h"
#include "gpu/gpu_system.h"
#include "gpu/shaders.h"

namespace penstock {

class GpuDevice {
 public:
  static Result<std::unique_ptr<GpuDevice>> create(GpuSystem& system, int index,
                                                   const GpuFaults& faults = {});
  ~GpuDevice();
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  const GpuFacts& facts() const { return facts_; }

  // bytes: 1 to kGpuBlockMax. Not cleared.
  Result<GpuBuffer> allocate(uint64_t bytes, GpuMemoryKind kind, const char* purpose);
  // Memory of this process that copies may begin from for as long as the buffer lives: the driver keeps its pages
  // where they are. Whole multiples of facts().import_alignment. From any thread; counted as nobody's here.
  Result<GpuBuffer> import(std::span<std::byte> bytes);
  uint64_t allocated_bytes() const { return allocated_bytes_; }
  uint64_t peak_bytes() const { return peak_bytes_; }

  // Made once for each set of constants, which are the shader's by their numbers.
  Result<GpuKernel> kernel(Shader shader, std::span<const uint32_t> constants);

  // Work, and copies beside it; the same queue where the device has only one.
  GpuQueue& compute() { return *compute_; }
  GpuQueue& transfer() { return transfer_ ? *transfer_ : *compute_; }

  // Into and out of any buffer, at once: for what is small or rare. They wait.
  Result<void> write(const GpuBuffer& to, uint64_t offset, std::span<const std::byte> bytes);
  Result<void> read(const GpuBuffer& from, uint64_t offset, std::span<std::byte> bytes);

  // That were compiled so far.
  int64_t num_kernels() const { return std::ssize(pipelines_); }

  // For the parts of this room.
  const VulkanDeviceFunctions& functions() const { return functions_; }
  VkDevice handle() const { return device_; }
  VkPipelineLayout layout() const { return layout_; }
  Result<void> check(VkResult result, const char* what);  // remembers a loss
  Result<void> count_submit();
  Result<void> count_wait();
  bool is_late();
  bool looks_at_software() const { return faults_.looks_at_software; }
  void give_back(GpuBuffer& buffer);

 private:
  GpuDevice(GpuSystem& system, int index, const GpuFaults& faults);
  Result<void> create_device();
  Result<void> create_layout();
  void choose_families();
  // A bit each.
  uint32_t memory_types(VkMemoryPropertyFlags with, VkMemoryPropertyFlags without) const;
  Result<uint32_t> memory_type(uint32_t allowed, GpuMemoryKind kind) const;
  Result<void> fill(GpuBuffer& buffer, const VkBufferCreateInfo& info, GpuMemoryKind kind);
  Result<VkPipeline> make_pipeline(Shader shader, std::span<const uint32_t> constants);
  Result<void> check_alive() const;
  Result<void> ensure_staging();

  GpuSystem& system_;
  const GpuFacts facts_;
  GpuFaults faults_;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  VulkanDeviceFunctions functions_;
  PFN_vkGetMemoryHostPointerPropertiesEXT host_pointer_properties_ = nullptr;
  VkDevice device_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  uint32_t compute_family_ = 0, transfer_family_ = 0;
  std::unique_ptr<GpuQueue> compute_, transfer_;
  std::map<std::pair<Shader, std::vector<uint32_t>>, VkPipeline> pipelines_;
  GpuBuffer staging_;
  uint64_t allocated_bytes_ = 0, peak_bytes_ = 0;
  int64_t answers_ = 0;                     // to has_passed(), where some come late
  std::string loss_;                        // what was tried when it was lost
  std::atomic<bool> is_abandoned_ = false;  // it does not answer
};

}  // namespace penstock
