#include "gpu/gpu_states.h"

#include <algorithm>

#include "base/check.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
int64_t GpuStatesShape::memory_at() const {
  return static_cast<int64_t>(gpu_aligned(gpu_float_bytes(history_floats)) / sizeof(float));
}

uint64_t GpuStatesShape::slot_bytes() const {
  return gpu_aligned(gpu_float_bytes(memory_at() + memory_floats));
}

bool GpuStatesShape::meets(const DeltaNetState& state, const float* begin, int64_t floats) const {
  const auto overlap = [&](const float* data, int64_t count) {
    return data != nullptr && data < begin + floats && begin < data + count;
  };
  return overlap(state.memory, memory_floats) || overlap(state.conv_history, history_floats);
}

GpuStates::Bytes GpuStates::bytes_for(const GpuStatesShape& shape) {
  const auto slots = static_cast<uint64_t>(shape.slots);
  return {.on_device =
              static_cast<uint64_t>(shape.layers) * (slots * shape.slot_bytes() + kGpuRounding),
          .on_host = slots * shape.slot_bytes() + kGpuRounding};
}

GpuStates::GpuStates(GpuDevice& device, const GpuStatesShape& shape, HostRows host)
    : device_(&device),
      shape_(shape),
      host_(host),
      slot_bytes_(shape.slot_bytes()),
      slots_(static_cast<size_t>(shape.layers * shape.slots)) {}

Result<GpuStates> GpuStates::create(GpuDevice& device, const GpuStatesShape& shape, HostRows host) {
  PENSTOCK_CHECK(shape.layers > 0 && shape.slots >= 2 && shape.memory_floats > 0);
  GpuStates states(device, shape, host);
  const auto take = [&](int64_t slots, GpuMemoryKind kind) {
    return device.allocate(static_cast<uint64_t>(slots) * states.slot_bytes_, kind,
                           "delta-net states");
  };
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    states.of_layers_.push_back(PENSTOCK_TRY(take(shape.slots, GpuMemoryKind::kDevice)));
  }
  states.staging_ = PENSTOCK_TRY(take(shape.slots, GpuMemoryKind::kShared));
  return states;
}

std::span<GpuStates::Slot> GpuStates::slots_of(int64_t layer) {
  return std::span(slots_).subspan(static_cast<size_t>(layer * shape_.slots),
                                   static_cast<size_t>(shape_.slots));
}

void GpuStates::begin(int64_t layer) {
  PENSTOCK_CHECK(layer >= 0 && layer < shape_.layers);
  layer_ = layer;
  began_ = clock_;
  num_going_ = 0;
}

std::optional<int64_t> GpuStates::find(int64_t layer, const DeltaNetState& state) {
  const std::span<Slot> slots = slots_of(layer);
  const auto found = std::ranges::find_if(
      slots, [&](const Slot& slot) { return slot.host.memory == state.memory; });
  if (found == slots.end()) return std::nullopt;
  found->last_used = ++clock_;
  return found - slots.begin();
}

int64_t GpuStates::take(const DeltaNetState& state) {
  Slot* oldest = nullptr;
  const std::span<Slot> slots = slots_of(layer_);
  for (Slot& slot : slots) {
    const bool is_needed = slot.is_ahead || slot.last_used > began_;
    if (!is_needed && (oldest == nullptr || slot.last_used < oldest->last_used)) oldest = &slot;
  }
  PENSTOCK_CHECK(oldest != nullptr);
  *oldest = {.host = state, .last_used = ++clock_};
  return oldest - slots.data();
}

// Between the host's state and staging memory, where it lies as in a slot.
void GpuStates::move(const DeltaNetState& state, std::byte* staging, bool is_inbound) const {
  const auto move_part = [&](float* here, std::byte* there, int64_t floats) {
    auto* const bytes = reinterpret_cast<std::byte*>(here);
    const auto count = static_cast<size_t>(gpu_float_bytes(floats));
    if (is_inbound) {
      host_.copy({there, count}, bytes);
    } else {
      host_.copy({bytes, count}, there);
    }
  };
  move_part(state.conv_history, staging, shape_.history_floats);
  move_part(state.memory, staging + gpu_float_bytes(shape_.memory_at()), shape_.memory_floats);
}

uint64_t GpuStates::read(GpuCommands& commands, const DeltaNetState& state) {
  const GpuBuffer& there = of_layers_[static_cast<size_t>(layer_)];
  if (const std::optional<int64_t> found = find(layer_, state)) {
    return there.address() + offset_of(*found);
  }
  const uint64_t at = offset_of(take(state)), from = offset_of(num_going_++);
  move(state, staging_.host_bytes().data() + from, false);
  commands.copy(staging_, from, there, at, slot_bytes_);
  return there.address() + at;
}

uint64_t GpuStates::write(const DeltaNetState& state) {
  const std::optional<int64_t> found = find(layer_, state);
  const int64_t slot = found ? *found : take(state);
  slots_of(layer_)[static_cast<size_t>(slot)].is_ahead = true;
  return of_layers_[static_cast<size_t>(layer_)].address() + offset_of(slot);
}

Result<void> GpuStates::bring_back(int64_t layer, std::span<const DeltaNetState> states) {
  PENSTOCK_CHECK(std::ssize(states) <= shape_.slots);
  GpuQueue& queue = device_->transfer();
  GpuCommands commands = PENSTOCK_TRY(queue.begin());
  for (size_t i = 0; i < states.size(); ++i) {
    const std::optional<int64_t> slot = find(layer, states[i]);
    PENSTOCK_CHECK(slot.has_value());
    commands.copy(of_layers_[static_cast<size_t>(layer)], offset_of(*slot), staging_,
                  offset_of(static_cast<int64_t>(i)), slot_bytes_);
  }
  PENSTOCK_TRY(queue.finish(commands));
  for (size_t i = 0; i < states.size(); ++i) {
    move(states[i], staging_.host_bytes().data() + offset_of(static_cast<int64_t>(i)), true);
    slots_of(layer)[static_cast<size_t>(*find(layer, states[i]))].is_ahead = false;
  }
  return {};
}

void GpuStates::forget_all() {
  std::ranges::fill(slots_, Slot());
}

void GpuStates::forget(const float* begin, int64_t floats) {
  for (Slot& slot : slots_) {
    if (!shape_.meets(slot.host, begin, floats)) continue;
    PENSTOCK_CHECK(!slot.is_ahead);
    slot = {};
  }
}

}  // namespace penstock
