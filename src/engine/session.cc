#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/engine.h"
#include "engine/logits_check.h"
#include "io/checksum.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

int64_t since_ns(Clock::time_point start) {
  return std::chrono::nanoseconds(Clock::now() - start).count();
}

// With advice that works: a context that the model does not have is none.
std::string prompt_too_long(int64_t tokens, int64_t context, int64_t context_max) {
  const std::string text =
      fmt::format("the prompt has {} tokens, the context holds {}", tokens, context);
  if (tokens < context_max) return fmt::format("{}; give --context {} or more", text, tokens + 1);
  return fmt::format("{} and the model at most {}: shorten it", text, context_max);
}

}  // namespace

Session::Session(Engine& engine)
    : engine_(&engine), sequence_(engine.parts()), speculation_(engine.speculation()) {
  sequence_.tokens.reserve(static_cast<size_t>(context()));
}

void Session::reset() {
  sequence_.state.reset();
  sequence_.tokens.clear();
  sequence_.logits_known = false;
  sequence_.on_trial.reset();
  speculation_ = SpeculationSwitch(engine_->speculation());  // another text, to be foreseen or not
}

Result<void> Session::check_prompt(std::span<const TokenId> prompt) const {
  if (prompt.empty()) return Error{ErrorCode::kInvalidArgument, "the prompt is empty"};
  if (static_cast<int64_t>(prompt.size()) > context()) {
    return Error{
        ErrorCode::kInvalidArgument,
        prompt_too_long(std::ssize(prompt), context(), engine_->config().max_position_embeddings)};
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= engine_->config().vocab_size) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("token id {} at position {} is outside of the vocabulary of {}",
                               prompt[i], i, engine_->config().vocab_size)};
    }
  }
  return {};
}

int64_t Session::held_of(std::span<const TokenId> prompt) const {
  const std::vector<TokenId>& tokens = sequence_.tokens;
  const auto common =
      std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end()).first -
      tokens.begin();
  const bool is_whole = common == std::ssize(tokens);
  const bool can_cut = !engine_->parts().memory.has_recurrent_state() && !sequence_.state.drafts();
  const StateMark* mark = engine_->parts().prefixes.find(prompt, std::ssize(prompt) - 1);
  return std::max<int64_t>(is_whole || can_cut ? common : 0, mark == nullptr ? 0 : mark->length());
}

// Room for a sequence in place of this one; what is only kept gives way.
Result<void> Session::make_room(int64_t positions) {
  SequenceMemory& memory = engine_->parts().memory;
  drop_draft();
  sequence_.state.reset();
  sequence_.tokens.clear();
  sequence_.logits_known = false;
  while (memory.num_free_pages() < SequenceState::pages_for(positions) ||
         memory.num_free_sets() < 1) {
    if (!engine_->parts().prefixes.drop_oldest()) {
      return Error{ErrorCode::kOutOfMemory, "no memory is planned for another sequence"};
    }
  }
  return {};
}

int64_t Session::reuse_from_disk(std::span<const TokenId> prompt, int64_t held) {
  PrefixStore* store = engine_->parts().prefix_store;
  if (store == nullptr) return 0;
  for (;;) {
    const int64_t length = store->find(prompt, held, std::ssize(prompt) - 1);
    if (length == 0 || !make_room(length)) return 0;
    const auto prefix = prompt.first(static_cast<size_t>(length));
    if (!store->load(prefix, sequence_.state)) {
      held = 0;  // what this session held has made room
      continue;
    }
    sequence_.tokens.assign(prefix.begin(), prefix.end());
    return length;
  }
}

Result<uint64_t> Session::save_as(const std::string& name) const {
  PrefixStore* store = engine_->parts().prefix_store;
  if (store == nullptr) return Error{ErrorCode::kUnsupported, "there is no --kv-dir"};
  return store->save_named(name, sequence_.tokens, sequence_.state);
}

