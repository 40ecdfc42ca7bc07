#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/engine.h"
#include "io/checksum.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

int64_t since_ns(Clock::time_point start) {
  return std::chrono::nanoseconds(Clock::now() - start).count();
}

}  // namespace

Session::Session(Engine& engine, SequenceState state)
    : engine_(&engine), state_(std::move(state)), speculation_(engine.speculation()) {
  logits_.resize(static_cast<size_t>(engine.config().vocab_size));
  if (engine.can_draft()) trial_logits_.resize(logits_.size());
  tokens_.reserve(static_cast<size_t>(state_.context()));
}

void Session::reset() {
  state_.reset();
  tokens_.clear();
  logits_known_ = false;
  on_trial_.reset();
  speculation_ = SpeculationSwitch(engine_->speculation());  // another text, to be foreseen or not
}

Result<void> Session::check_prompt(std::span<const TokenId> prompt) const {
  if (prompt.empty()) return Error{ErrorCode::kInvalidArgument, "the prompt is empty"};
  if (static_cast<int64_t>(prompt.size()) > state_.context()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the prompt has {} tokens, the context holds {}; give --context {} "
                             "or more",
                             prompt.size(), state_.context(), prompt.size() + 1)};
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

int64_t Session::reuse_prefix(std::span<const TokenId> prompt) {
  const auto [mine, theirs] = std::mismatch(tokens_.begin(), tokens_.end(), prompt.begin(),
                                            prompt.end());
  const int64_t common = mine - tokens_.begin();
  const auto held = static_cast<int64_t>(tokens_.size());
  const auto wanted = static_cast<int64_t>(prompt.size());
  const bool extends = common == held && (held < wanted || logits_known_);
  if (!extends) {
    state_.rewind(std::min(common, wanted - 1));
    tokens_.resize(static_cast<size_t>(state_.length()));
    logits_known_ = false;
  }
  return state_.length();
}

void Session::recover() {
  // A pass that stopped half-way has changed the delta-net states of some layers.
  state_.rewind(state_.length());
  tokens_.resize(static_cast<size_t>(state_.length()));
  logits_known_ = false;
  on_trial_.reset();
}

void Session::keep_logits(Rows logits) {
  const std::span<const float> last = logits.row(logits.count - 1);
  std::copy(last.begin(), last.end(), logits_.begin());
  logits_known_ = true;
}

Result<void> Session::feed(std::span<const TokenId> tokens, LogitsOf logits_of,
                           const LogitsObserver& on_logits, PhaseMetrics& phase,
                           const RouteObserver& on_route, const RouteOverride& reroute,
                           std::stop_token stop, bool on_trial) {
  const Clock::time_point start = Clock::now();
  const StoreStats before = engine_->store_->stats();
  Step step{*engine_->backend_, *engine_->store_, *engine_->scratch_,
            moe_,               phase.times,      stop,
            on_route,           reroute,          [this] { engine_->watch_memory(); }};
  const Result<void> fed =
      engine_->model_->forward(step, tokens, state_, logits_of, on_logits, on_trial);
  engine_->store_->advance_token();
  const StoreStats change = engine_->store_->stats() - before;
  phase.store = phase.store + change;
  phase.wall_ns += since_ns(start);
  if (!fed) {
    recover();
    return fed.error();
  }
  const std::span<const TokenId> held = tokens.first(tokens.size() - (on_trial ? 1 : 0));
  phase.tokens += std::ssize(held);
  tokens_.insert(tokens_.end(), held.begin(), held.end());
  return {};
}

Result<void> Session::prefill(std::span<const TokenId> prompt, const GenerateOptions& options,
                              GenerationMetrics& metrics, std::stop_token stop) {
  const int64_t chunk_tokens = engine_->plan_.chunk_tokens;
  const auto total = static_cast<int64_t>(prompt.size());
  while (state_.length() < total) {
    const int64_t begin = state_.length();
    int64_t end = std::min(begin + chunk_tokens, total);
    for (const int64_t checkpoint : options.checkpoints) {
      if (checkpoint > begin && checkpoint < end) end = checkpoint;
    }
    const auto chunk = prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    PENSTOCK_TRY(feed(chunk, end == total ? LogitsOf::kLastRow : LogitsOf::kNone,
                      [this](int64_t, Rows logits) { keep_logits(logits); }, metrics.prompt,
                      options.on_route, options.reroute, stop, false));
    ++metrics.chunks;
    if (std::ranges::find(options.checkpoints, end) != options.checkpoints.end()) {
      state_.save_checkpoint();
    }
    if (options.on_prompt) options.on_prompt(end, total);
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "interrupted"};
  }
  return {};
}

Result<TokenId> Session::draft_after(TokenId token, const GenerateOptions& options,
                                     GenerationMetrics& metrics, std::stop_token stop) {
  const Clock::time_point start = Clock::now();
  PhaseMetrics& phase = metrics.answer;
  const StoreStats before = engine_->store_->stats();
  Step step{*engine_->backend_, *engine_->store_, *engine_->scratch_, moe_, phase.times, stop, {}, {},
            {}};
  const Result<Rows> logits = engine_->model_->draft(step, token, state_);
  phase.store = phase.store + (engine_->store_->stats() - before);
  phase.wall_ns += since_ns(start);
  if (!logits) return logits.error();
  const std::span<const float> row =
      logits->row(0).first(static_cast<size_t>(engine_->sampled_vocab()));
  const auto drafted = static_cast<TokenId>(std::ranges::max_element(row) - row.begin());
  ++metrics.drafts;
  const auto position = static_cast<int64_t>(tokens_.size()) + 1;
  return options.redraft ? options.redraft(position, drafted) : drafted;
}

