#include "engine/memory_watch.h"

#include <algorithm>

#include "host/memory_limits.h"

namespace penstock {
namespace {

constexpr uint64_t kReserveMin = 16ull << 20;
constexpr uint64_t kReserveOrdinary = 128ull << 20;
constexpr double kStalled = 0.05;
constexpr int kGrowthSteps = 16;

uint64_t reserve_now(const MemoryReading& reading, uint64_t reserve_bytes) {
  return reading.stalled_share > kStalled ? 2 * reserve_bytes : reserve_bytes;
}

}  // namespace

Result<MemoryReading> read_memory() {
  const MemoryAvailability memory = PENSTOCK_TRY(memory_available());
  return MemoryReading{memory.available_bytes, memory.limit_bytes, memory_stall_share()};
}

uint64_t memory_reserve(uint64_t spare_bytes, uint64_t limit_bytes) {
  return std::clamp(spare_bytes / 2, kReserveMin, std::max(kReserveOrdinary, limit_bytes / 100));
}

int slots_wanted(const MemoryReading& reading, uint64_t reserve_bytes, const SlotLimits& limits,
                 int slots_now, bool is_quiet) {
  const uint64_t reserve = reserve_now(reading, reserve_bytes);
  const uint64_t enough = reserve + reserve / 2;
  const auto slots_now_wide = static_cast<int64_t>(slots_now);
  if (reading.available_bytes < reserve) {
    const uint64_t shortage = enough - reading.available_bytes;
    const auto slots = static_cast<int64_t>((shortage + limits.slot_bytes - 1) / limits.slot_bytes);
    return static_cast<int>(
        std::max<int64_t>(std::min(limits.floor, slots_now), slots_now_wide - slots));
  }
  if (!is_quiet || reading.available_bytes <= enough) return slots_now;
  const uint64_t room = (reading.available_bytes - enough) / limits.slot_bytes;
  const int step = std::max(1, limits.full / kGrowthSteps);
  const int more = static_cast<int>(std::min<uint64_t>(room, static_cast<uint64_t>(step)));
  return std::min(std::max(limits.full, slots_now), slots_now + more);
}

MemoryWatch::MemoryWatch(const MemoryWatchOptions& options, const SlotLimits& limits,
                         uint64_t planned_bytes, uint64_t resident_bytes)
    : options_(options), limits_(limits), last_look_(Clock::now()), quiet_since_(last_look_) {
  if (!options_.is_on) return;
  const Result<MemoryReading> start = options_.probe();
  options_.is_on = start.has_value();
  if (!start) return;
  const uint64_t to_come = planned_bytes > resident_bytes ? planned_bytes - resident_bytes : 0;
  const uint64_t available = start->available_bytes;
  reserve_bytes_ =
      memory_reserve(available > to_come ? available - to_come : 0, start->limit_bytes);
}

std::optional<int> MemoryWatch::look(int slots_now, Clock::time_point now) {
  if (!options_.is_on || now - last_look_ < options_.every) return std::nullopt;
  last_look_ = now;
  const Result<MemoryReading> reading = options_.probe();
  if (!reading) return std::nullopt;
  const bool is_quiet = now - quiet_since_ >= options_.quiet;
  const int wanted = slots_wanted(*reading, reserve_bytes_, limits_, slots_now, is_quiet);
  const bool is_short = reading->available_bytes < reserve_now(*reading, reserve_bytes_);
  const bool is_stalled = reading->stalled_share > kStalled;
  if (wanted != slots_now || is_short || is_stalled) quiet_since_ = now;
  if (wanted == slots_now) return std::nullopt;
  return wanted;
}

}  // namespace penstock
