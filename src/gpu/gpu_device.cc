#include "gpu/gpu_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/byte_text.h"
#include "base/check.h"
#include "gpu/gpu_error.h"
#include "gpu/gpu_requirements.h"

namespace penstock {
namespace {

constexpr uint64_t kStagingBytes = uint64_t{16} << 20;

// Allowed to be used by both queues without being handed over.
VkBufferCreateInfo buffer_info(uint64_t bytes, std::span<const uint32_t> families) {
  VkBufferCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = bytes;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
               VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  if (families.size() > 1) {
    info.sharingMode = VK_SHARING_MODE_CONCURRENT;
    info.queueFamilyIndexCount = static_cast<uint32_t>(families.size());
    info.pQueueFamilyIndices = families.data();
  }
  return info;
}

}  // namespace

GpuDevice::GpuDevice(GpuSystem& system, int index, const GpuFaults& faults)
    : system_(system),
      facts_(system.devices()[static_cast<size_t>(index)]),
      faults_(faults),
      physical_(system.physical(index)) {}

Result<std::unique_ptr<GpuDevice>> GpuDevice::create(GpuSystem& system, int index,
                                                     const GpuFaults& faults) {
  PENSTOCK_CHECK(index >= 0 && index < std::ssize(system.devices()));
  std::unique_ptr<GpuDevice> device(new GpuDevice(system, index, faults));
  if (!device->facts_.is_usable()) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: {}", device->facts_.name, device->facts_.refusal)};
  }
  device->choose_families();
  PENSTOCK_TRY(device->create_device());
  PENSTOCK_TRY(device->create_layout());
  device->compute_ = PENSTOCK_TRY(GpuQueue::create(*device, device->compute_family_));
  if (device->transfer_family_ != device->compute_family_) {
    device->transfer_ = PENSTOCK_TRY(GpuQueue::create(*device, device->transfer_family_));
  }
  return device;
}

