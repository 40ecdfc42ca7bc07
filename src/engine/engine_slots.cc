// An engine's slots while it lives: how they come, and how many there are when others need the memory.
#include <fmt/format.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/gpu_setup.h"
#include "engine/memory_room.h"
#include "host/memory_turn.h"

namespace penstock {

// The turn ends when all that was planned is here.
void Engine::take_slots(const EngineOptions& options, std::optional<MemoryTurn> turn) {
  ExpertSlots& slots = *slots_;
  const SlotLimits limits = slots.limits();
  slots.resize(1);  // none is present yet; those that are added become so
  slots.resize(std::max(1, std::min(limits.full, limits.floor)));
  const auto watch = [&] {
    memory_watch_.emplace(options.memory_watch, limits, plan_.total_bytes, resident_bytes());
  };
  const uint64_t bytes = static_cast<uint64_t>(limits.full) * limits.slot_bytes;
  if (slots.may_come_later() && slots.num_slots() < limits.full &&
      bytes >= options.slots_come_later_from) {
    watch();
    slots.reset_stats();
    arrivals_.emplace(slots, plan_.total_bytes, options.memory_watch, std::move(turn));
    return;
  }
  add_slots(slots, plan_.total_bytes, options.memory_watch);
  watch();
  look_for_missing_slots();
  const std::string news = take_news();
  if (options.tell && !news.empty()) options.tell(news);
}

void Engine::look_for_missing_slots() {
  const int full = slots_->limits().full;
  if (slots_->num_slots() == full) return;
  news_ = fmt::format(
      "memory is short: {} of {} slots of experts for now; the others follow when there is room",
      slots_->num_slots(), full);
}

void Engine::wait_for_slots() {
  if (arrivals_) arrivals_->wait();
  watch_memory();
}

void Engine::watch_memory() {
  // While they come the memory is looked at there.
  if (arrivals_ && arrivals_->take()) return;
  if (arrivals_) {
    arrivals_.reset();
    memory_watch_->begin_quiet(MemoryWatch::Clock::now());
    look_for_missing_slots();
  }
  if (!memory_watch_->is_on()) return;
  // Several engines see the same room: the one whose turn it is takes it, another looks again later.
  const bool may_grow = slots_->num_slots() < slots_->limits().full;
  const auto turn = may_grow ? MemoryTurn::take(std::chrono::nanoseconds(0)) : std::nullopt;
  const auto slots = memory_watch_->look(slots_->num_slots(), MemoryWatch::Clock::now());
  if (!slots || (!turn && *slots >= slots_->num_slots())) return;
  // What a device reaches is not free before it lets go.
  if (gpu_ && *slots < slots_->num_slots()) gpu_->let_go_of_slots(slots_->of_model(*slots));
  slots_->resize(*slots);
  if (gpu_) gpu_->reach_slots();
}

}  // namespace penstock
