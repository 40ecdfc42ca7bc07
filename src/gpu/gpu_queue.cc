#include "gpu/gpu_queue.h"

#include <algorithm>

#include "base/check.h"
#include "gpu/gpu_device.h"

namespace penstock {
namespace {

struct Step {
  VkPipelineStageFlags2 stages;
  VkAccessFlags2 access;
};

// By kind.
constexpr std::array<Step, kGpuCommandKinds> kWrites = {
    Step{VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT, VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT},
    Step{VK_PIPELINE_STAGE_2_COPY_BIT | VK_PIPELINE_STAGE_2_CLEAR_BIT,
         VK_ACCESS_2_TRANSFER_WRITE_BIT}};
constexpr std::array<VkAccessFlags2, kGpuCommandKinds> kReads = {
    VK_ACCESS_2_SHADER_STORAGE_READ_BIT, VK_ACCESS_2_TRANSFER_READ_BIT};

Step writes_of(uint32_t kinds) {
  Step step = {};
  for (uint32_t kind = 0; kind < kGpuCommandKinds; ++kind) {
    if ((kinds >> kind & 1) == 0) continue;
    step.stages |= kWrites[kind].stages;
    step.access |= kWrites[kind].access;
  }
  return step;
}

VkMemoryBarrier2 memory_barrier(const Step& from, const Step& to) {
  return {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
          .pNext = nullptr,
          .srcStageMask = from.stages,
          .srcAccessMask = from.access,
          .dstStageMask = to.stages,
          .dstAccessMask = to.access};
}

void record(const VulkanDeviceFunctions& functions, VkCommandBuffer list,
            const VkMemoryBarrier2& barrier) {
  VkDependencyInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO;
  info.memoryBarrierCount = 1;
  info.pMemoryBarriers = &barrier;
  functions.CmdPipelineBarrier2(list, &info);
}

}  // namespace

void GpuCommands::begin_command(Kind kind) {
  uint32_t& awaited = order_.awaited[kind];
  if (awaited != 0) {
    const Step to = {kWrites[kind].stages, kReads[kind] | kWrites[kind].access};
    record(*functions_, list_, memory_barrier(writes_of(awaited), to));
    awaited = 0;
  }
  order_.since_barrier |= 1u << kind;
  kinds_ |= 1u << kind;
}

void GpuCommands::dispatch_bytes(const GpuKernel& kernel, std::span<const std::byte> arguments,
                                 GpuGroups groups) {
  PENSTOCK_DCHECK(kernel.pipeline != VK_NULL_HANDLE);
  if (groups.x == 0 || groups.y == 0) return;
  begin_command(kDispatch);
  if (bound_ != kernel.pipeline) {
    functions_->CmdBindPipeline(list_, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.pipeline);
    bound_ = kernel.pipeline;
  }
  functions_->CmdPushConstants(list_, layout_, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                               static_cast<uint32_t>(arguments.size()), arguments.data());
  functions_->CmdDispatch(list_, groups.x, groups.y, 1);
}

void GpuCommands::copy(const GpuBuffer& from, uint64_t from_offset, const GpuBuffer& to,
                       uint64_t to_offset, uint64_t bytes) {
  PENSTOCK_CHECK(from_offset + bytes <= from.size() && to_offset + bytes <= to.size());
  if (bytes == 0) return;
  begin_command(kCopy);
  const VkBufferCopy region = {.srcOffset = from_offset, .dstOffset = to_offset, .size = bytes};
  functions_->CmdCopyBuffer(list_, from.handle(), to.handle(), 1, &region);
}

void GpuCommands::clear(const GpuBuffer& buffer) {
  begin_command(kCopy);
  functions_->CmdFillBuffer(list_, buffer.handle(), 0, VK_WHOLE_SIZE, 0);
}

Result<std::unique_ptr<GpuQueue>> GpuQueue::create(GpuDevice& device, uint32_t family) {
  std::unique_ptr<GpuQueue> queue(new GpuQueue(device));
  const VulkanDeviceFunctions& functions = device.functions();
  functions.GetDeviceQueue(device.handle(), family, 0, &queue->queue_);
  VkCommandPoolCreateInfo pool = {};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool.queueFamilyIndex = family;
  PENSTOCK_TRY(device.check(
      functions.CreateCommandPool(device.handle(), &pool, nullptr, &queue->pool_), "a queue"));
  VkCommandBufferAllocateInfo lists = {};
  lists.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  lists.commandPool = queue->pool_;
  lists.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  lists.commandBufferCount = kLists;
  PENSTOCK_TRY(device.check(
      functions.AllocateCommandBuffers(device.handle(), &lists, queue->lists_.data()), "a queue"));
  VkSemaphoreTypeCreateInfo type = {};
  type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  VkSemaphoreCreateInfo semaphore = {};
  semaphore.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
  semaphore.pNext = &type;
  PENSTOCK_TRY(device.check(
      functions.CreateSemaphore(device.handle(), &semaphore, nullptr, &queue->timeline_),
      "a queue"));
  return queue;
}

GpuQueue::~GpuQueue() {
  const VulkanDeviceFunctions& functions = device_.functions();
  functions.DestroySemaphore(device_.handle(), timeline_, nullptr);
  functions.DestroyCommandPool(device_.handle(), pool_, nullptr);
}

Result<GpuCommands> GpuQueue::begin() {
  if (submitted_ >= kLists) PENSTOCK_TRY(wait({submitted_ + 1 - kLists}));
  GpuCommands commands;
  commands.functions_ = &device_.functions();
  commands.layout_ = this == &device_.compute() ? device_.layout() : VK_NULL_HANDLE;
  commands.list_ = lists_[submitted_ % kLists];
  PENSTOCK_TRY(device_.check(VK_SUCCESS, "writing commands"));  // is it still there?
  // One that was given up half written, when something failed.
  if (is_writing_) PENSTOCK_TRY(end(commands.list_));
  VkCommandBufferBeginInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  PENSTOCK_TRY(device_.check(device_.functions().BeginCommandBuffer(commands.list_, &info),
                             "writing commands"));
  is_writing_ = true;
  commands.order_ = order_;
  // Also what another queue has written: of that this one knows nothing, and any barrier does.
  commands.order_.since_barrier |=
      1u << (commands.layout_ != VK_NULL_HANDLE ? GpuCommands::kDispatch : GpuCommands::kCopy);
  commands.barrier();
  return commands;
}

Result<void> GpuQueue::end(VkCommandBuffer list) {
  is_writing_ = false;
  return device_.check(device_.functions().EndCommandBuffer(list), "writing commands");
}

Result<Fence> GpuQueue::submit(const GpuCommands& commands) {
  const VulkanDeviceFunctions& functions = device_.functions();
  PENSTOCK_TRY(device_.count_submit());
  if (commands.kinds_ != 0) {
    record(functions, commands.list_,
           memory_barrier(writes_of(commands.kinds_),
                          {VK_PIPELINE_STAGE_2_HOST_BIT, VK_ACCESS_2_HOST_READ_BIT}));
  }
  PENSTOCK_TRY(end(commands.list_));
  order_ = commands.order_;
  const VkCommandBufferSubmitInfo list = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                          .pNext = nullptr,
                                          .commandBuffer = commands.list_,
                                          .deviceMask = 0};
  const VkSemaphoreSubmitInfo signal = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                        .pNext = nullptr,
                                        .semaphore = timeline_,
                                        .value = submitted_ + 1,
                                        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                        .deviceIndex = 0};
  VkSubmitInfo2 info = {};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2;
  info.commandBufferInfoCount = 1;
  info.pCommandBufferInfos = &list;
  info.signalSemaphoreInfoCount = 1;
  info.pSignalSemaphoreInfos = &signal;
  PENSTOCK_TRY(
      device_.check(functions.QueueSubmit2(queue_, 1, &info, VK_NULL_HANDLE), "handing over work"));
  return Fence{++submitted_};
}

