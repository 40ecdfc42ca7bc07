// A short walk through a compiled grammar, for the fuzz targets of grammars.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/test_grammar.h"

namespace penstock {

// The text that was walked; whether it may end where it stands.
struct Walked {
  std::string text;
  bool is_whole = false;
};

inline Walked walk_a_little(const Grammar& grammar, uint64_t seed) {
  std::mt19937_64 random(seed);
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  Walked walked;
  for (int i = 0; i < 12; ++i) {
    const auto mask = matcher.mask(state);
    if (!mask) return {};  // too ambiguous; told as an error
    std::vector<size_t> allowed;
    for (size_t id = 0; id < test_vocabulary().size(); ++id) {
      if (((*mask)[id / 64] >> (id % 64) & 1) != 0) allowed.push_back(id);
    }
    walked.is_whole = matcher.can_end(state);
    if (allowed.empty()) PENSTOCK_CHECK(walked.is_whole);
    if (allowed.empty() || (walked.is_whole && random() % 4 == 0)) return walked;
    const std::string& piece = test_vocabulary()[allowed[random() % allowed.size()]];
    const auto accepted = matcher.accept(state, piece);
    if (!accepted) return {};  // too ambiguous inside of the token
    PENSTOCK_CHECK(*accepted);
    walked.text += piece;
  }
  walked.is_whole = matcher.can_end(state);
  return walked;
}

}  // namespace penstock
