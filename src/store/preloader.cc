#include "store/preloader.h"

#include <algorithm>

namespace penstock {

void Preloader::set_list(std::vector<ExpertId> experts) {
  list_ = std::move(experts);
  std::erase_if(list_, [this](ExpertId id) {
    return slots_.cache().find(id.layer, id.expert).has_value() ||
           slots_.filler().num_reads(id.layer) > slots_.filler().reader().capacity();
  });
  list_.resize(std::min(list_.size(), static_cast<size_t>(slots_.cache().num_free())));
  next_ = 0;
  report_ = {.wanted = list_.size(), .experts = 0, .failed = 0, .failure = {}};
}

void Preloader::start() {
  const Reader& reader = slots_.filler().reader();
  int room = reader.capacity() - reader.in_flight();
  for (; next_ < list_.size(); ++next_) {
    const ExpertId id = list_[next_];
    if (slots_.cache().find(id.layer, id.expert)) continue;  // somebody asked for it meanwhile
    const int num_reads = slots_.filler().num_reads(id.layer);
    if (room < num_reads) break;
    const auto slot = slots_.acquire(id, Purpose::kPreload);
    if (!slot) break;
    slots_.enqueue_all(*slot);
    reading_.push_back(*slot);
    room -= num_reads;
  }
  slots_.submit();
}

void Preloader::count_ended() {
  std::erase_if(reading_, [this](int slot) {
    const SlotFiller& filler = slots_.filler();
    if (filler.is_reading(slot)) return false;
    if (filler.is_complete(slot)) {
      ++report_.experts;
    } else if (const auto error = filler.failure_of(slot)) {
      if (report_.failed++ == 0) report_.failure = error->message;
    }
    return true;
  });
}

}  // namespace penstock
