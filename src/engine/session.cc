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
    : engine_(&engine), state_(std::move(state)) {
  logits_.resize(static_cast<size_t>(engine.config().vocab_size));
  tokens_.reserve(static_cast<size_t>(state_.context()));
}

void Session::reset() {
  state_.reset();
  tokens_.clear();
  logits_known_ = false;
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
}

void Session::keep_logits(Rows logits) {
  const std::span<const float> last = logits.row(logits.count - 1);
  std::copy(last.begin(), last.end(), logits_.begin());
  logits_known_ = true;
}

Result<void> Session::feed(std::span<const TokenId> tokens, LogitsOf logits_of,
                           const LogitsObserver& on_logits, PhaseMetrics& phase,
                           const RouteObserver& on_route, const RouteOverride& reroute,
                           std::stop_token stop) {
  const Clock::time_point start = Clock::now();
  const StoreStats before = engine_->store_->stats();
  Step step{*engine_->backend_, *engine_->store_, *engine_->scratch_,
            moe_,               phase.times,      stop,
            on_route,           reroute,          [this] { engine_->watch_memory(); }};
  const Result<void> fed =
      engine_->model_->forward(step, tokens, state_, logits_of, on_logits);
  engine_->store_->advance_token();
  const StoreStats change = engine_->store_->stats() - before;
  phase.store = phase.store + change;
  phase.wall_ns += since_ns(start);
  if (!fed) {
    recover();
    return fed.error();
  }
  phase.tokens += static_cast<int64_t>(tokens.size());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
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
                      options.on_route, options.reroute, stop));
    ++metrics.chunks;
    if (std::ranges::find(options.checkpoints, end) != options.checkpoints.end()) {
      state_.save_checkpoint();
    }
    if (options.on_prompt) options.on_prompt(end, total);
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "interrupted"};
  }
  return {};
}

Result<GenerateResult> Session::generate(std::span<const TokenId> prompt,
                                         const GenerateOptions& options, std::stop_token stop) {
  PENSTOCK_TRY(options.sampling.check());
  PENSTOCK_TRY(check_prompt(prompt));
  GenerateResult result;
  GenerationMetrics& metrics = result.metrics;
  const Clock::time_point start = Clock::now();
  metrics.cached_tokens = reuse_prefix(prompt);
  const Result<void> prefilled = prefill(prompt, options, metrics, stop);
  if (!prefilled) {
    if (prefilled.error().code != ErrorCode::kCancelled) return prefilled.error();
    result.finish = FinishReason::kCancelled;
    return result;
  }
  Sampler sampler(options.sampling, engine_->sampled_vocab(), prompt);
  std::vector<float> logits(logits_.size());
  for (;;) {
    logits = logits_;
    metrics.logits_hash =
        checksum(std::as_bytes(std::span(logits)), metrics.logits_hash).low;
    const TokenId token = sampler.sample(logits);
    if (metrics.first_token_ns == 0) metrics.first_token_ns = since_ns(start);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) return result;
    result.tokens.push_back(token);
    ++metrics.answer_tokens;
    if (options.on_token) options.on_token(token);
    const bool enough = options.max_tokens > 0 && metrics.answer_tokens >= options.max_tokens;
    if (enough || state_.length() == state_.context()) {
      result.finish = FinishReason::kLength;
      return result;
    }
    if (stop.stop_requested()) {
      result.finish = FinishReason::kCancelled;
      return result;
    }
    const Result<void> fed = feed(std::span(&token, 1), LogitsOf::kLastRow,
                                  [this](int64_t, Rows rows) { keep_logits(rows); },
                                  metrics.answer, options.on_route, options.reroute, stop);
    if (!fed && fed.error().code == ErrorCode::kCancelled) {
      result.finish = FinishReason::kCancelled;
      return result;
    }
    PENSTOCK_TRY(fed);
  }
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
                      on_route, {}, stop));
  }
  return phase;
}

}  // namespace penstock
