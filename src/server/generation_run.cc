#include "server/generation_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/logits_check.h"
#include "io/checksum.h"

namespace penstock {
namespace {

using Kind = GenerationEvent::Kind;

GenerationEvent event_of(Kind kind, int choice) {
  GenerationEvent event;
  event.kind = kind;
  event.choice = choice;
  return event;
}

// log of the sum of exp: what turns logits into logarithms of probabilities.
double log_sum(std::span<const float> logits) {
  const double strongest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - strongest);
  return strongest + std::log(sum);
}

std::vector<TokenLogprob> strongest_of(std::span<const float> logits, size_t count, double norm) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  count = std::min(count, ids.size());
  const auto is_stronger = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::ranges::partial_sort(ids, ids.begin() + static_cast<std::ptrdiff_t>(count), is_stronger);
  std::vector<TokenLogprob> top;
  for (size_t i = 0; i < count; ++i) {
    top.push_back({ids[i], static_cast<float>(logits[static_cast<size_t>(ids[i])] - norm)});
  }
  return top;
}

}  // namespace

GenerationRun::GenerationRun(std::shared_ptr<GenerationJob> job, Session& session, Engine& engine)
    : job_(std::move(job)), session_(session), engine_(engine) {
  const GenerationRequest& request = job_->request();
  places_ = request.checkpoints;
  // Later choices go on from one token before the end: the last one brings the logits.
  if (request.num_choices > 1) places_.push_back(std::ssize(request.prompt) - 1);
  std::ranges::sort(places_);
  job_->emit(event_of(Kind::kStarted, 0));
  begin_choice();
}

void GenerationRun::begin_choice() {
  const GenerationRequest& request = job_->request();
  // Where every row's logits are wanted, or nothing may be taken from before; later choices still go
  // on from the place that this request kept.
  const bool begins_anew = choice_ == 0 && (request.echo_logprobs || !request.reuses_prefixes);
  if (begins_anew) session_.reset();
  const int64_t held = begins_anew ? 0 : session_.reuse(request.prompt);
  SamplingOptions sampling = request.sampling;
  sampling.seed += static_cast<uint64_t>(choice_);
  sampler_.emplace(sampling, engine_.sampled_vocab(), request.prompt);
  text_.emplace(*engine_.tokenizer(), request.stop_strings, request.opens_reasoning);
  mask_ = request.make_mask ? request.make_mask() : nullptr;
  told_ = reasoned_ = 0;
  reads_prompt_ = true;
  if (choice_ == 0) {
    metrics_.cached_tokens = held;
    job_->update([&](GenerationProgress& progress) {
      progress.cached_tokens = progress.processed_tokens = held;
    });
  }
  if (session_.tokens().size() == request.prompt.size()) finish_prompt();
}

std::span<const TokenId> GenerationRun::next_tokens(int64_t rows_max) const {
  if (!reads_prompt_) return {&pending_, 1};
  const std::vector<TokenId>& prompt = job_->request().prompt;
  const auto begin = std::ssize(session_.tokens());
  int64_t end =
      std::min<int64_t>({begin + rows_max, std::ssize(prompt), session_.next_long_place(begin)});
  for (const int64_t place : places_) {
    if (place > begin && place < end) end = place;
  }
  return std::span(prompt).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

SegmentWish GenerationRun::wish(std::span<const TokenId> next) {
  SegmentWish wish;
  if (!reads_prompt_) return wish;
  const GenerationRequest& request = job_->request();
  const auto begin = std::ssize(session_.tokens());
  const bool is_last = begin + std::ssize(next) == std::ssize(request.prompt);
  wish.logits_of = is_last ? LogitsOf::kLastRow : LogitsOf::kNone;
  if (choice_ == 0 && request.echo_logprobs) {
    wish.logits_of = LogitsOf::kEveryRow;
    wish.on_logits = [this, begin](int64_t row, std::span<const float> logits) {
      echo_logprobs(begin + row, logits);
    };
  }
  return wish;
}

bool GenerationRun::wants_place(int64_t position) const {
  return std::ranges::binary_search(places_, position);
}

void GenerationRun::take(const PassFigures& figures, size_t segment, int64_t rows) {
  if (has_ended_) return;  // with the logits of its prompt
  if (!reads_prompt_) {
    metrics_.answer.add(figures, segment, rows);
    return choose();
  }
  if (choice_ == 0) metrics_.prompt.add(figures, segment, rows);
  if (choice_ == 0) ++metrics_.chunks;
  const auto held = std::ssize(session_.tokens());
  if (wants_place(held)) {
    session_.keep_place();
  } else if (session_.keeps_long_place(held)) {
    session_.keep_place(Session::Place::kLong);
  }
  if (choice_ == 0) {
    job_->update([&](GenerationProgress& progress) {
      progress.processed_tokens = held;
      progress.prompt_ms =
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start_).count();
      progress.metrics = metrics_;
    });
    job_->emit(event_of(Kind::kPrompt, choice_));
  }
  if (held == std::ssize(job_->request().prompt)) finish_prompt();
}

