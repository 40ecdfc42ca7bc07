// Experts of a call of many rows that are shared out between the processors and a tier that takes guests:
// the same bits, whoever computes which of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "experts/local_experts.h"
#include "experts/test_laid_experts.h"

namespace penstock {
namespace {

using test::Laid;
using test::LaidExperts;
using test::OddTier;
using test::OwnedRows;
using test::same_bits;
using test::Values;

// More than are computed here at a time, each with few rows.
constexpr int kManyExperts = 40;
constexpr int64_t kManyTokens = 64;

// Takes guests by a rule. It computes them when they end, from the bytes that it was shown when it took them:
// where somebody else's lie there by then, the rows are others.
class GuestTier final : public OddTier {
 public:
  explicit GuestTier(const LaidExperts& experts) : OddTier(experts) {}

  bool has(int layer, int expert) const override {
    return has_the_odd && OddTier::has(layer, expert);
  }
  void begin(Rows x) override {
    OddTier::begin(x);
    taken.clear();
    done_here.clear();
    left_ = 0;
  }
  bool takes_guests() const override { return is_willing; }

  bool may_be_guest(const Guest& guest) override {
    EXPECT_TRUE(is_willing);
    EXPECT_EQ(std::ranges::count(guest.parts, nullptr), 0);
    EXPECT_FALSE(has(layer_, expert_of(guest)));
    return !is_lost_ && (!refuses || !refuses(expert_of(guest)));
  }

  size_t take_guests(std::span<const Guest> ready, double seconds) override {
    EXPECT_GE(seconds, 0);
    EXPECT_TRUE(
        std::ranges::is_sorted(ready, {}, [&](const Guest& guest) { return rows_of(guest); }));
    for (const Guest& guest : ready) EXPECT_FALSE(refuses && refuses(expert_of(guest)));
    const size_t count = is_lost_ ? 0 : std::min(takes(ready.size()), ready.size());
    for (size_t i = 0; i < count; ++i) {
      guests_.push_back(ready[ready.size() - 1 - i]);
      taken.push_back(rows_of(guests_.back()));
    }
    num_guests += count;
    left_ = ready.size() - count;
    return count;
  }

  bool keep_going(Rows out, bool waits, std::vector<int32_t>& ended) override {
    EXPECT_TRUE(ended.empty());
    EXPECT_EQ(waits, left_ == 0) << "only once nothing is left to compute meanwhile";
    if (is_lost_) return false;
    is_lost_ = looks_before_loss >= 0 && looks_before_loss-- == 0;
    // Of those that end before it is lost the rows are there.
    size_t count = ends_late && !waits ? 0 : random_() % (guests_.size() + 1);
    if (waits && !is_lost_) count = std::max<size_t>(count, 1);
    for (; count > 0 && !guests_.empty(); --count) {
      compute(work_for(guests_.front()), out);
      ended.push_back(guests_.front().index);
      guests_.pop_front();
    }
    num_lost += is_lost_ ? guests_.size() : 0;
    return !is_lost_;
  }

  void offer(int expert, std::span<const std::byte* const> parts) override {
    OddTier::offer(expert, parts);
    const auto place = std::ranges::find(rows_->experts(), expert);
    done_here.push_back(
        rows_->tokens(static_cast<size_t>(place - rows_->experts().begin())).size());
    if (left_ > 0) --left_;
  }
  bool finish(Rows out) override {
    EXPECT_TRUE(guests_.empty() || is_lost_);
    return OddTier::finish(out);
  }
  void end() override {
    EXPECT_TRUE(guests_.empty() || is_lost_);
    guests_.clear();
    OddTier::end();
  }

  bool is_willing = true, has_the_odd = false;
  std::function<size_t(size_t)> takes = [](size_t ready) { return ready; };
  std::function<bool(int32_t)> refuses;
  bool ends_late = false;      // only when the caller waits
  int looks_before_loss = -1;  // calls of keep_going()
  size_t num_guests = 0;       // in all
  size_t num_lost = 0;         // of these, not ended

  // Of the call: rows of those that were taken and of those that were computed here, in this order.
  std::vector<size_t> taken, done_here;