Result<uint64_t> Session::restore_from(const std::string& name) {
  PrefixStore* store = engine_->parts().prefix_store;
  if (store == nullptr) return Error{ErrorCode::kUnsupported, "there is no --kv-dir"};
  std::vector<TokenId> tokens = PENSTOCK_TRY(store->tokens_named(name, context()));
  PENSTOCK_TRY(check_prompt(tokens));
  PENSTOCK_TRY(make_room(std::ssize(tokens)));
  const uint64_t bytes = PENSTOCK_TRY(store->load_named(name, tokens, sequence_.state));
  sequence_.tokens = std::move(tokens);
  return bytes;
}

bool Session::keeps_long_place(int64_t position) const {
  return engine_->parts().prefix_store != nullptr && position > 0 &&
         position % PrefixStore::kTokensBetween == 0;
}

int64_t Session::next_long_place(int64_t position) const {
  if (engine_->parts().prefix_store == nullptr) return INT64_MAX;
  return (position / PrefixStore::kTokensBetween + 1) * PrefixStore::kTokensBetween;
}

int64_t Session::reuse(std::span<const TokenId> prompt) {
  const int64_t from_disk = reuse_from_disk(prompt, held_of(prompt));
  if (from_disk > 0) return from_disk;
  std::vector<TokenId>& tokens = sequence_.tokens;
  SequenceState& state = sequence_.state;
  const auto [mine, theirs] =
      std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end());
  const int64_t common = mine - tokens.begin();
  const int64_t held = std::ssize(tokens);
  const int64_t wanted = std::ssize(prompt);
  const bool extends = common == held && (held < wanted || sequence_.logits_known);
  const bool can_cut = !engine_->parts().memory.has_recurrent_state() && !state.drafts();
  int64_t kept = extends ? held : can_cut ? std::min(common, wanted - 1) : 0;
  const StateMark* mark = engine_->parts().prefixes.find(prompt, wanted - 1);
  if (mark != nullptr && mark->length() > kept) {
    restore(*mark, prompt.first(static_cast<size_t>(mark->length())));
    return mark->length();
  }
  if (extends) return held;
  if (can_cut) {
    state.truncate(kept);
  } else {
    state.reset();
  }
  tokens.resize(static_cast<size_t>(kept));
  sequence_.logits_known = false;
  return kept;
}

void Session::restore(const StateMark& mark, std::span<const TokenId> tokens) {
  PENSTOCK_CHECK(mark.length() == std::ssize(tokens));
  drop_draft();
  sequence_.state.restore(mark);
  sequence_.tokens.assign(tokens.begin(), tokens.end());
  sequence_.logits_known = false;
}

void Session::keep_place(Place place) {
  PassParts& parts = engine_->parts();
  if (place == Place::kBoundary) parts.prefixes.keep(sequence_.tokens, sequence_.state);
  if (parts.prefix_store != nullptr) parts.prefix_store->save(sequence_.tokens, sequence_.state);
}

Result<void> Session::feed(std::span<const TokenId> tokens, const SegmentWish& wish,
                           PhaseMetrics& phase, const PassObservers& observers,
                           const std::stop_token& stop) {
  Batch batch(engine_->parts());
  batch.add(sequence_, tokens, wish);
  const PassFigures figures = PENSTOCK_TRY(batch.run(stop, observers));
  phase.add(figures, 0, std::ssize(tokens) - (wish.last_is_draft ? 1 : 0));
  return {};
}

Result<void> Session::sync(std::span<const TokenId> prompt, const SyncOptions& options,
                           GenerationMetrics& metrics, const std::stop_token& stop) {
  const int64_t rows_max = engine_->parts().rows_max();
  const int64_t total = std::ssize(prompt);
  while (sequence_.state.length() < total) {
    const int64_t begin = sequence_.state.length();
    int64_t end = std::min({begin + rows_max, total, next_long_place(begin)});
    for (const int64_t checkpoint : options.checkpoints) {
      if (checkpoint > begin && checkpoint < end) end = checkpoint;
    }
    const auto chunk = prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    SegmentWish wish;
    wish.logits_of = end == total ? LogitsOf::kLastRow : LogitsOf::kNone;
    PENSTOCK_TRY(feed(chunk, wish, metrics.prompt, options.observers, stop));
    ++metrics.chunks;
    if (std::ranges::find(options.checkpoints, end) != options.checkpoints.end()) {
      keep_place();
    } else if (keeps_long_place(end)) {
      keep_place(Place::kLong);
    }
    if (options.on_chunk) options.on_chunk(end, total);
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "interrupted"};
  }
  return {};
}