Result<uint64_t> GpuQueue::reached() {
  constexpr char kWhat[] = "asking how far it is";
  uint64_t value = 0;
  PENSTOCK_TRY(device_.check(
      device_.functions().GetSemaphoreCounterValue(device_.handle(), timeline_, &value), kWhat));
  // What was never handed over cannot have ended: a driver may say so of a device that is lost.
  if (value > submitted_) PENSTOCK_TRY(device_.check(VK_ERROR_DEVICE_LOST, kWhat));
  seen_ = std::max(seen_, value);
  return seen_;
}

Result<bool> GpuQueue::has_passed(Fence fence) {
  const uint64_t number = PENSTOCK_TRY(reached());
  if (device_.is_late()) return false;
  return number >= fence.number;
}

Result<bool> GpuQueue::look_for(Fence fence) {
  const auto end = std::chrono::steady_clock::now() + kLookedFor;
  do {
    if (PENSTOCK_TRY(reached()) >= fence.number) return true;
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

Result<void> GpuQueue::wait(Fence fence) {
  PENSTOCK_TRY(device_.count_wait());
  if (fence.number <= seen_) return {};
  const bool is_software = device_.facts().kind == GpuKind::kSoftware;
  if (!is_software || device_.looks_at_software()) {
    if (while_looking_) while_looking_(true);
    const Result<bool> has_passed = look_for(fence);
    if (while_looking_) while_looking_(false);
    if (PENSTOCK_TRY(has_passed)) return {};
  }
  VkSemaphoreWaitInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &timeline_;
  info.pValues = &fence.number;
  const std::chrono::nanoseconds patience = is_software ? kSoftwarePatience : kGpuPatience;
  const auto patience_ns = static_cast<uint64_t>(patience.count());
  PENSTOCK_TRY(
      device_.check(device_.functions().WaitSemaphores(device_.handle(), &info, patience_ns),
                    "waiting for its work"));
  if (PENSTOCK_TRY(reached()) >= fence.number) return {};
  return device_.check(VK_ERROR_DEVICE_LOST, "waiting for its work");
}

Result<void> GpuQueue::finish(const GpuCommands& commands) {
  return wait(PENSTOCK_TRY(submit(commands)));
}

}  // namespace penstock