 private:
  int32_t expert_of(const Guest& guest) const {
    return rows_->experts()[static_cast<size_t>(guest.index)];
  }
  size_t rows_of(const Guest& guest) const {
    return rows_->tokens(static_cast<size_t>(guest.index)).size();
  }
  ExpertWork work_for(const Guest& guest) const {
    const auto index = static_cast<size_t>(guest.index);
    const auto matrix = [&](const PartMatrix& place) {
      Matrix made = place.matrix;
      made.panels = guest.parts[static_cast<size_t>(place.part)] + place.at.codes;
      return made;
    };
    const ExpertForm& form = experts_.form_of(layer_);
    return {.gate = matrix(form.gate),
            .up = matrix(form.up),
            .down = matrix(form.down),
            .up_first_row = form.up.first_row,
            .tokens = rows_->tokens(index),
            .places = rows_->places(index)};
  }

  std::mt19937 random_{3};
  std::deque<Guest> guests_;
  size_t left_ = 0;  // of those that the caller showed last, whom nobody has
};

class SharedExperts : public testing::Test, protected LaidExperts {
 protected:
  SharedExperts()
      : LaidExperts({.gate_up_together = true, .first = 4099, .gap = 13}, kManyExperts,
                    kManyTokens) {}

  // Each layer twice in a row, so that experts are in memory the second time, as many as there are slots.
  void expect_right_rows(GuestTier& tier, int num_slots, int runs, uint32_t seed = 4) {
    make(num_slots, seed, &tier);
    Values source(seed);
    const OwnedRows x(source, kManyTokens, kHidden);
    std::mt19937 random(seed);
    for (int run = 0; run < runs; ++run) {
      const int layer = run / 2 % kLayers;
      const Routing chosen = routing(run % 5 == 4 ? 1 : kManyTokens - run, random);
      const OwnedRows out(kManyTokens * kTopK, kHidden);
      ExpertRun begun = local_->begin(layer, chosen, x.rows);
      const auto times = begun.finish(out.rows, {});
      ASSERT_TRUE(times.has_value()) << times.error().message;
      EXPECT_TRUE(same_bits(out.values, expected(layer, chosen, x.rows).values)) << run;
    }
    EXPECT_EQ(tier.ends, runs);
    EXPECT_EQ(store_->stats().waves > 0, num_slots < kManyExperts);
    EXPECT_EQ(store_->resize(1), 1);  // nobody holds a slot
    local_.reset();
  }