Result<void> Session::advance(TokenId token, PhaseMetrics& phase, const std::stop_token& stop,
                              const PassObservers& observers) {
  return feed(std::span(&token, 1), {}, phase, observers, stop);
}

Result<TokenId> Session::draft_after(TokenId token, const GenerateOptions& options,
                                     GenerationMetrics& metrics, const std::stop_token& stop) {
  const Clock::time_point start = Clock::now();
  PhaseMetrics& phase = metrics.answer;
  PassParts& parts = engine_->parts();
  const StoreStats before = parts.stats();
  const int64_t ends_before = parts.team.ends_ns();
  Step step{parts.backend, parts.experts, parts.scratch, parts.moe, phase.times, stop, {}, {}, {}};
  const Result<Rows> logits = parts.model.draft(step, token, sequence_.state);
  phase.store = phase.store + (parts.stats() - before);
  phase.loop_ends_ns += parts.team.ends_ns() - ends_before;
  phase.wall_ns += since_ns(start);
  if (!logits) return logits.error();
  PENSTOCK_TRY(parts.backend.read_back(*logits, sequence_.trial_logits));
  const auto row = std::span<const float>(sequence_.trial_logits)
                       .first(static_cast<size_t>(engine_->sampled_vocab()));
  const auto drafted = static_cast<TokenId>(std::ranges::max_element(row) - row.begin());
  ++metrics.drafts;
  const auto position = std::ssize(sequence_.tokens) + 1;
  return options.redraft ? options.redraft(position, drafted) : drafted;
}

Result<void> Session::feed_next(TokenId token, bool drafts, const GenerateOptions& options,
                                GenerationMetrics& metrics, const std::stop_token& stop) {
  const Clock::time_point start = Clock::now();
  const PassObservers observers{options.on_route, options.reroute};
  if (!drafts) {
    PENSTOCK_TRY(advance(token, metrics.answer, stop, observers));
    speculation_.add_step(false, since_ns(start), 1);
    return {};
  }
  const TokenId drafted = PENSTOCK_TRY(draft_after(token, options, metrics, stop));
  const TokenId pair[] = {token, drafted};
  SegmentWish wish;
  wish.last_is_draft = true;
  PENSTOCK_TRY(feed(pair, wish, metrics.answer, observers, stop));
  trial_ns_ = since_ns(start);
  return {};
}

bool Session::settle_draft(TokenId token, GenerationMetrics& metrics) {
  const bool agrees = *sequence_.on_trial == token;
  speculation_.add_step(true, trial_ns_, agrees ? 2 : 1);
  if (!agrees) {
    drop_draft();
    return false;
  }
  sequence_.on_trial.reset();
  sequence_.state.keep_trial();
  sequence_.tokens.push_back(token);
  sequence_.logits.swap(sequence_.trial_logits);
  ++metrics.drafts_accepted;
  ++metrics.answer.tokens;
  return true;
}

void Session::drop_draft() {
  if (!sequence_.on_trial) return;
  sequence_.on_trial.reset();
  sequence_.state.drop_trial();
}

