#include "quality/prediction.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"

namespace penstock {
namespace {

constexpr double kCodesPerNat = 2048;
constexpr uint16_t kNothing = UINT16_MAX;
// Below what a code can say; keeps the logarithm of a rest that rounding has made nothing.
constexpr double kProbabilityMin = 1e-14;

constexpr size_t kRestAt = sizeof(float);
constexpr size_t kCodesAt = kRestAt + sizeof(uint16_t);
constexpr size_t kTokenBytes = 3;

uint16_t code_of(double log_probability) {
  const double code = std::round(-log_probability * kCodesPerNat);
  return code < kNothing ? static_cast<uint16_t>(std::max(0.0, code)) : kNothing;
}

double probability_of(uint16_t code) {
  return code == kNothing ? 0 : std::exp(-static_cast<double>(code) / kCodesPerNat);
}

template <class T>
T read_at(std::span<const std::byte> bytes, size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void append(std::vector<std::byte>& out, T value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

uint32_t token_at(std::span<const std::byte> position, int top, int i) {
  const size_t at =
      kCodesAt + static_cast<size_t>(top) * sizeof(uint16_t) + static_cast<size_t>(i) * kTokenBytes;
  uint32_t token = 0;
  std::memcpy(&token, position.data() + at, kTokenBytes);
  return token;
}

uint16_t code_at(std::span<const std::byte> position, int i) {
  return read_at<uint16_t>(position, kCodesAt + static_cast<size_t>(i) * sizeof(uint16_t));
}

double term(double p, double log_q) {
  return p > 0 ? p * (std::log(p) - log_q) : 0;
}

}  // namespace

double log_sum_of(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

double negative_log_likelihood(std::span<const float> logits, TokenId target) {
  return log_sum_of(logits) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

TokenId most_likely(std::span<const float> logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

void append_position(std::span<const float> logits, TokenId target, int top,
                     std::vector<TokenId>& scratch, std::vector<std::byte>& out) {
  PENSTOCK_CHECK(top >= 1 && static_cast<size_t>(top) <= logits.size());
  const auto logit = [&](TokenId id) { return logits[static_cast<size_t>(id)]; };
  const auto is_stronger = [&](TokenId a, TokenId b) {
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  };
  const double log_sum = log_sum_of(logits);
  scratch.resize(logits.size());
  std::iota(scratch.begin(), scratch.end(), TokenId{0});
  std::partial_sort(scratch.begin(), scratch.begin() + top, scratch.end(), is_stronger);
  // The rest is summed by itself: one less what is kept would lose a small one.
  double rest = 0;
  for (size_t i = static_cast<size_t>(top); i < scratch.size(); ++i) {
    rest += std::exp(static_cast<double>(logit(scratch[i])) - log_sum);
  }
  append(out, static_cast<float>(static_cast<double>(logit(target)) - log_sum));
  append(out, rest > 0 ? code_of(std::log(rest)) : kNothing);
  const auto kept = std::span(scratch).first(static_cast<size_t>(top));
  for (const TokenId id : kept) append(out, code_of(static_cast<double>(logit(id)) - log_sum));
  for (const TokenId id : kept) {
    const auto token = static_cast<uint32_t>(id);
    const auto bytes = std::as_bytes(std::span(&token, 1)).first(kTokenBytes);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
}

PositionChange compare_position(std::span<const std::byte> position, int top,
                                std::span<const float> logits) {
  const double log_sum = log_sum_of(logits);
  const double rest = probability_of(read_at<uint16_t>(position, kRestAt));
  double sum = rest;
  for (int i = 0; i < top; ++i) sum += probability_of(code_at(position, i));
  if (sum <= 0) sum = 1;  // only where the bytes are no position
  PositionChange change;
  double kept = 0;  // by this model
  for (int i = 0; i < top; ++i) {
    const double log_q =
        static_cast<double>(logits[static_cast<size_t>(token_at(position, top, i))]) - log_sum;
    kept += std::exp(log_q);
    change.divergence += term(probability_of(code_at(position, i)) / sum, log_q);
  }
  change.rest = rest / sum;
  change.divergence += term(change.rest, std::log(std::max(1 - kept, kProbabilityMin)));
  change.is_same_top = static_cast<uint32_t>(most_likely(logits)) == token_at(position, top, 0);
  return change;
}

bool position_fits(std::span<const std::byte> position, int top, int64_t vocab_size) {
  for (int i = 0; i < top; ++i) {
    if (token_at(position, top, i) >= vocab_size) return false;
  }
  return std::isfinite(position_log_likelihood(position));
}

float position_log_likelihood(std::span<const std::byte> position) {
  return read_at<float>(position, 0);
}

}  // namespace penstock
