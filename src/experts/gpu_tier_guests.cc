// Experts that a device computes for one call: from RAM, where they lie, to places that are free again
// afterwards, or to slots that they stay in.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "experts/gpu_tier.h"
#include "gpu/gpu_clock.h"

namespace penstock {
namespace {

// A wave's copies take as long as starting them does not show; so many are on their way or computed, since the
// host looks at them only between ops of its own.
constexpr uint64_t kWaveBytes = uint64_t{24} << 20;
constexpr int kWaveMost = 16, kWaves = 4;

// Their places are memory that slots do not get: at most one in so many.
constexpr int64_t kGuestsShare = 8;

int wave_of(uint64_t slot_bytes) {
  return static_cast<int>(std::clamp<uint64_t>(kWaveBytes / slot_bytes, 1, kWaveMost));
}

// Of the time of a wave, the weight of the latest; and what is left of it each time that it was too long, so that
// another one shows whether it still is.
constexpr double kNew = 0.25, kForgetting = 0.99;

}  // namespace

int GpuTier::guest_places(int64_t places, uint64_t slot_bytes) const {
  const bool are_wanted = options_.takes_guests && options_.prompts != SideRule::kProcessors &&
                          limits_.tokens > options_.few_tokens;
  if (!are_wanted || gpu_.device->facts().import_alignment == 0) return 0;
  const int wanted = kWaves * wave_of(slot_bytes);
  return places / kGuestsShare >= wanted ? wanted : 0;
}

void GpuTier::reach_slots() {
  if (is_lost_) return blocks_.give_up();
  if (slots_->num_guests() == 0) return;
  const ExpertStore::SlotMemory memory = store_.slot_memory();
  blocks_.follow({.begin = memory.bytes.data(),
                  .slot_bytes = memory.bytes.size() / static_cast<uint64_t>(memory.num_slots_max),
                  .count = store_.num_slots(),
                  .count_max = memory.num_slots_max,
                  .generation = memory.times_given_back});
  if (options_.waits_for_blocks) blocks_.wait();
}

bool GpuTier::could_take_guests() {
  reach_slots();
  return !is_lost_ && is_long() && layer().is_computed && !blocks_.is_empty();
}

bool GpuTier::may_be_guest(const Guest& guest) {
  const auto index = static_cast<size_t>(guest.index);
  if (is_lost_ || std::ssize(rows_of_->tokens(index)) > experts_->rows_beside()) return false;
  for (size_t part = 0; part < guest.parts.size(); ++part) {
    if (!blocks_.find({guest.parts[part], static_cast<size_t>(layer().bytes[part])})) return false;
  }
  return may_go_there(rows_of_->experts()[index], guest.parts);
}

// A slot to stay in where there is one, else a place.
std::optional<int> GpuTier::place_for_guest(int expert) {
  ExpertCache& cache = slots_->cache();
  const bool may_stay = promotions_left_ != 0 && !cache.find(layer_, expert) &&
                        (cache.num_free() > 0 || makes_room_for(expert));
  if (may_stay) {
    if (const auto slot = cache.claim(layer_, expert)) {
      --promotions_left_;
      ++report_.promotions;
      return slot;
    }
  }
  if (free_places_.empty()) return std::nullopt;
  const int place = free_places_.back();
  free_places_.pop_back();
  return place;
}

void GpuTier::add_pieces(int place, const Guest& guest) {
  for (size_t part = 0; part < guest.parts.size(); ++part) {
    const auto bytes = static_cast<size_t>(layer().bytes[part]);
    brought_.push_back({.place = place,
                        .offset = layer().parts[part].offset,
                        .from = *blocks_.find({guest.parts[part], bytes}),
                        .bytes = bytes});
  }
}

size_t GpuTier::take_guests(std::span<const Guest> ready, double seconds) {
  const auto waves = std::ssize(guests_);
  if (is_lost_ || waves == kWaves || ready.empty()) return 0;
  if (static_cast<double>(waves + 1) * wave_s_ > seconds) {
    wave_s_ *= kForgetting;
    return 0;
  }
  if (waves == 0) {
    free_places_.clear();
    for (int i = slots_->num_guests(); i-- > 0;) free_places_.push_back(slots_->first_guest() + i);
  }
  GuestWave wave;
  wave.begun_s = now_in_seconds();
  brought_.clear();
  for (size_t i = ready.size(); i-- > 0 && std::ssize(wave.who) < slots_->num_guests() / kWaves;) {
    const Guest& guest = ready[i];
    const auto index = static_cast<size_t>(guest.index);
    const int64_t rows = std::ssize(rows_of_->tokens(index));
    if (wave.rows + rows > experts_->rows_beside()) break;
    const auto place = place_for_guest(rows_of_->experts()[index]);
    if (!place) break;
    add_pieces(*place, guest);
    wave.who.push_back(guest.index);
    wave.works.push_back(work_for(*place, *rows_of_, index));
    wave.places.push_back(*place);
    wave.rows += rows;
  }
  if (wave.who.empty()) return 0;
  const size_t taken = wave.who.size();
  const Result<Fence> copied = slots_->bring(brought_);
  if (copied) {
    wave.copied = *copied;
    report_.guests += taken;
    for (const GpuSlots::Brought& part : brought_) report_.bytes_copied += part.bytes;
  } else {
    lose(copied.error());
  }
  guests_.push_back(std::move(wave));
  return taken;
}

// Whether the wave has come. Those that stay are then where the next call finds them.
Result<bool> GpuTier::take_in(const GuestWave& wave) {
  if (!PENSTOCK_TRY(gpu_.device->transfer().has_passed(wave.copied))) return false;
  for (size_t i = 0; i < wave.places.size(); ++i) {
    const int place = wave.places[i];
    if (place >= slots_->first_guest()) continue;
    slots_->cache().finish(place);
    slots_->cache().pin(place);
    pinned_.push_back(place);
    const int expert = rows_of_->experts()[static_cast<size_t>(wave.who[i])];
    store_.set_spare({layer_, expert}, true);
  }
  return true;
}

// Those that have come are computed, as far as there is room beside what is under way.
Result<void> GpuTier::begin_guests() {
  for (GuestWave& wave : guests_) {
    if (wave.is_computed) continue;
    if (!experts_->has_room(wave.rows) || !PENSTOCK_TRY(take_in(wave))) break;
    PENSTOCK_TRY(take_x());
    PENSTOCK_TRY(experts_->begin(wave.works));
    is_of_guests_.push_back(true);
    wave.is_computed = true;
  }
  return {};
}

Result<void> GpuTier::end_oldest(Rows out, std::vector<int32_t>& ended) {
  PENSTOCK_TRY(experts_->finish(out));
  const double now_s = now_in_seconds(), before_s = std::exchange(last_end_s_, now_s);
  const bool is_of_guests = is_of_guests_.front();
  is_of_guests_.pop_front();
  if (!is_of_guests) return {};
  const GuestWave& wave = guests_.front();
  ended.insert(ended.end(), wave.who.begin(), wave.who.end());
  for (const int place : wave.places) {
    if (place >= slots_->first_guest()) free_places_.push_back(place);
  }
  const double took_s = now_s - std::max(wave.begun_s, before_s);
  wave_s_ += (wave_s_ > 0 ? kNew : 1) * (took_s - wave_s_);
  guests_.pop_front();
  return {};
}

bool GpuTier::keep_going(Rows out, bool waits, std::vector<int32_t>& ended) {
  const auto go_on = [&]() -> Result<void> {
    PENSTOCK_TRY(begin_waves());
    for (;;) {
      while (experts_->under_way() > 0 && PENSTOCK_TRY(experts_->has_ended())) {
        PENSTOCK_TRY(end_oldest(out, ended));
        PENSTOCK_TRY(begin_waves());
      }
      if (!waits || !ended.empty() || guests_.empty()) return {};
      if (experts_->under_way() > 0) {
        PENSTOCK_TRY(end_oldest(out, ended));
      } else {
        PENSTOCK_TRY(gpu_.device->transfer().wait(guests_.front().copied));
      }
      PENSTOCK_TRY(begin_waves());
    }
  };
  if (is_lost_) return false;
  const Result<void> done = go_on();
  if (!done) lose(done.error());
  return !is_lost_;
}

}  // namespace penstock
