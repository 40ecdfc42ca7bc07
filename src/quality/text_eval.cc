#include "quality/text_eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quality/prediction.h"

namespace penstock {
namespace {

struct Columns {
  std::vector<double> nll, tokens, bytes, change;
};

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

TextChange change_of(TextEval& eval, const Columns& columns) {
  TextChange change;
  const std::span<float> all = eval.divergences();
  const auto count = static_cast<double>(all.size());
  double sum = 0;
  for (const float value : all) sum += static_cast<double>(value);
  change.divergence_mean = sum / count;
  change.divergence_999 = quantile(all, 0.999);
  change.divergence_max = quantile(all, 1);
  change.same_top = eval.same_top();
  change.rest = eval.rest_sum() / count;
  change.nats = sum_of(columns.change) / sum_of(columns.tokens);
  change.nats_error = ratio_error(columns.change, columns.tokens);
  change.nats_95 = bootstrap_95(columns.change, columns.tokens);
  return change;
}

}  // namespace

double TextOutcome::perplexity() const {
  return std::exp(nats());
}

void TextEval::write_to(BaseWriter* writer, int top) {
  writer_ = writer;
  top_ = top;
}

void TextEval::compare(int64_t row, std::span<const std::byte> positions,
                       std::span<const float> logits) {
  const int top = base_->info().top;
  const uint64_t each = position_bytes(top);
  const PositionChange change =
      compare_position(positions.subspan(static_cast<size_t>(row) * each, each), top, logits);
  divergences_.push_back(static_cast<float>(change.divergence));
  same_top_.add(change.is_same_top);
  rest_sum_ += change.rest;
}

Result<TextScore> TextEval::score(size_t index, std::span<const TokenId> ids,
                                  std::stop_token stop) {
  TextScore score;
  const std::ptrdiff_t predictions = std::ssize(ids) - 1;
  for (std::ptrdiff_t begin = 0; begin < predictions; begin += window_tokens_) {
    const auto count = std::min<std::ptrdiff_t>(window_tokens_, predictions - begin);
    const auto window = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    const auto targets = ids.subspan(static_cast<size_t>(begin) + 1, static_cast<size_t>(count));
    std::span<const std::byte> positions;
    if (base_ != nullptr) positions = PENSTOCK_TRY(base_->read(index, begin, count));
    written_.clear();
    const auto add_row = [&](int64_t row, std::span<const float> logits) {
      const TokenId target = targets[static_cast<size_t>(row)];
      score.nll += negative_log_likelihood(logits, target);
      if (base_ != nullptr) compare(row, positions, logits);
      if (writer_ != nullptr) append_position(logits, target, top_, scratch_, written_);
    };
    PENSTOCK_TRY(session_.evaluate(window, add_row, on_route_, stop));
    if (writer_ != nullptr) PENSTOCK_TRY(writer_->append(written_));
    score.tokens += count;
  }
  if (!std::isfinite(score.nll)) {
    return Error{ErrorCode::kCorrupt, "the model's logits are not all numbers"};
  }
  return score;
}

Result<void> check_base_texts(const BaseFile& base, std::span<const EvalText> texts,
                              int64_t window_tokens, int64_t vocab_size) {
  const BaseInfo& info = base.info();
  const auto refused = [&](const std::string& what) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {}; make it again with --write-base", base.path(), what)};
  };
  if (info.vocab_size != vocab_size) {
    return refused(fmt::format("it is of a model with {} tokens, this one has {}", info.vocab_size,
                               vocab_size));
  }
  if (info.window_tokens != window_tokens) {
    return refused(fmt::format("it was made in windows of {} tokens, here they have {} (--context)",
                               info.window_tokens, window_tokens));
  }
  if (info.texts.size() != texts.size()) {
    return refused(
        fmt::format("it was made from {} texts, here are {}", info.texts.size(), texts.size()));
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto predictions = std::max<int64_t>(std::ssize(texts[i].ids) - 1, 0);
    const bool is_same = info.texts[i].tokens == tokens_hash(texts[i].ids) &&
                         info.texts[i].predictions == predictions;
    if (is_same) continue;
    return refused(fmt::format(
        "text {} is not the one that it was made from, or the tokenizer cuts it otherwise",
        texts[i].id));
  }
  return {};
}

Result<TextOutcome> evaluate_texts(Session& session, std::span<const EvalText> texts,
                                   const TextWishes& wishes, const std::stop_token& stop) {
  TextEval eval(session, wishes.window_tokens, wishes.on_route);
  eval.compare_with(wishes.base);
  if (wishes.writer != nullptr) eval.write_to(wishes.writer, wishes.top);
  TextOutcome outcome;
  Columns columns;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (wishes.progress) wishes.progress(i, texts.size());
    const Result<TextScore> scored = eval.score(i, texts[i].ids, stop);
    if (!scored) return scored.error().with_context("text " + texts[i].id);
    const TextScore score = *scored;
    if (wishes.writer != nullptr) {
      wishes.writer->end_text({.id = texts[i].id,
                               .tokens = tokens_hash(texts[i].ids),
                               .predictions = score.tokens,
                               .nll = score.nll,
                               .positions = {}});
    }
    if (score.tokens == 0) continue;
    ++outcome.texts;
    outcome.tokens += score.tokens;
    outcome.bytes += texts[i].bytes;
    outcome.nll += score.nll;
    columns.nll.push_back(score.nll);
    columns.tokens.push_back(static_cast<double>(score.tokens));
    columns.bytes.push_back(static_cast<double>(texts[i].bytes));
    if (wishes.base != nullptr) {
      columns.change.push_back(score.nll - wishes.base->info().texts[i].nll);
    }
  }
  if (outcome.tokens == 0) {
    return Error{ErrorCode::kInvalidArgument, "the texts have no token that could be predicted"};
  }
  outcome.nats_error = ratio_error(columns.nll, columns.tokens);
  outcome.bits_per_byte = outcome.nll / std::log(2.0) / static_cast<double>(outcome.bytes);
  outcome.bits_per_byte_error = ratio_error(columns.nll, columns.bytes) / std::log(2.0);
  if (wishes.base != nullptr) outcome.change = change_of(eval, columns);
  return outcome;
}

}  // namespace penstock
