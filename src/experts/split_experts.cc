#include "experts/split_experts.h"

#include "base/check.h"

namespace penstock {
namespace {

void take_shape(const Routing& routing, Routing& share) {
  const auto choices = static_cast<size_t>(routing.num_tokens * routing.top_k);
  share.num_tokens = routing.num_tokens;
  share.top_k = routing.top_k;
  share.experts.assign(choices, kElsewhere);
}

}  // namespace

void split_by_rank(const Routing& routing, int64_t from_rank, Routing& first, Routing& rest) {
  take_shape(routing, first);
  take_shape(routing, rest);
  const auto top_k = static_cast<size_t>(routing.top_k);
  for (size_t place = 0; place < first.experts.size(); ++place) {
    const auto rank = static_cast<int64_t>(place % top_k) + 1;
    (rank < from_rank ? first : rest).experts[place] = routing.experts[place];
  }
}

SplitExperts::SplitExperts(LocalExperts& first, LocalExperts& rest, Backend& backend,
                           int64_t from_rank)
    : first_(first), rest_(rest), backend_(backend), from_rank_(from_rank) {
  PENSTOCK_CHECK(from_rank >= 1);
  // In place of what each of them asked for alone.
  backend_.set_between_ops([this] {
    first_.keep_reading();
    rest_.keep_reading();
  });
}

SplitExperts::~SplitExperts() {
  backend_.set_between_ops({});
}

bool SplitExperts::wants_foresight() const {
  return first_.wants_foresight() || rest_.wants_foresight();
}

void SplitExperts::foresee(int layer, const Routing& guess) {
  split_by_rank(guess, from_rank_, guesses_.first, guesses_.rest);
  if (first_.wants_foresight()) first_.foresee(layer, guesses_.first);
  if (rest_.wants_foresight()) rest_.foresee(layer, guesses_.rest);
}

void SplitExperts::start(int layer, const Routing& routing, Rows x) {
  split_by_rank(routing, from_rank_, shares_.first, shares_.rest);
  first_run_.emplace(first_.begin(layer, shares_.first, x));
  rest_run_.emplace(rest_.begin(layer, shares_.rest, x));
}

Result<ExpertTimes> SplitExperts::finish(Rows out, const std::stop_token& stop) {
  ExpertTimes times = PENSTOCK_TRY(first_run_->finish(out, stop));
  const ExpertTimes more = PENSTOCK_TRY(rest_run_->finish(out, stop));
  times.compute_ns += more.compute_ns;
  times.wait_ns += more.wait_ns;
  return times;
}

void SplitExperts::end() {
  rest_run_.reset();
  first_run_.reset();
}

}  // namespace penstock
