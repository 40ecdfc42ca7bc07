#include "gpu/gpu_buffer.h"

#include <utility>

#include "base/check.h"
#include "gpu/gpu_device.h"

namespace penstock {

GpuBuffer::~GpuBuffer() {
  if (device_ != nullptr) device_->give_back(*this);
}

GpuBuffer::GpuBuffer(GpuBuffer&& other) noexcept {
  *this = std::move(other);
}

GpuBuffer& GpuBuffer::operator=(GpuBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(buffer_, other.buffer_);
  std::swap(memory_, other.memory_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  std::swap(is_imported_, other.is_imported_);
  return *this;
}

std::span<std::byte> GpuBuffer::host_bytes() const {
  PENSTOCK_CHECK(mapped_ != nullptr);
  return {mapped_, static_cast<size_t>(bytes_)};
}

}  // namespace penstock