void GenerationRun::finish_prompt() {
  reads_prompt_ = false;
  if (job_->request().max_tokens == 0) {
    end_choice(FinishReason::kLength);
  } else {
    choose();
  }
}

// The end of a reasoning whose budget is spent, as soon as the mask lets it stand here.
std::optional<TokenId> GenerationRun::forced_token(std::span<const uint64_t> allowed) const {
  const auto& budget = job_->request().reasoning_budget;
  if (!budget || !text_->in_reasoning() || reasoned_ < *budget) return {};
  const auto end = engine_.tokenizer()->find("</think>");
  if (!end || allowed.empty()) return end;
  const auto at = static_cast<size_t>(*end);
  const bool is_allowed = at / 64 < allowed.size() && (allowed[at / 64] >> (at % 64) & 1) != 0;
  return is_allowed ? end : std::nullopt;
}

Result<TokenId> GenerationRun::pick(GenerationEvent& event) {
  const GenerationRequest& request = job_->request();
  const auto vocab = static_cast<size_t>(engine_.sampled_vocab());
  const std::span<const float> given = session_.logits();
  logits_.assign(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(vocab));
  metrics_.logits_hash = checksum(std::as_bytes(given), metrics_.logits_hash).low;
  const bool is_bound = mask_ != nullptr && (request.masks_reasoning || !text_->in_reasoning());
  std::span<const uint64_t> allowed;
  if (is_bound) allowed = PENSTOCK_TRY(mask_->allowed());
  TokenId token = 0;
  if (const auto forced = forced_token(allowed)) {
    token = *forced;
  } else {
    for (const auto& [id, bias] : request.logit_bias) logits_[static_cast<size_t>(id)] += bias;
    token = sampler_->sample(logits_, allowed);
  }
  if (is_bound) PENSTOCK_TRY(mask_->accept(token));
  event.token = token;
  tell_logprobs(given.first(vocab), token, event);
  return token;
}

bool GenerationRun::is_end(TokenId token) const {
  const auto has = [&](const std::vector<TokenId>& ids) {
    return std::ranges::find(ids, token) != ids.end();
  };
  return has(engine_.stop_ids()) || has(job_->request().stop_ids);
}

