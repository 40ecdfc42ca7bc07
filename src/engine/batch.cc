#include "engine/batch.h"

#include <algorithm>
#include <chrono>

namespace penstock {

Sequence::Sequence(PassParts& parts) : state(parts.memory) {
  logits.resize(static_cast<size_t>(parts.model.config().vocab_size));
  if (state.drafts()) trial_logits.resize(logits.size());
}

void Batch::add(Sequence& sequence, std::span<const TokenId> tokens, const SegmentWish& wish) {
  PENSTOCK_CHECK(!tokens.empty() && std::ssize(tokens) <= rows_left());
  PENSTOCK_CHECK(!sequence.on_trial);
  for (const Part& part : added_) PENSTOCK_CHECK(part.sequence != &sequence);
  added_.push_back({&sequence, tokens_.size(), tokens.size(), wish});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

// Pages and sets for all sequences; what is only kept for later makes room.
Result<void> Batch::make_room() {
  for (;;) {
    SequenceState::Needs all;
    for (const Part& part : added_) {
      const SequenceState::Needs needs =
          part.sequence->state.needs(static_cast<int64_t>(part.rows), part.wish.last_is_draft);
      all.pages += needs.pages;
      all.sets += needs.sets;
    }
    if (all.pages <= parts_.memory.num_free_pages() && all.sets <= parts_.memory.num_free_sets()) {
      return {};
    }
    if (!parts_.prefixes.drop_oldest()) {
      return Error{ErrorCode::kOutOfMemory,
                   "no memory is planned for another sequence; give a larger --parallel"};
    }
  }
}

Result<void> Batch::keep_logits(size_t segment, int64_t row, Rows logits) const {
  const Part& part = added_[segment];
  const bool is_trial = part.wish.last_is_draft && row == static_cast<int64_t>(part.rows) - 1;
  // The last row comes last, so its logits are the ones that stay.
  std::vector<float>& kept = is_trial ? part.sequence->trial_logits : part.sequence->logits;
  PENSTOCK_TRY(parts_.backend.read_back(logits, kept));
  if (part.wish.on_logits) part.wish.on_logits(row, kept);
  return {};
}

void Batch::finish(const Part& part, bool is_done) {
  Sequence& sequence = *part.sequence;
  const bool has_draft = part.wish.last_is_draft;
  if (!is_done) {
    sequence.state.abandon();  // logits are made last: they are those of before
    return;
  }
  sequence.state.commit();
  sequence.logits_known = has_draft || part.wish.logits_of != LogitsOf::kNone;
  const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(part.first);
  const auto end = begin + static_cast<std::ptrdiff_t>(part.rows - (has_draft ? 1 : 0));
  sequence.tokens.insert(sequence.tokens.end(), begin, end);
  if (has_draft) sequence.on_trial = tokens_[part.first + part.rows - 1];
}

// Distinct experts of a layer that each part's rows ask for: what it would have asked alone.
void Batch::count_asked(const Routing& routing, std::vector<int64_t>& asked) const {
  const auto top_k = static_cast<size_t>(routing.top_k);
  std::vector<int32_t> chosen;
  for (size_t i = 0; i < added_.size(); ++i) {
    const auto begin =
        routing.experts.begin() + static_cast<std::ptrdiff_t>(added_[i].first * top_k);
    chosen.assign(begin, begin + static_cast<std::ptrdiff_t>(added_[i].rows * top_k));
    std::erase(chosen, kNoExpert);
    std::ranges::sort(chosen);
    asked[i] += std::unique(chosen.begin(), chosen.end()) - chosen.begin();
  }
}

Result<PassFigures> Batch::run(const std::stop_token& stop, const PassObservers& observers) {
  using Clock = std::chrono::steady_clock;
  PENSTOCK_CHECK(!added_.empty());
  const Clock::time_point start = Clock::now();
  const Result<void> has_room = make_room();
  if (!has_room) {
    added_.clear();
    tokens_.clear();
    return has_room.error();
  }
  std::vector<Segment> segments;
  for (const Part& part : added_) {
    part.sequence->state.begin(static_cast<int64_t>(part.rows), part.wish.last_is_draft);
    segments.push_back({&part.sequence->state,
                        part.wish.last_is_draft ? LogitsOf::kEveryRow : part.wish.logits_of});
  }
  PassFigures figures;
  figures.asked.assign(segments.size(), 0);
  RouteObserver on_route = observers.on_route;
  if (segments.size() > 1) {
    on_route = [&](int64_t layer, const Routing& routing, Rows inputs) {
      count_asked(routing, figures.asked);
      if (observers.on_route) observers.on_route(layer, routing, inputs);
    };
  }
  const StoreStats before = parts_.stats();
  const int64_t ends_before = parts_.team.ends_ns();
  Step step{parts_.backend, parts_.experts, parts_.scratch,    parts_.moe,           figures.times,
            stop,           on_route,       observers.reroute, parts_.between_layers};
  const Result<void> done = parts_.model.forward(step, tokens_, segments,
                                                 [this](size_t segment, int64_t row, Rows logits) {
                                                   return keep_logits(segment, row, logits);
                                                 });
  parts_.store.advance_token();
  if (parts_.copy != nullptr) parts_.copy->advance_token();
  figures.store = parts_.stats() - before;
  figures.loop_ends_ns = parts_.team.ends_ns() - ends_before;
  for (size_t i = 0; i < added_.size(); ++i) {
    finish(added_[i], static_cast<bool>(done));
  }
  added_.clear();
  tokens_.clear();
  figures.wall_ns = std::chrono::nanoseconds(Clock::now() - start).count();
  if (!done) return done.error();
  return figures;
}

}  // namespace penstock