// A queue that computes and does not draw answers sooner; copies go best where nothing else can.
void GpuDevice::choose_families() {
  uint32_t count = 0;
  const VulkanInstanceFunctions& functions = system_.functions();
  functions.GetPhysicalDeviceQueueFamilyProperties(physical_, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  functions.GetPhysicalDeviceQueueFamilyProperties(physical_, &count, families.data());
  const auto find = [&](VkQueueFlags with, VkQueueFlags without, uint32_t otherwise) {
    for (uint32_t i = 0; i < count; ++i) {
      const VkQueueFlags flags = families[i].queueFlags;
      if ((flags & with) == with && (flags & without) == 0) return i;
    }
    return otherwise;
  };
  const uint32_t any = find(VK_QUEUE_COMPUTE_BIT, 0, 0);  // Vulkan promises one
  compute_family_ = find(VK_QUEUE_COMPUTE_BIT, VK_QUEUE_GRAPHICS_BIT, any);
  transfer_family_ =
      find(VK_QUEUE_TRANSFER_BIT, VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT, compute_family_);
}

Result<void> GpuDevice::create_device() {
  const float priority = 1;
  std::vector<VkDeviceQueueCreateInfo> queues;
  for (const uint32_t family : {compute_family_, transfer_family_}) {
    if (!queues.empty() && queues.front().queueFamilyIndex == family) continue;
    VkDeviceQueueCreateInfo queue = {};
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueFamilyIndex = family;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    queues.push_back(queue);
  }
  GpuFeatures features;
  features.take_needed();
  VkDeviceCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features.core;
  info.queueCreateInfoCount = static_cast<uint32_t>(queues.size());
  info.pQueueCreateInfos = queues.data();
  const char* extension = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
  if (facts_.import_alignment > 0) {
    info.enabledExtensionCount = 1;
    info.ppEnabledExtensionNames = &extension;
  }
  PENSTOCK_TRY(gpu_check(system_.functions().CreateDevice(physical_, &info, nullptr, &device_),
                         facts_.name + ": starting it"));
#define PENSTOCK_LOAD(call)                                                                       \
  functions_.call =                                                                               \
      reinterpret_cast<PFN_vk##call>(system_.functions().GetDeviceProcAddr(device_, "vk" #call)); \
  if (functions_.call == nullptr) {                                                               \
    return Error{ErrorCode::kUnsupported, facts_.name + ": its driver has no vk" #call};          \
  }
  // The one that ends it comes first, in case another is missing.
  PENSTOCK_LOAD(DestroyDevice)
  PENSTOCK_VULKAN_OF_DEVICE(PENSTOCK_LOAD)
#undef PENSTOCK_LOAD
  if (facts_.import_alignment > 0) {
    host_pointer_properties_ = reinterpret_cast<PFN_vkGetMemoryHostPointerPropertiesEXT>(
        system_.functions().GetDeviceProcAddr(device_, "vkGetMemoryHostPointerPropertiesEXT"));
  }
  return {};
}

// No descriptors: shaders are told addresses.
Result<void> GpuDevice::create_layout() {
  const VkPushConstantRange arguments = {
      .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .offset = 0, .size = kGpuArgumentsMax};
  VkPipelineLayoutCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  info.pushConstantRangeCount = 1;
  info.pPushConstantRanges = &arguments;
  return check(functions_.CreatePipelineLayout(device_, &info, nullptr, &layout_), "its kernels");
}

GpuDevice::~GpuDevice() {
  if (device_ == VK_NULL_HANDLE || functions_.DestroyDevice == nullptr) return;
  if (is_abandoned_) {
    // Whatever it still does, it does to memory that stays.
    static_cast<void>(compute_.release());
    static_cast<void>(transfer_.release());
    return;
  }
  if (functions_.DeviceWaitIdle != nullptr) functions_.DeviceWaitIdle(device_);
  staging_ = {};
  transfer_.reset();
  compute_.reset();
  for (const auto& [key, pipeline] : pipelines_) {
    functions_.DestroyPipeline(device_, pipeline, nullptr);
  }
  if (layout_ != VK_NULL_HANDLE) functions_.DestroyPipelineLayout(device_, layout_, nullptr);
  functions_.DestroyDevice(device_, nullptr);
}

Result<void> GpuDevice::check(VkResult result, const char* what) {
  PENSTOCK_TRY(check_alive());
  // A time that has run out is no error to Vulkan.
  if (result >= VK_SUCCESS && result != VK_TIMEOUT) return {};
  const std::string where = fmt::format("{}: {}", facts_.name, what);
  if (result == VK_ERROR_DEVICE_LOST || result == VK_TIMEOUT) loss_ = where;
  if (result == VK_TIMEOUT) {
    is_abandoned_ = true;
    system_.abandon();
  }
  return gpu_error(result, where);
}

Result<void> GpuDevice::check_alive() const {
  if (loss_.empty()) return {};
  return gpu_error(VK_ERROR_DEVICE_LOST, loss_);
}

Result<void> GpuDevice::count_submit() {
  PENSTOCK_TRY(check_alive());
  if (faults_.submits_before_loss < 0 || faults_.submits_before_loss-- > 0) return {};
  return check(VK_ERROR_DEVICE_LOST, "handing over work");
}

Result<void> GpuDevice::count_wait() {
  PENSTOCK_TRY(check_alive());
  if (faults_.waits_before_silence < 0 || faults_.waits_before_silence-- > 0) return {};
  return check(VK_TIMEOUT, "waiting for its work");
}

bool GpuDevice::is_late() {
  return faults_.late_answers > 0 &&
         answers_++ % (faults_.late_answers + 1) != faults_.late_answers;
}

uint32_t GpuDevice::memory_types(VkMemoryPropertyFlags with, VkMemoryPropertyFlags without) const {
  VkPhysicalDeviceMemoryProperties2 memory = {};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  system_.functions().GetPhysicalDeviceMemoryProperties2(physical_, &memory);
  uint32_t types = 0;
  for (uint32_t i = 0; i < memory.memoryProperties.memoryTypeCount; ++i) {
    const VkMemoryPropertyFlags flags = memory.memoryProperties.memoryTypes[i].propertyFlags;
    if ((flags & with) == with && (flags & without) == 0) types |= 1u << i;
  }
  return types;
}

Result<uint32_t> GpuDevice::memory_type(uint32_t allowed, GpuMemoryKind kind) const {
  constexpr VkMemoryPropertyFlags kLocal = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
  constexpr VkMemoryPropertyFlags kMapped =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  struct Wish {
    VkMemoryPropertyFlags with, without;
  };
  const Wish own[] = {{kLocal, kMapped}, {kLocal, 0}};
  // Where the host's memory is the device's, what it caches may be both.
  const Wish shared[] = {{kMapped | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, 0}, {kMapped, 0}};
  const Wish inputs[] = {{kLocal | kMapped, 0}, {kMapped, 0}};
  const std::span<const Wish> wishes = kind == GpuMemoryKind::kDevice   ? std::span(own)
                                       : kind == GpuMemoryKind::kShared ? std::span(shared)
                                                                        : std::span(inputs);
  for (const Wish& wish : wishes) {
    const uint32_t suits = allowed & memory_types(wish.with, wish.without);
    if (suits != 0) return static_cast<uint32_t>(std::countr_zero(suits));
  }
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: it has no memory of the kind that is needed", facts_.name)};
}

Result<GpuBuffer> GpuDevice::allocate(uint64_t bytes, GpuMemoryKind kind, const char* purpose) {
  PENSTOCK_CHECK(bytes > 0 && bytes <= kGpuBlockMax);
  PENSTOCK_TRY(check_alive());
  const uint32_t families[] = {compute_family_, transfer_family_};
  const VkBufferCreateInfo info =
      buffer_info(bytes, std::span(families).first(compute_family_ == transfer_family_ ? 1 : 2));
  const auto make = [&](GpuMemoryKind of_kind) -> Result<GpuBuffer> {
    GpuBuffer buffer;
    buffer.device_ = this;
    PENSTOCK_TRY(fill(buffer, info, of_kind));
    return buffer;
  };
  const bool fails =
      faults_.allocations_before_failure >= 0 && faults_.allocations_before_failure-- == 0;
  const Result<void> may_try =
      check(fails ? VK_ERROR_OUT_OF_DEVICE_MEMORY : VK_SUCCESS, "allocating");
  Result<GpuBuffer> made = may_try ? make(kind) : Result<GpuBuffer>(may_try.error());
  // What the host can write of a device's memory may be a small part of it, and others have taken it.
  const bool can_lie_elsewhere = kind == GpuMemoryKind::kInputs && may_try && loss_.empty();
  if (!made && can_lie_elsewhere) made = make(GpuMemoryKind::kShared);
  if (made) return made;
  return made.error().with_context(
      fmt::format("no memory for {} ({})", purpose, format_bytes(bytes)));
}

Result<void> GpuDevice::fill(GpuBuffer& buffer, const VkBufferCreateInfo& info,
                             GpuMemoryKind kind) {
  PENSTOCK_TRY(
      check(functions_.CreateBuffer(device_, &info, nullptr, &buffer.buffer_), "allocating"));
  VkMemoryRequirements needs = {};
  functions_.GetBufferMemoryRequirements(device_, buffer.buffer_, &needs);
  VkMemoryAllocateFlagsInfo flags = {};
  flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  VkMemoryAllocateInfo allocation = {};
  allocation.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocation.pNext = &flags;
  allocation.allocationSize = needs.size;
  allocation.memoryTypeIndex = PENSTOCK_TRY(memory_type(needs.memoryTypeBits, kind));
  PENSTOCK_TRY(check(functions_.AllocateMemory(device_, &allocation, nullptr, &buffer.memory_),
                     "allocating"));
  buffer.bytes_ = info.size;
  allocated_bytes_ += buffer.bytes_;
  peak_bytes_ = std::max(peak_bytes_, allocated_bytes_);
  PENSTOCK_TRY(
      check(functions_.BindBufferMemory(device_, buffer.buffer_, buffer.memory_, 0), "allocating"));
  VkBufferDeviceAddressInfo address = {};
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = buffer.buffer_;
  buffer.address_ = functions_.GetBufferDeviceAddress(device_, &address);
  if (kind == GpuMemoryKind::kDevice) return {};
  void* mapped = nullptr;
  PENSTOCK_TRY(check(functions_.MapMemory(device_, buffer.memory_, 0, VK_WHOLE_SIZE, 0, &mapped),
                     "mapping memory"));
  buffer.mapped_ = static_cast<std::byte*>(mapped);
  return {};
}

Result<GpuBuffer> GpuDevice::import(std::span<std::byte> bytes) {
  constexpr auto kOfHost = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  const std::string what = facts_.name + ": reaching this machine's memory";
  if (host_pointer_properties_ == nullptr) {
    return Error{ErrorCode::kUnsupported, what + ": its driver cannot"};
  }
  PENSTOCK_CHECK(!bytes.empty() && bytes.size() % facts_.import_alignment == 0 &&
                 reinterpret_cast<uintptr_t>(bytes.data()) % facts_.import_alignment == 0);
  GpuBuffer buffer;
  buffer.device_ = this;
  buffer.is_imported_ = true;
  VkMemoryHostPointerPropertiesEXT pointer = {};
  pointer.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT;
  PENSTOCK_TRY(gpu_check(host_pointer_properties_(device_, kOfHost, bytes.data(), &pointer), what));
  VkExternalMemoryBufferCreateInfo external = {};
  external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO;
  external.handleTypes = kOfHost;
  VkBufferCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.pNext = &external;
  info.size = bytes.size();
  info.usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
  PENSTOCK_TRY(gpu_check(functions_.CreateBuffer(device_, &info, nullptr, &buffer.buffer_), what));
  VkMemoryRequirements needs = {};
  functions_.GetBufferMemoryRequirements(device_, buffer.buffer_, &needs);
  const uint32_t types = needs.memoryTypeBits & pointer.memoryTypeBits &
                         memory_types(VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, 0);
  if (types == 0 || needs.size > bytes.size()) {
    return Error{ErrorCode::kUnsupported, what + ": not in this form"};
  }
  VkImportMemoryHostPointerInfoEXT place = {};
  place.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT;
  place.handleType = kOfHost;
  place.pHostPointer = bytes.data();
  VkMemoryAllocateInfo allocation = {};
  allocation.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocation.pNext = &place;
  allocation.allocationSize = bytes.size();
  allocation.memoryTypeIndex = static_cast<uint32_t>(std::countr_zero(types));
  PENSTOCK_TRY(
      gpu_check(functions_.AllocateMemory(device_, &allocation, nullptr, &buffer.memory_), what));
  PENSTOCK_TRY(
      gpu_check(functions_.BindBufferMemory(device_, buffer.buffer_, buffer.memory_, 0), what));
  buffer.bytes_ = bytes.size();
  return buffer;
}

void GpuDevice::give_back(GpuBuffer& buffer) {
  if (is_abandoned_) return;
  // One that could not be made may be another thread's, which must not wait for the queues.
  if (buffer.bytes_ > 0) functions_.DeviceWaitIdle(device_);
  if (!buffer.is_imported_) allocated_bytes_ -= buffer.bytes_;
  functions_.DestroyBuffer(device_, buffer.buffer_, nullptr);
  functions_.FreeMemory(device_, buffer.memory_, nullptr);
}

Result<GpuKernel> GpuDevice::kernel(Shader shader, std::span<const uint32_t> constants) {
  std::pair<Shader, std::vector<uint32_t>> key(shader, {constants.begin(), constants.end()});
  const auto found = pipelines_.find(key);
  if (found != pipelines_.end()) return GpuKernel{found->second};
  PENSTOCK_TRY(check_alive());
  const VkPipeline pipeline = PENSTOCK_TRY(make_pipeline(shader, constants));
  pipelines_.emplace(std::move(key), pipeline);
  return GpuKernel{pipeline};
}

Result<VkPipeline> GpuDevice::make_pipeline(Shader shader, std::span<const uint32_t> constants) {
  const std::string what = fmt::format("the kernel {}", name_of(shader));
  const std::span<const uint32_t> words = spirv_of(shader);
  VkShaderModuleCreateInfo code = {};
  code.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  code.codeSize = words.size_bytes();
  code.pCode = words.data();
  VkShaderModule module = VK_NULL_HANDLE;
  PENSTOCK_TRY(
      check(functions_.CreateShaderModule(device_, &code, nullptr, &module), what.c_str()));
  std::vector<VkSpecializationMapEntry> entries;
  for (size_t i = 0; i < constants.size(); ++i) {
    entries.push_back({static_cast<uint32_t>(i), static_cast<uint32_t>(4 * i), 4});
  }
  const VkSpecializationInfo values = {.mapEntryCount = static_cast<uint32_t>(entries.size()),
                                       .pMapEntries = entries.data(),
                                       .dataSize = constants.size_bytes(),
                                       .pData = constants.data()};
  VkComputePipelineCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  info.stage.pSpecializationInfo = &values;
  info.layout = layout_;
  VkPipeline pipeline = VK_NULL_HANDLE;
  const VkResult result =
      functions_.CreateComputePipelines(device_, VK_NULL_HANDLE, 1, &info, nullptr, &pipeline);
  functions_.DestroyShaderModule(device_, module, nullptr);
  PENSTOCK_TRY(check(result, what.c_str()));
  return pipeline;
}

Result<void> GpuDevice::ensure_staging() {
  if (staging_.size() > 0) return {};
  staging_ = PENSTOCK_TRY(allocate(kStagingBytes, GpuMemoryKind::kShared, "copies to the GPU"));
  return {};
}

Result<void> GpuDevice::write(const GpuBuffer& to, uint64_t offset,
                              std::span<const std::byte> bytes) {
  PENSTOCK_CHECK(offset + bytes.size() <= to.size());
  if (to.is_host_visible()) {
    std::copy(bytes.begin(), bytes.end(), to.host_bytes().begin() + static_cast<ptrdiff_t>(offset));
    return {};
  }
  PENSTOCK_TRY(ensure_staging());
  while (!bytes.empty()) {
    const size_t part = std::min<size_t>(bytes.size(), kStagingBytes);
    std::memcpy(staging_.host_bytes().data(), bytes.data(), part);
    GpuCommands commands = PENSTOCK_TRY(compute_->begin());
    commands.copy(staging_, 0, to, offset, part);
    PENSTOCK_TRY(compute_->finish(commands));
    bytes = bytes.subspan(part);
    offset += part;
  }
  return {};
}

Result<void> GpuDevice::read(const GpuBuffer& from, uint64_t offset, std::span<std::byte> bytes) {
  PENSTOCK_CHECK(offset + bytes.size() <= from.size());
  if (from.is_host_visible()) {
    std::memcpy(bytes.data(), from.host_bytes().data() + offset, bytes.size());
    return {};
  }
  PENSTOCK_TRY(ensure_staging());
  while (!bytes.empty()) {
    const size_t part = std::min<size_t>(bytes.size(), kStagingBytes);
    GpuCommands commands = PENSTOCK_TRY(compute_->begin());
    commands.copy(from, offset, staging_, 0, part);
    PENSTOCK_TRY(compute_->finish(commands));
    std::memcpy(bytes.data(), staging_.host_bytes().data(), part);
    bytes = bytes.subspan(part);
    offset += part;
  }
  return {};
}

}  // namespace penstock
