// How well a model predicts texts, and how far its predictions are from a reference run's.
//
// Long texts are judged in windows, each from an empty state, so that every token but a text's first is
// predicted once: as the recorded reference scores are.
//
//   TextEval eval(session, {.window_tokens = 1024});
//   eval.compare_with(&base);                          // and, or neither:
//   eval.write_to(&writer, 64);
//   for (...) outcome.add(PENSTOCK_TRY(eval.score(index, ids, stop)));
//
// Threads  the computing thread
// Memory   the positions of one window, and per position of the texts four bytes where a base is given
// Errors   the session's; kCorrupt where logits are no numbers; of the base
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/session.h"
#include "quality/base_file.h"
#include "quality/significance.h"

namespace penstock {

inline constexpr int64_t kScoreWindowTokens = 1024;

struct TextScore {
  int64_t tokens = 0;  // predicted ones
  double nll = 0;      // nats
};

class TextEval {
 public:
  // The session's context holds a window. vocab_size: rows of logits.
  TextEval(Session& session, int64_t window_tokens, RouteObserver on_route = {})
      : session_(session), window_tokens_(window_tokens), on_route_(std::move(on_route)) {}

  // The base's text with the index given to score(). nullptr: none.
  void compare_with(BaseFile* base) { base_ = base; }
  void write_to(BaseWriter* writer, int top);

  Result<TextScore> score(size_t index, std::span<const TokenId> ids, std::stop_token stop);

  // Of all positions so far: the base's divergence from this model.
  std::span<float> divergences() { return divergences_; }
  const Share& same_top() const { return same_top_; }
  double rest_sum() const { return rest_sum_; }

 private:
  void compare(int64_t row, std::span<const std::byte> positions, std::span<const float> logits);

  Session& session_;
  int64_t window_tokens_;
  RouteObserver on_route_;
  BaseFile* base_ = nullptr;
  BaseWriter* writer_ = nullptr;
  int top_ = 0;
  std::vector<float> divergences_;
  Share same_top_;
  double rest_sum_ = 0;
  std::vector<TokenId> scratch_;
  std::vector<std::byte> written_;  // positions of this window
};

// A text of the set, cut into tokens.
struct EvalText {
  std::string id;
  uint64_t bytes = 0;
  std::vector<TokenId> ids;
};

// Whether the base was made from these texts, tokens and windows. kInvalidArgument saying what differs.
Result<void> check_base_texts(const BaseFile& base, std::span<const EvalText> texts,
                              int64_t window_tokens, int64_t vocab_size);

struct TextChange {  // from the base
  double nats = 0;   // per token; above 0: worse
  double nats_error = 0;
  Interval nats_95;
  double divergence_mean = 0, divergence_999 = 0, divergence_max = 0;
  Share same_top;
  double rest = 0;  // the mean probability of what the base does not keep
};

struct TextOutcome {
  int64_t texts = 0, tokens = 0;
  uint64_t bytes = 0;
  double nll = 0;
  double nats_error = 0;  // of nll / tokens
  double bits_per_byte = 0, bits_per_byte_error = 0;
  std::optional<TextChange> change;

  double nats() const { return nll / static_cast<double>(tokens); }
  double perplexity() const;
};

using EvalProgress = std::function<void(uint64_t done, uint64_t total)>;

// All of them. base and writer may be nullptr; the base was checked.
struct TextWishes {
  int64_t window_tokens = kScoreWindowTokens;
  BaseFile* base = nullptr;
  BaseWriter* writer = nullptr;
  int top = 0;  // of the writer
  EvalProgress progress = {};
  RouteObserver on_route = {};
};
Result<TextOutcome> evaluate_texts(Session& session, std::span<const EvalText> texts,
                                   const TextWishes& wishes, const std::stop_token& stop);

}  // namespace penstock
