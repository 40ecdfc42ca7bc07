#include "engine/expert_slots.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {

ExpertSlots::ExpertSlots(const PlanRequest& request, const MemoryPlan& plan, ExpertStore& model,
                         ExpertStore* copy) {
  parts_.push_back({&model,
                    {.floor = static_cast<int>(plan.floor_slots),
                     .full = static_cast<int>(plan.num_slots),
                     .slot_bytes = request.record_bytes}});
  if (copy == nullptr) return;
  parts_.push_back({copy,
                    {.floor = static_cast<int>(plan.copy_floor_slots),
                     .full = static_cast<int>(plan.copy_slots),
                     .slot_bytes = request.copy.record_bytes}});
}

int ExpertSlots::num_slots() const {
  int sum = 0;
  for (const Part& part : parts_) sum += part.store->num_slots();
  return sum;
}

SlotLimits ExpertSlots::limits() const {
  SlotLimits all;
  uint64_t bytes = 0;
  for (const Part& part : parts_) {
    all.floor += part.limits.floor;
    all.full += part.limits.full;
    bytes += static_cast<uint64_t>(part.limits.full) * part.limits.slot_bytes;
  }
  const auto full = static_cast<uint64_t>(all.full);
  all.slot_bytes = (bytes + full - 1) / full;
  return all;
}

int ExpertSlots::of_model(int num_slots) const {
  if (parts_.size() == 1) return num_slots;
  const SlotLimits &model = parts_[0].limits, &copy = parts_[1].limits;
  const int64_t all = model.full + copy.full;
  const auto share = static_cast<int>(int64_t{num_slots} * model.full / all);
  const bool has_floors = num_slots >= model.floor + copy.floor;
  const int model_least = std::max(has_floors ? model.floor : 1, num_slots - copy.full);
  const int copy_least = has_floors ? copy.floor : 1;
  return std::max(model_least, std::min({share, model.full, num_slots - copy_least}));
}

int ExpertSlots::resize(int num_slots) {
  if (parts_.size() == 1) return parts_[0].store->resize(num_slots);
  const int wanted = std::max(num_slots, 2);
  const int share = of_model(wanted);
  parts_[0].store->resize(share);
  parts_[1].store->resize(wanted - share);
  return this->num_slots();
}

Result<void> ExpertSlots::make_present(int begin, int end) {
  PENSTOCK_CHECK(may_come_later());
  return parts_[0].store->make_present(begin, end);
}

void ExpertSlots::add_present(int num_slots) {
  PENSTOCK_CHECK(may_come_later());
  parts_[0].store->add_present(num_slots);
}

ExpertSlots::GivenBack ExpertSlots::given_back() const {
  GivenBack sum;
  for (const Part& part : parts_) {
    const uint64_t slots = part.store->stats().slots_given_back;
    sum.slots += slots;
    sum.bytes += slots * part.limits.slot_bytes;
  }
  return sum;
}

void ExpertSlots::reset_stats() {
  for (const Part& part : parts_) part.store->reset_stats();
}

}  // namespace penstock