  // All experts are chosen, the first seven far more often.
  static Routing uneven_routing() {
    Routing made{.num_tokens = kManyTokens, .top_k = kTopK, .experts = {}, .weights = {}};
    for (int32_t token = 0; token < kManyTokens; ++token) {
      const int32_t first = token % kManyExperts, second = (first + 1 + token % 3) % 7;
      made.experts.push_back(first);
      made.experts.push_back(second == first ? kManyExperts - 1 : second);
    }
    return made;
  }
};

constexpr int kAllSlots = LaidExperts::kLayers * kManyExperts;

// From none to all at a time; with one slot each is a wave from flash.
TEST_F(SharedExperts, rows_are_the_same_bits_whoever_takes_how_many_of_them) {
  std::mt19937 random(7);
  const std::function<size_t(size_t)> rules[] = {
      [](size_t) { return 0; }, [](size_t ready) { return ready; }, [](size_t) { return 1; },
      [](size_t ready) { return ready - ready / 2; },
      [&](size_t ready) { return random() % (ready + 1); }};
  for (size_t rule = 0; rule < std::size(rules); ++rule) {
    for (const int num_slots : {1, 16, kAllSlots}) {
      SCOPED_TRACE(testing::Message() << "rule " << rule << ", " << num_slots << " slots");
      GuestTier tier(*this);
      tier.takes = rules[rule];
      expect_right_rows(tier, num_slots, 8);
      // From flash parts come apart, and an expert that has begun here stays here.
      if (rule == 0 || num_slots > 1) {
        EXPECT_EQ(tier.num_guests > 0, rule > 0);
      }
      EXPECT_GT(tier.offers, 0);
    }
  }
}

TEST_F(SharedExperts, guests_may_end_as_late_as_when_nothing_else_is_left) {
  for (const int num_slots : {3, kAllSlots}) {
    GuestTier tier(*this);
    tier.ends_late = true;
    tier.takes = [](size_t ready) { return (ready + 2) / 3; };
    expect_right_rows(tier, num_slots, 8);
    EXPECT_GT(tier.num_guests, 0u);
  }
}

TEST_F(SharedExperts, whom_the_tier_refuses_is_computed_here) {
  GuestTier tier(*this);
  tier.refuses = [](int32_t expert) { return expert % 3 == 0; };
  expect_right_rows(tier, kAllSlots, 8);
  EXPECT_GT(tier.num_guests, 0u);
  GuestTier of_nobody(*this);
  of_nobody.refuses = [](int32_t) { return true; };
  expect_right_rows(of_nobody, 16, 4);
  EXPECT_EQ(of_nobody.num_guests, 0u);
}

TEST_F(SharedExperts, a_tier_that_takes_no_guests_is_not_asked_about_any) {
  GuestTier tier(*this);
  tier.is_willing = false;
  tier.has_the_odd = true;
  expect_right_rows(tier, kAllSlots, 4);
  EXPECT_EQ(tier.num_guests, 0u);
  EXPECT_GT(tier.computed, 0);
}

// At any look, with guests that have ended and others that have not, beside experts of its own or without.
TEST_F(SharedExperts, a_tier_may_be_lost_in_the_middle) {
  size_t num_lost = 0;
  for (const bool has_the_odd : {false, true}) {
    for (int looks = 0; looks < 12; ++looks) {
      SCOPED_TRACE(looks);
      GuestTier tier(*this);
      tier.has_the_odd = has_the_odd;
      tier.looks_before_loss = looks;
      tier.ends_late = looks % 3 == 0;
      tier.takes = [&](size_t ready) { return looks % 2 == 0 ? ready : (ready + 1) / 2; };
      expect_right_rows(tier, looks % 4 == 3 ? 5 : kAllSlots, 6, static_cast<uint32_t>(looks + 1));
      num_lost += tier.num_lost;
    }
  }
  EXPECT_GT(num_lost, 0u);
}

TEST_F(SharedExperts, those_with_the_most_rows_are_taken_and_those_with_the_fewest_computed_here) {
  GuestTier tier(*this);
  make(kAllSlots, 1, &tier);
  Values source(3);
  const OwnedRows x(source, kManyTokens, kHidden), out(kManyTokens * kTopK, kHidden);
  const Routing chosen = uneven_routing();
  for (const size_t each : {kAllSlots, 1, 2, 7}) {
    tier.takes = [each](size_t) { return each; };
    ExpertRun run = local_->begin(1, chosen, x.rows);
    ASSERT_TRUE(run.finish(out.rows, {}).has_value());
    EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
    if (each == kAllSlots) continue;  // not all were in memory at once
    EXPECT_EQ(tier.taken.size() + tier.done_here.size(), size_t{kManyExperts});
    EXPECT_TRUE(std::ranges::is_sorted(tier.taken, std::ranges::greater()));
    EXPECT_TRUE(std::ranges::is_sorted(tier.done_here));
    ASSERT_FALSE(tier.taken.empty() || tier.done_here.empty());
    EXPECT_LE(tier.done_here.back(), tier.taken.back());
    EXPECT_LT(tier.done_here.front(), tier.taken.front());
  }
  local_.reset();
}

// Those that have come are shared before the error of another is seen.
TEST_F(SharedExperts, a_read_that_fails_leaves_no_guest_behind) {
  Values source(8);
  std::mt19937 random(8);
  const OwnedRows x(source, kManyTokens, kHidden), out(kManyTokens * kTopK, kHidden);
  const Routing chosen = routing(kManyTokens, random);
  GuestTier tier(*this);
  make(kManyExperts, 1, &tier);
  for (const uint64_t nth : {1u, 20u, 60u}) {
    faults_.fail_read(faults_.reads_submitted() + nth, EIO, Lasting::kForGood);
    {
      ExpertRun failed = local_->begin(1, chosen, x.rows);
      const auto times = failed.finish(out.rows, {});
      ASSERT_FALSE(times.has_value());
      EXPECT_EQ(times.error().code, ErrorCode::kIo);
    }
    faults_.heal();
    EXPECT_EQ(store_->resize(1), 1);  // nobody holds a slot
    store_->resize(kManyExperts);
  }
  ExpertRun healed = local_->begin(1, chosen, x.rows);
  ASSERT_TRUE(healed.finish(out.rows, {}).has_value());
  EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
}

}  // namespace
}  // namespace penstock
