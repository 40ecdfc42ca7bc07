// What a model's logits say of the token that follows: its likelihood, and how far two models are
// apart there.
//
// A position of a reference run keeps the K most likely tokens with their probabilities and the sum
// of the rest, 5 K + 6 bytes. A probability p is the 16-bit number 2048 * -ln(p), rounded: within
// 2.5e-4 of p down to 1e-14; beyond that it counts as 0. What is read is made to sum to 1 again.
//
// The divergence of a position is that of K + 1 outcomes, the rest being one: never above the one over
// all tokens, and below it only by what differs within the rest. docs/quality.md says how much that is.
//
// Layout   of a position, little-endian: f32 ln p(the text's token), u16 the rest's code, K times u16
//          code, K times u24 token, by falling probability and then by rising token
// Threads  plain functions
// Errors   none: bytes are taken as they come, any of them are numbers
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "text/token.h"

namespace penstock {

// Logits as logarithms of probabilities: logit - log_sum.
double log_sum_of(std::span<const float> logits);

// -ln of the probability of `target`, in nats.
double negative_log_likelihood(std::span<const float> logits, TokenId target);

// The most likely token; of equal ones the first.
TokenId most_likely(std::span<const float> logits);

// A position takes its tokens from a vocabulary of at most this size.
inline constexpr int64_t kPositionVocabMax = 1 << 24;

constexpr uint64_t position_bytes(int top) {
  return 6 + uint64_t{5} * static_cast<uint64_t>(top);
}

// top: at most logits.size(). `scratch` is kept between calls.
void append_position(std::span<const float> logits, TokenId target, int top,
                     std::vector<TokenId>& scratch, std::vector<std::byte>& out);

struct PositionChange {
  double divergence = 0;  // KL of the reference from this model, nats
  double rest = 0;        // the reference's probability of what is not kept
  bool is_same_top = false;
};

// position: position_bytes(top) of them, whose tokens are below logits.size() (position_fits()).
PositionChange compare_position(std::span<const std::byte> position, int top,
                                std::span<const float> logits);
bool position_fits(std::span<const std::byte> position, int top, int64_t vocab_size);
float position_log_likelihood(std::span<const std::byte> position);

}  // namespace penstock