Result<void> Session::decode(Sampler& sampler, const GenerateOptions& options,
                             GenerateResult& result, const std::stop_token& stop) {
  GenerationMetrics& metrics = result.metrics;
  std::vector<float> logits(sequence_.logits.size());
  for (;;) {
    const Clock::time_point begin = Clock::now();
    logits = sequence_.logits;
    PENSTOCK_TRY(
        check_logits(std::span(logits).first(static_cast<size_t>(engine_->sampled_vocab())),
                     std::ssize(sequence_.tokens)));
    metrics.logits_hash = checksum(std::as_bytes(std::span(logits)), metrics.logits_hash).low;
    std::span<const uint64_t> allowed;
    if (options.mask != nullptr) allowed = PENSTOCK_TRY(options.mask->allowed());
    const TokenId token = sampler.sample(logits, allowed);
    if (options.mask != nullptr) PENSTOCK_TRY(options.mask->accept(token));
    const int64_t sampling_ns = since_ns(begin);
    if (metrics.first_token_ns == 0) metrics.first_token_ns = since_ns(start_);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) return {};
    result.tokens.push_back(token);
    ++metrics.answer_tokens;
    if (options.on_token) options.on_token(token);
    const int64_t most =
        options.max_tokens > 0 ? options.max_tokens - metrics.answer_tokens : context();
    const int64_t room = std::min(most, context() - std::ssize(sequence_.tokens));
    if (room == 0) {
      result.finish = FinishReason::kLength;
      return {};
    }
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "interrupted"};
    // The choice of a token belongs to the pass that evaluates it.
    metrics.answer.times.sampling_ns += sampling_ns;
    metrics.answer.wall_ns += sampling_ns;
    if (sequence_.on_trial && settle_draft(token, metrics)) continue;
    // A draft is of use if the token behind this one is wanted too.
    const bool drafts = room >= 2 && engine_->parts().rows_max() >= 2 && speculation_.wants_draft();
    PENSTOCK_TRY(feed_next(token, drafts, options, metrics, stop));
  }
}

Result<GenerateResult> Session::generate(std::span<const TokenId> prompt,
                                         const GenerateOptions& options, std::stop_token stop) {
  PENSTOCK_TRY(options.sampling.check());
  PENSTOCK_TRY(check_prompt(prompt));
  GenerateResult result;
  start_ = Clock::now();
  result.metrics.cached_tokens = reuse(prompt);
  Result<void> done = sync(prompt,
                           {.checkpoints = options.checkpoints,
                            .on_chunk = options.on_prompt,
                            .observers = {options.on_route, options.reroute}},
                           result.metrics, stop);
  if (done) {
    Sampler sampler(options.sampling, engine_->sampled_vocab(), prompt);
    done = decode(sampler, options, result, stop);
    drop_draft();
  }
  if (done) return result;
  if (done.error().code != ErrorCode::kCancelled) return done.error();
  result.finish = FinishReason::kCancelled;
  return result;
}

Result<PhaseMetrics> Session::evaluate(std::span<const TokenId> tokens,
                                       const RowObserver& on_logits, const RouteObserver& on_route,
                                       std::stop_token stop) {
  PENSTOCK_TRY(check_prompt(tokens));
  reset();
  PhaseMetrics phase;
  while (sequence_.state.length() < std::ssize(tokens)) {
    const int64_t begin = sequence_.state.length();
    const int64_t count = std::min(engine_->parts().rows_max(), std::ssize(tokens) - begin);
    SegmentWish wish;
    wish.logits_of = LogitsOf::kEveryRow;
    wish.on_logits = [&](int64_t row, std::span<const float> logits) {
      on_logits(begin + row, logits);
    };
    PENSTOCK_TRY(feed(tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), wish,
                      phase, {on_route, {}}, stop));
  }
  return phase;
}

Result<void> Session::evaluate_drafts(std::span<const TokenId> tokens, const RowObserver& on_logits,
                                      std::stop_token stop) {
  PENSTOCK_TRY(check_prompt(tokens));
  PENSTOCK_CHECK(engine_->can_draft());
  reset();
  PhaseMetrics phase;
  PassParts& parts = engine_->parts();
  Step step{parts.backend, parts.experts, parts.scratch, parts.moe, phase.times, stop, {}, {}, {}};
  SegmentWish wish;
  wish.logits_of = LogitsOf::kNone;
  for (size_t p = 0; p + 1 < tokens.size(); ++p) {
    PENSTOCK_TRY(feed(tokens.subspan(p, 1), wish, phase, {}, stop));
    const Rows logits = PENSTOCK_TRY(parts.model.draft(step, tokens[p + 1], sequence_.state));
    PENSTOCK_TRY(parts.backend.read_back(logits, sequence_.trial_logits));
    on_logits(static_cast<int64_t>(p), sequence_.trial_logits);
  }
  return {};
}

}  // namespace penstock
