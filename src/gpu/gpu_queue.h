// Lists of commands for a device, and the line in which it works through them.
//
//   GpuCommands commands = PENSTOCK_TRY(queue.begin());
//   commands.dispatch(kernel, arguments, {groups, 1});
//   commands.barrier();                              // what follows reads what was written before
//   commands.dispatch(...);
//   const Fence fence = PENSTOCK_TRY(queue.submit(commands));
//   PENSTOCK_TRY(queue.wait(fence));
//
// Lists run in the order of their submission; each sees all that those before it have written, and what
// lists of another queue have written whose fence the host has seen: it made that available, and every
// list begins with a barrier. A device that does not answer for kGpuPatience counts as lost, so that
// nobody waits for ever; a software device shares its processors with everybody and may take longer.
//
// Threads  one
// Memory   a few lists, made at the start and used in turn
// Errors   kIo: the device is lost or does not answer; kOutOfMemory
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_buffer.h"
#include "gpu/vulkan_functions.h"

namespace penstock {

inline constexpr std::chrono::seconds kGpuPatience{30}, kSoftwarePatience{600};
inline constexpr size_t kGpuArgumentsMax = 128;  // bytes, what every device takes

// A shader with its constants, ready to run.
struct GpuKernel {
  VkPipeline pipeline = VK_NULL_HANDLE;
};

struct GpuGroups {
  uint32_t x = 1, y = 1;
};

// Dispatches, and copies with clears: what barriers tell apart. One between dispatches that also names copies
// stops some devices for longer.
inline constexpr size_t kGpuCommandKinds = 2;

// What commands of each kind have still to wait for, along a queue: sets of kinds, a bit for each.
struct GpuOrder {
  uint32_t since_barrier = 0;
  std::array<uint32_t, kGpuCommandKinds> awaited = {};  // by those of this kind

  void barrier() {
    for (uint32_t& kinds : awaited) kinds |= since_barrier;
    since_barrier = 0;
  }
};

// A list while it is written.
class GpuCommands {
 public:
  // arguments: a struct laid out as the shader's, at most kGpuArgumentsMax bytes.
  template <class Arguments>
  void dispatch(const GpuKernel& kernel, const Arguments& arguments, GpuGroups groups) {
    static_assert(sizeof(Arguments) <= kGpuArgumentsMax && sizeof(Arguments) % 4 == 0);
    dispatch_bytes(kernel, std::as_bytes(std::span(&arguments, 1)), groups);
  }
  void copy(const GpuBuffer& from, uint64_t from_offset, const GpuBuffer& to, uint64_t to_offset,
            uint64_t bytes);
  void clear(const GpuBuffer& buffer);  // zeros
  // Commands behind it see what those before it have written, and write only after these have read. Written
  // with the next command, whose kind it is for.
  void barrier() { order_.barrier(); }

 private:
  friend class GpuQueue;
  enum Kind : uint32_t { kDispatch, kCopy };
  void dispatch_bytes(const GpuKernel& kernel, std::span<const std::byte> arguments,
                      GpuGroups groups);
  void begin_command(Kind kind);

  const VulkanDeviceFunctions* functions_ = nullptr;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkCommandBuffer list_ = VK_NULL_HANDLE;
  VkPipeline bound_ = VK_NULL_HANDLE;
  GpuOrder order_;
  uint32_t kinds_ = 0;  // of its commands
};

class GpuQueue {
 public:
  static Result<std::unique_ptr<GpuQueue>> create(GpuDevice& device, uint32_t family);
  ~GpuQueue();
  GpuQueue(const GpuQueue&) = delete;
  GpuQueue& operator=(const GpuQueue&) = delete;

  // An empty list; waits when all are at work. One is written at a time.
  Result<GpuCommands> begin();
  Result<Fence> submit(const GpuCommands& commands);

  Result<bool> has_passed(Fence fence);
  // Looks again and again for kLookedFor, with set_while_looking() told; then sleeps.
  Result<void> wait(Fence fence);
  // Called with true before it looks again and again, and with false afterwards.
  void set_while_looking(std::function<void(bool)> told) { while_looking_ = std::move(told); }
  Result<void> finish(const GpuCommands& commands);  // submits and waits

 private:
  // Where copies share the line of dispatches: eight of them, four waves of guests, two calls of experts, two of a
  // shared one, and more.
  static constexpr size_t kLists = 24;
  // To be woken takes about as long as a layer's work there.
  static constexpr std::chrono::milliseconds kLookedFor{2};

  explicit GpuQueue(GpuDevice& device) : device_(device) {}
  Result<void> end(VkCommandBuffer list);
  Result<uint64_t> reached();
  Result<bool> look_for(Fence fence);

  GpuDevice& device_;
  VkQueue queue_ = VK_NULL_HANDLE;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  std::array<VkCommandBuffer, kLists> lists_ = {};
  std::function<void(bool)> while_looking_;
  GpuOrder order_;           // after the lists submitted so far
  uint64_t seen_ = 0;        // the last fence that the host has seen passed
  bool is_writing_ = false;  // a list was begun and not submitted
  uint64_t submitted_ = 0;  // the last fence's number; list i has fences i + 1, i + 1 + kLists, ...
};

}  // namespace penstock
