// Which tokens may come next: what a sampler needs to know of a grammar, and all of it.
//
//   Sampler::sample(logits, PENSTOCK_TRY(mask.allowed()));   // forbidden tokens cannot be drawn
//   PENSTOCK_TRY(mask.accept(token));                         // exactly one call for each token
//
// A draft is checked in the same order: allowed(), sample, accept for its first row, then for the
// next. So nothing has to be taken back.
//
// Threads  one at a time.
// Errors   when the text cannot go on in a way that can be told (see the implementation); the
//          answer then ends with this error.
// See also engine/sampler.h applies it, grammar/grammar_mask.h makes one from a grammar
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "text/token.h"

namespace penstock {

class TokenMask {
 public:
  virtual ~TokenMask() = default;

  // Bit id % 64 of word id / 64; at least one is set. Tokens that end the answer are among them
  // where it may end. Valid until the next call.
  virtual Result<std::span<const uint64_t>> allowed() = 0;

  // The token that was chosen among them.
  virtual Result<void> accept(TokenId id) = 0;
};

}  // namespace penstock
