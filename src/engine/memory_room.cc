#include "engine/memory_room.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "base/byte_text.h"
#include "base/memory.h"

namespace penstock {
namespace {

constexpr uint64_t kMargin = 8ull << 20;
constexpr uint64_t kStepMin = 1ull << 20;

uint64_t above(uint64_t all, uint64_t part) {
  return all > part ? all - part : 0;
}

// Pages that hold nothing, one after the other.
class Ballast {
 public:
  explicit Ballast(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  bool hold(uint64_t bytes) {
    if (held_ == 0) {
      Result<AlignedMemory> memory = AlignedMemory::create(bytes_max_, "what the engine needs");
      if (!memory) return false;
      memory_ = std::move(*memory);
    }
    if (!memory_.take_again(held_, bytes)) return false;
    held_ = bytes;
    return true;
  }

 private:
  const uint64_t bytes_max_;
  AlignedMemory memory_;
  uint64_t held_ = 0;
};

std::string shortage(uint64_t bytes, const MemoryAvailability& reading) {
  return fmt::format("{} more are needed, and {} are left ({})", format_bytes(bytes),
                     format_bytes(reading.available_bytes), reading.binding);
}

}  // namespace

Result<void> make_room(uint64_t bytes, const RoomOptions& options) {
  Ballast ballast(bytes);
  auto hold = options.hold;
  if (!hold) hold = [&](uint64_t wanted) { return ballast.hold(wanted); };
  constexpr int kLooksForTheMargin = 50;
  constexpr int kLooksBeforeTold = 25;
  uint64_t held = 0;
  bool is_told = false;
  for (int looks = 0;; ++looks) {
    const Result<MemoryAvailability> reading = options.probe();
    if (!reading) return {};  // nobody can tell: as if there were room
    const uint64_t missing = bytes - held;
    const uint64_t left = reading->available_bytes;
    const bool fits = missing <= left;
    if (above(left, kMargin) >= missing || (fits && looks >= kLooksForTheMargin)) return {};
    // Half of it at a time: a program that starts meanwhile takes some, too.
    const uint64_t step = std::min(missing, above(left, kMargin) / 2);
    if (step >= kStepMin && hold(held + step)) {
      held += step;
      looks = 0;
      continue;
    }
    if (looks >= options.looks_max) {
      if (!reading->is_hard_limit) return {};
      return Error{ErrorCode::kOutOfMemory,
                   fmt::format("there is no room for this engine: {}; other programs use the rest. "
                               "End one of them, or raise that limit",
                               shortage(missing, *reading))};
    }
    if (looks == kLooksBeforeTold && !fits && !is_told && options.tell) {
      is_told = true;
      options.tell("waiting for other programs to give memory back: " +
                   shortage(missing, *reading));
    }
    std::this_thread::sleep_for(options.between_looks);
  }
}

uint64_t not_yet_in_use(uint64_t planned_bytes) {
  return above(planned_bytes, resident_bytes());
}

RoomForSlots::RoomForSlots(const ExpertSlots& slots, uint64_t planned_bytes,
                           const MemoryWatchOptions& watch)
    : limits_(slots.limits()), planned_bytes_(planned_bytes), watch_(watch) {
  if (!watch_.is_on) return;
  const Result<MemoryReading> reading = watch_.probe();
  can_look_ = reading.has_value();
  if (!can_look_) return;
  const int now = slots.num_slots();
  const uint64_t wanted = promised_bytes(now) + missing_bytes(now);
  reserve_ = memory_reserve(above(reading->available_bytes, wanted), reading->limit_bytes);
}

uint64_t RoomForSlots::missing_bytes(int num_slots) const {
  return static_cast<uint64_t>(limits_.full - num_slots) * limits_.slot_bytes;
}

uint64_t RoomForSlots::promised_bytes(int num_slots) const {
  return not_yet_in_use(above(planned_bytes_, missing_bytes(num_slots)));
}

std::optional<int> RoomForSlots::next(int num_slots) {
  constexpr uint64_t kPieces = 32;
  if (num_slots >= limits_.full) return std::nullopt;
  const uint64_t missing = missing_bytes(num_slots);
  uint64_t piece = missing;
  const Result<MemoryReading> reading =
      can_look_ ? watch_.probe() : Error{ErrorCode::kNotFound, "not asked"};
  can_look_ = reading.has_value();
  if (reading) {
    const uint64_t kept = reserve_ + promised_bytes(num_slots);
    const auto spare = [&](uint64_t wanted) { return above(reading->available_bytes, wanted); };
    piece = std::max(reserve_ / 8, spare(kept + missing) / kPieces);
    if (spare(kept) < std::min(piece, missing)) return std::nullopt;
  }
  const auto more = static_cast<int64_t>(piece / limits_.slot_bytes) + 1;
  return static_cast<int>(std::min<int64_t>(limits_.full, num_slots + more));
}

void add_slots(ExpertSlots& slots, uint64_t planned_bytes, const MemoryWatchOptions& watch) {
  RoomForSlots room(slots, planned_bytes, watch);
  while (const std::optional<int> wanted = room.next(slots.num_slots())) {
    const int before = slots.num_slots();
    if (slots.resize(*wanted) == before) break;
  }
  slots.reset_stats();  // of stores that have done nothing yet
}

}  // namespace penstock
