// A block of memory that a device can use: its own, or the host's that it can reach.
//
//   kDevice  the device's own; the host cannot look at it
//   kShared  the host's, mapped for both: what is copied, and what kernels write for the host
//   kInputs  what the host writes and kernels read: the device's own where it lets the host write that, since
//            a look over the link takes a kernel a microsecond and more; else as kShared. To read it takes
//            the host very long
//
// Blocks are few and at most kGpuBlockMax large, what every driver can give at once. Shaders follow
// addresses, so a block is addressed as memory is: at address() + offset.
//
// Memory of this process may be a block as well (GpuDevice::import), which has no address: copies begin there.
//
// Threads  as GpuDevice
// Memory   owns the block; giving it back waits until the device has nothing to do
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "gpu/vulkan_functions.h"

namespace penstock {

class GpuDevice;

inline constexpr uint64_t kGpuBlockMax = uint64_t{1} << 30;

// What an allocation may take more than was asked for.
inline constexpr uint64_t kGpuRounding = uint64_t{64} << 10;

// Where a block holds several things, each begins at a multiple of this.
inline constexpr uint64_t kGpuAlignment = 256;
constexpr uint64_t gpu_aligned(uint64_t bytes) {
  return (bytes + kGpuAlignment - 1) / kGpuAlignment * kGpuAlignment;
}

constexpr uint64_t gpu_float_bytes(int64_t count) {
  return static_cast<uint64_t>(count) * sizeof(float);
}

enum class GpuMemoryKind : uint8_t { kDevice, kShared, kInputs };

class GpuBuffer {
 public:
  GpuBuffer() = default;
  ~GpuBuffer();
  GpuBuffer(GpuBuffer&& other) noexcept;
  GpuBuffer& operator=(GpuBuffer&& other) noexcept;

  uint64_t address() const { return address_; }  // as the device has it; 256-byte aligned
  uint64_t size() const { return bytes_; }
  // Of kShared and kInputs. What the host wrote before a submit, the device sees; what the device wrote, the host
  // sees when its fence has passed.
  std::span<std::byte> host_bytes() const;
  bool is_host_visible() const { return mapped_ != nullptr; }

  VkBuffer handle() const { return buffer_; }

 private:
  friend class GpuDevice;

  GpuDevice* device_ = nullptr;
  VkBuffer buffer_ = VK_NULL_HANDLE;
  VkDeviceMemory memory_ = VK_NULL_HANDLE;
  uint64_t address_ = 0, bytes_ = 0;
  std::byte* mapped_ = nullptr;
  bool is_imported_ = false;  // GpuDevice::import
};

}  // namespace penstock