Result<void> Session::feed_next(TokenId token, bool drafts, const GenerateOptions& options,
                                GenerationMetrics& metrics, std::stop_token stop) {
  if (!drafts) {
    const Clock::time_point start = Clock::now();
    PENSTOCK_TRY(feed(std::span(&token, 1), LogitsOf::kLastRow,
                      [this](int64_t, Rows rows) { keep_logits(rows); }, metrics.answer,
                      options.on_route, options.reroute, stop, false));
    speculation_.add_step(false, since_ns(start), 1);
    return {};
  }
  const Clock::time_point start = Clock::now();
  const TokenId drafted = PENSTOCK_TRY(draft_after(token, options, metrics, stop));
  const TokenId pair[] = {token, drafted};
  const auto keep = [this](int64_t, Rows rows) {
    keep_logits(rows.first(1));
    std::ranges::copy(rows.row(1), trial_logits_.begin());
  };
  PENSTOCK_TRY(feed(pair, LogitsOf::kEveryRow, keep, metrics.answer, options.on_route,
                    options.reroute, stop, true));
  trial_ns_ = since_ns(start);
  on_trial_ = drafted;
  return {};
}

bool Session::settle_draft(TokenId token, GenerationMetrics& metrics) {
  const bool agrees = *on_trial_ == token;
  speculation_.add_step(true, trial_ns_, agrees ? 2 : 1);
  if (!agrees) {
    drop_draft();
    return false;
  }
  on_trial_.reset();
  state_.keep_trial();
  tokens_.push_back(token);
  logits_.swap(trial_logits_);
  ++metrics.drafts_accepted;
  ++metrics.answer.tokens;
  return true;
}

void Session::drop_draft() {
  if (!on_trial_) return;
  on_trial_.reset();
  state_.drop_trial();
}

Result<void> Session::decode(Sampler& sampler, const GenerateOptions& options,
                             GenerateResult& result, std::stop_token stop) {
  GenerationMetrics& metrics = result.metrics;
  std::vector<float> logits(logits_.size());
  for (;;) {
    const Clock::time_point begin = Clock::now();
    logits = logits_;
    metrics.logits_hash =
        checksum(std::as_bytes(std::span(logits)), metrics.logits_hash).low;
    const TokenId token = sampler.sample(logits);
    const int64_t sampling_ns = since_ns(begin);
    if (metrics.first_token_ns == 0) metrics.first_token_ns = since_ns(start_);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) return {};
    result.tokens.push_back(token);
    ++metrics.answer_tokens;
    if (options.on_token) options.on_token(token);
    const int64_t most = options.max_tokens > 0 ? options.max_tokens - metrics.answer_tokens
                                                : state_.context();
    const int64_t room = std::min(most, state_.context() - std::ssize(tokens_));
    if (room == 0) {
      result.finish = FinishReason::kLength;
      return {};
    }
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "interrupted"};
    // The choice of a token belongs to the pass that evaluates it.
    metrics.answer.times.sampling_ns += sampling_ns;
    metrics.answer.wall_ns += sampling_ns;
    if (on_trial_ && settle_draft(token, metrics)) continue;
    // A draft is of use if the token behind this one is wanted too.
    const bool drafts =
        room >= 2 && engine_->plan_.chunk_tokens >= 2 && speculation_.wants_draft();
    PENSTOCK_TRY(feed_next(token, drafts, options, metrics, stop));
  }
}

Result<GenerateResult> Session::generate(std::span<const TokenId> prompt,
                                         const GenerateOptions& options, std::stop_token stop) {
  PENSTOCK_TRY(options.sampling.check());
  PENSTOCK_TRY(check_prompt(prompt));
  GenerateResult result;
  start_ = Clock::now();
  result.metrics.cached_tokens = reuse_prefix(prompt);
  Result<void> done = prefill(prompt, options, result.metrics, stop);
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
                                       const LogitsObserver& on_logits,
                                       const RouteObserver& on_route, std::stop_token stop) {
  PENSTOCK_TRY(check_prompt(tokens));
  reset();
  PhaseMetrics phase;
  while (state_.length() < static_cast<int64_t>(tokens.size())) {
    const int64_t begin = state_.length();
    const int64_t count = std::min(engine_->plan_.chunk_tokens,
                                   static_cast<int64_t>(tokens.size()) - begin);
    PENSTOCK_TRY(feed(tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
                      LogitsOf::kEveryRow,
                      [&](int64_t row, Rows logits) { on_logits(begin + row, logits); }, phase,
                      on_route, {}, stop, false));
  }
  return phase;
}

Result<void> Session::evaluate_drafts(std::span<const TokenId> tokens,
                                      const LogitsObserver& on_logits, std::stop_token stop) {
  PENSTOCK_TRY(check_prompt(tokens));
  PENSTOCK_CHECK(engine_->can_draft());
  reset();
  PhaseMetrics phase;
  Step step{*engine_->backend_, *engine_->store_, *engine_->scratch_, moe_, phase.times, stop, {}, {},
            {}};
  for (size_t p = 0; p + 1 < tokens.size(); ++p) {
    PENSTOCK_TRY(feed(tokens.subspan(p, 1), LogitsOf::kNone, {}, phase, {}, {}, stop, false));
    const Rows logits = PENSTOCK_TRY(engine_->model_->draft(step, tokens[p + 1], state_));
    on_logits(static_cast<int64_t>(p), logits);
  }
  return {};
}

}  // namespace penstock