void GenerationRun::choose() {
  const GenerationRequest& request = job_->request();
  const Clock::time_point begin = Clock::now();
  const auto sampled = static_cast<size_t>(engine_.sampled_vocab());
  const Result<void> checked =
      check_logits(session_.logits().first(sampled), std::ssize(session_.tokens()));
  if (!checked) return fail(checked.error());
  GenerationEvent event = event_of(Kind::kToken, choice_);
  const Result<TokenId> picked = pick(event);
  if (!picked) return fail(picked.error());
  const TokenId token = *picked;
  const int64_t sampling_ns = std::chrono::nanoseconds(Clock::now() - begin).count();
  metrics_.answer.times.sampling_ns += sampling_ns;
  metrics_.answer.wall_ns += sampling_ns;
  if (metrics_.first_token_ns == 0) {
    metrics_.first_token_ns = std::chrono::nanoseconds(Clock::now() - start_).count();
  }
  if (!request.ignores_end && is_end(token)) return end_choice(FinishReason::kStop);
  const bool was_reasoning = text_->in_reasoning();
  note_time();
  event.text = text_->push(token);
  ++told_;
  ++new_tokens_;
  ++metrics_.answer_tokens;
  reasoned_ += was_reasoning ? 1 : 0;
  job_->update([&](GenerationProgress& progress) {
    ++progress.answer_tokens;
    progress.reasoning_tokens += was_reasoning ? 1 : 0;
    progress.metrics = metrics_;
  });
  job_->emit(std::move(event));
  pending_ = token;
  const int64_t context = engine_.plan_request().context;
  const bool is_full = std::ssize(session_.tokens()) >= context;
  if (text_->is_stopped()) {
    end_choice(FinishReason::kStop);
  } else if (is_full || (request.max_tokens && told_ >= *request.max_tokens)) {
    end_choice(FinishReason::kLength);
  }
}

void GenerationRun::note_time() {
  if (times_ == nullptr) return;
  const Clock::time_point now = Clock::now();
  const bool is_first = choice_ == 0 && told_ == 0;
  const std::chrono::duration<double> seconds = now - last_token_;
  (is_first ? times_->first_token : times_->between_tokens).add(seconds.count());
  last_token_ = now;
}

void GenerationRun::tell_logprobs(std::span<const float> logits, TokenId token,
                                  GenerationEvent& event) const {
  const auto& wanted = job_->request().logprobs;
  if (!wanted) return;
  const double norm = log_sum(logits);
  event.logprob =
      TokenLogprob{token, static_cast<float>(logits[static_cast<size_t>(token)] - norm)};
  event.top = strongest_of(logits, static_cast<size_t>(*wanted), norm);
}

// The row at `position` foretells the token behind it.
void GenerationRun::echo_logprobs(int64_t position, std::span<const float> logits) {
  const auto sampled = logits.first(static_cast<size_t>(engine_.sampled_vocab()));
  if (has_ended_) return;
  if (const auto checked = check_logits(sampled, position + 1); !checked) {
    return fail(checked.error());
  }
  const std::vector<TokenId>& prompt = job_->request().prompt;
  if (position == 0) {
    GenerationEvent first = event_of(Kind::kPromptToken, 0);
    first.token = prompt[0];
    job_->emit(std::move(first));
  }
  if (position + 1 >= std::ssize(prompt)) return;
  GenerationEvent event = event_of(Kind::kPromptToken, 0);
  event.token = prompt[static_cast<size_t>(position) + 1];
  tell_logprobs(sampled, event.token, event);
  job_->emit(std::move(event));
}

void GenerationRun::end_choice(FinishReason reason) {
  GenerationEvent end = event_of(Kind::kChoiceEnded, choice_);
  end.text = text_->finish();
  end.stop_string = text_->stopped_by();
  end.reason = text_->is_stopped() ? FinishReason::kStop : reason;
  job_->update([&](GenerationProgress& progress) {
    progress.processed_tokens = progress.prompt_tokens;
    progress.metrics = metrics_;
  });
  job_->emit(std::move(end));
  if (++choice_ < job_->request().num_choices) return begin_choice();
  has_ended_ = true;
  job_->emit(event_of(Kind::kFinished, 0));
}

void GenerationRun::fail(const Error& error) {
  has_ended_ = true;
  has_failed_ = error.code != ErrorCode::kCancelled;
  job_->fail(error);
}

void GenerationRun::end_cancelled(bool is_shutdown) {
  has_ended_ = true;
  job_->fail({ErrorCode::kCancelled, is_shutdown ? "the server is shutting down" : "cancelled"},
             !is_shutdown);
}

}  // namespace penstock
