#include "model/state.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace penstock {
StateMark& StateMark::operator=(StateMark&& other) noexcept {
  if (this == &other) return *this;
  clear();
  memory_ = std::exchange(other.memory_, nullptr);
  length_ = std::exchange(other.length_, 0);
  pages_ = std::exchange(other.pages_, {});
  set_ = std::exchange(other.set_, -1);
  return *this;
}

int64_t StateMark::positions_in(size_t page) const {
  return std::min(length_ - static_cast<int64_t>(page) * kKvPagePositions, kKvPagePositions);
}

void StateMark::clear() {
  if (memory_ == nullptr) return;
  for (size_t i = 0; i < pages_.size(); ++i) memory_->unmark_page(pages_[i], positions_in(i));
  memory_->drop_set(set_);
  memory_ = nullptr;
  pages_.clear();
  length_ = 0;
  set_ = -1;
}

SequenceState& SequenceState::operator=(SequenceState&& other) noexcept {
  if (this == &other) return *this;
  reset();
  memory_ = other.memory_;
  length_ = std::exchange(other.length_, 0);
  pages_ = std::exchange(other.pages_, {});
  page_data_ = std::exchange(other.page_data_, {});
  set_ = std::exchange(other.set_, -1);
  next_ = std::exchange(other.next_, -1);
  trial_ = std::exchange(other.trial_, -1);
  rows_ = std::exchange(other.rows_, 0);
  is_in_pass_ = std::exchange(other.is_in_pass_, false);
  is_on_trial_ = std::exchange(other.is_on_trial_, false);
  has_trial_ = std::exchange(other.has_trial_, false);
  return *this;
}

SequenceState::Needs SequenceState::needs(int64_t rows, bool on_trial) const {
  Needs needs;
  const auto held = static_cast<int64_t>(pages_.size());
  needs.pages = static_cast<int>(std::max<int64_t>(0, pages_for(length_ + rows) - held));
  const int64_t within = length_ % kKvPagePositions;
  if (within != 0) {
    const auto tail = static_cast<size_t>(length_ / kKvPagePositions);
    if (!memory_->may_write(pages_[tail], within)) ++needs.pages;
  }
  needs.sets = (set_ < 0 ? 1 : 0) + 1 + (on_trial ? 1 : 0);
  return needs;
}

void SequenceState::begin(int64_t rows, bool on_trial) {
  PENSTOCK_CHECK(!is_in_pass_ && !has_trial_ && rows >= 1);
  PENSTOCK_CHECK(length_ + rows <= context());
  PENSTOCK_CHECK(!on_trial || (drafts() && rows >= 2));
  if (set_ < 0) {
    set_ = memory_->take_set();
    memory_->clear_set(set_);
  }
  const int64_t within = length_ % kKvPagePositions;
  if (within != 0) {
    const auto tail = static_cast<size_t>(length_ / kKvPagePositions);
    if (!memory_->may_write(pages_[tail], within)) {
      const int own = memory_->take_page();
      memory_->copy_page(pages_[tail], own);
      memory_->drop_page(pages_[tail]);
      pages_[tail] = own;
      page_data_[tail] = memory_->page_data(own);
    }
  }
  while (std::ssize(pages_) < pages_for(length_ + rows)) {
    pages_.push_back(memory_->take_page());
    page_data_.push_back(memory_->page_data(pages_.back()));
  }
  next_ = memory_->take_set();
  if (on_trial) trial_ = memory_->take_set();
  rows_ = rows;
  is_in_pass_ = true;
  is_on_trial_ = on_trial;
}

void SequenceState::commit() {
  PENSTOCK_CHECK(is_in_pass_);
  memory_->drop_set(set_);
  set_ = std::exchange(next_, -1);
  length_ += rows_;
  has_trial_ = is_on_trial_;
  is_in_pass_ = is_on_trial_ = false;
  rows_ = 0;
}

void SequenceState::abandon() {
  PENSTOCK_CHECK(is_in_pass_);
  memory_->drop_set(std::exchange(next_, -1));
  if (trial_ >= 0) memory_->drop_set(std::exchange(trial_, -1));
  is_in_pass_ = is_on_trial_ = false;
  rows_ = 0;
}

DeltaNetState SequenceState::ahead(int64_t layer) const {
  return is_on_trial_ ? memory_->delta_net(layer, trial_) : DeltaNetState{};
}

void SequenceState::keep_trial() {
  PENSTOCK_CHECK(has_trial_);
  memory_->drop_set(set_);
  set_ = std::exchange(trial_, -1);
  has_trial_ = false;
}

void SequenceState::drop_trial() {
  PENSTOCK_CHECK(has_trial_);
  memory_->drop_set(std::exchange(trial_, -1));
  --length_;
  has_trial_ = false;
}

void SequenceState::drop_sets() {
  for (int* set : {&set_, &next_, &trial_}) {
    if (*set >= 0) memory_->drop_set(std::exchange(*set, -1));
  }
}

void SequenceState::reset() {
  for (const int page : pages_) memory_->drop_page(page);
  pages_.clear();
  page_data_.clear();
  drop_sets();
  length_ = rows_ = 0;
  is_in_pass_ = is_on_trial_ = has_trial_ = false;
}

void SequenceState::take(int64_t length) {
  PENSTOCK_CHECK(length >= 1 && length <= context());
  reset();
  while (std::ssize(pages_) < pages_for(length)) {
    pages_.push_back(memory_->take_page());
    page_data_.push_back(memory_->page_data(pages_.back()));
  }
  set_ = memory_->take_set();
  length_ = length;
}

void SequenceState::truncate(int64_t length) {
  PENSTOCK_CHECK(!memory_->has_recurrent_state() && !drafts());
  PENSTOCK_CHECK(length >= 0 && length <= length_ && !is_in_pass_);
  while (std::ssize(pages_) > pages_for(length)) {
    memory_->drop_page(pages_.back());
    pages_.pop_back();
    page_data_.pop_back();
  }
  length_ = length;
}

StateMark SequenceState::mark() const {
  PENSTOCK_CHECK(length_ >= 1 && !has_trial_ && !is_in_pass_);
  StateMark mark;
  mark.memory_ = memory_;
  mark.length_ = length_;
  mark.pages_.assign(pages_.begin(), pages_.begin() + pages_for(length_));
  mark.set_ = set_;
  for (size_t i = 0; i < mark.pages_.size(); ++i) {
    memory_->mark_page(mark.pages_[i], mark.positions_in(i));
  }
  memory_->hold_set(set_);
  return mark;
}

void SequenceState::restore(const StateMark& mark) {
  PENSTOCK_CHECK(mark.memory_ == memory_);
  reset();
  pages_ = mark.pages_;
  for (const int page : pages_) {
    memory_->hold_page(page);
    page_data_.push_back(memory_->page_data(page));
  }
  set_ = mark.set_;
  memory_->hold_set(set_);
  length_ = mark.length_;
}

}  // namespace penstock
