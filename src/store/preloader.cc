#include "store/preloader.h"

#include <algorithm>

namespace penstock {

void Preloader::set_list(std::vector<ExpertId> experts) {
  list_ = std::move(experts);
  std::erase_if(list_,
                [this](ExpertId id) { return cache_.find(id.layer, id.expert).has_value(); });
  list_.resize(std::min(list_.size(), static_cast<size_t>(cache_.num_free())));
  next_ = 0;
  report_ = {.wanted = list_.size(), .experts = 0, .failed = 0, .failure = {}};
}

void Preloader::start(std::vector<int>& taken) {
  const int num_parts = filler_.table().num_parts();
  int room = filler_.reader().capacity() - filler_.reader().in_flight();
  for (; next_ < list_.size() && room >= num_parts && cache_.num_free() > 0; ++next_) {
    const ExpertId id = list_[next_];
    if (cache_.find(id.layer, id.expert)) continue;  // somebody asked for it meanwhile
    const int slot = *cache_.claim(id.layer, id.expert);
    filler_.begin(slot, id.layer, id.expert);
    for (int part = 0; part < num_parts; ++part) filler_.enqueue(slot, part);
    reading_.push_back(slot);
    taken.push_back(slot);
    room -= num_parts;
  }
  filler_.submit();
}

void Preloader::count_ended() {
  std::erase_if(reading_, [this](int slot) {
    if (filler_.is_reading(slot)) return false;
    if (filler_.is_complete(slot)) {
      ++report_.experts;
    } else if (const auto error = filler_.failure_of(slot)) {
      if (report_.failed++ == 0) report_.failure = error->message;
    }
    return true;
  });
}

bool Preloader::is_reading(int slot) const {
  return std::ranges::find(reading_, slot) != reading_.end();
}

}  // namespace penstock
