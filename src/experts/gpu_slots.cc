#include "experts/gpu_slots.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

int64_t slots_per_block(uint64_t slot_bytes) {
  return static_cast<int64_t>((kGpuBlockMax - kGpuRounding) / slot_bytes);
}

// A slot that few uses are left of goes first; a copy costs too much to follow the latest use.
constexpr EvictionPolicy kPolicy = EvictionPolicy::kLfu;

}  // namespace

int64_t GpuSlots::slots_in(uint64_t bytes, uint64_t slot_bytes) {
  const int64_t in_block = slots_per_block(slot_bytes);
  if (in_block == 0) return 0;
  const auto whole = static_cast<int64_t>(bytes / kGpuBlockMax);
  const uint64_t rest = bytes % kGpuBlockMax;
  return whole * in_block +
         static_cast<int64_t>(rest > kGpuRounding ? (rest - kGpuRounding) / slot_bytes : 0);
}

GpuSlots::Bytes GpuSlots::bytes_for(const Shape& shape) {
  const int64_t in_block = slots_per_block(shape.slot_bytes);
  const int64_t places = int64_t{shape.cache.num_slots} + shape.num_guests;
  const int64_t blocks = (places + in_block - 1) / in_block;
  return {.on_device = static_cast<uint64_t>(places) * shape.slot_bytes +
                       static_cast<uint64_t>(blocks) * kGpuRounding,
          .on_host = static_cast<uint64_t>(shape.num_staging) * shape.slot_bytes + kGpuRounding};
}

GpuSlots::GpuSlots(GpuDevice& device, const Shape& shape, HostRows host)
    : device_(&device),
      shape_(shape),
      host_(host),
      cache_(shape.cache, kPolicy),
      slots_per_block_(slots_per_block(shape.slot_bytes)) {}

Result<GpuSlots> GpuSlots::create(GpuDevice& device, const Shape& shape, HostRows host) {
  PENSTOCK_CHECK(shape.slot_bytes > 0 && shape.num_staging > 0);
  GpuSlots slots(device, shape, host);
  PENSTOCK_CHECK(slots.slots_per_block_ > 0);
  slots.staging_ =
      PENSTOCK_TRY(device.allocate(static_cast<uint64_t>(shape.num_staging) * shape.slot_bytes,
                                   GpuMemoryKind::kShared, "experts on their way"));
  const int64_t places = int64_t{shape.cache.num_slots} + shape.num_guests;
  for (int64_t left = places; left > 0; left -= slots.slots_per_block_) {
    const auto count = static_cast<uint64_t>(std::min(left, slots.slots_per_block_));
    slots.blocks_.push_back(PENSTOCK_TRY(
        device.allocate(count * shape.slot_bytes, GpuMemoryKind::kDevice, "slots of experts")));
  }
  return slots;
}

uint64_t GpuSlots::address(int slot) const {
  const GpuBuffer& block = blocks_[static_cast<size_t>(slot / slots_per_block_)];
  return block.address() + static_cast<uint64_t>(slot % slots_per_block_) * shape_.slot_bytes;
}

Result<void> GpuSlots::fill(int slot, std::span<const SlotPiece> pieces) {
  PENSTOCK_CHECK(has_room() && cache_.state(slot) == SlotState::kFilling);
  const uint64_t from = static_cast<uint64_t>(next_staging_) * shape_.slot_bytes;
  next_staging_ = (next_staging_ + 1) % shape_.num_staging;
  uint64_t end = 0;
  for (const SlotPiece& piece : pieces) {
    PENSTOCK_CHECK(piece.offset + piece.bytes.size() <= shape_.slot_bytes);
    host_.copy(piece.bytes, staging_.host_bytes().data() + from + piece.offset);
    end = std::max(end, piece.offset + piece.bytes.size());
  }
  const uint64_t to = static_cast<uint64_t>(slot % slots_per_block_) * shape_.slot_bytes;
  GpuQueue& queue = device_->transfer();
  GpuCommands commands = PENSTOCK_TRY(queue.begin());
  commands.copy(staging_, from, blocks_[static_cast<size_t>(slot / slots_per_block_)], to, end);
  const Fence fence = PENSTOCK_TRY(queue.submit(commands));
  on_their_way_.push_back({.slot = slot, .fence = fence});
  return {};
}

Result<Fence> GpuSlots::bring(std::span<const Brought> list) {
  GpuQueue& queue = device_->transfer();
  GpuCommands commands = PENSTOCK_TRY(queue.begin());
  for (const Brought& part : list) {
    PENSTOCK_CHECK(part.offset + part.bytes <= shape_.slot_bytes);
    const uint64_t to = static_cast<uint64_t>(part.place % slots_per_block_) * shape_.slot_bytes;
    commands.copy(*part.from.buffer, part.from.offset,
                  blocks_[static_cast<size_t>(part.place / slots_per_block_)], to + part.offset,
                  part.bytes);
  }
  return queue.submit(commands);
}

Result<std::span<const int>> GpuSlots::settle() {
  settled_.clear();
  while (!on_their_way_.empty()) {
    const Copy& copy = on_their_way_.front();
    if (!PENSTOCK_TRY(device_->transfer().has_passed(copy.fence))) break;
    cache_.finish(copy.slot);
    settled_.push_back(copy.slot);
    on_their_way_.pop_front();
  }
  return std::span<const int>(settled_);
}

}  // namespace penstock
