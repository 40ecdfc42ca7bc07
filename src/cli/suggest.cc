#include "cli/suggest.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

// Steps from a to b, each a letter changed, left out or added, or two neighbours swapped.
size_t steps_between(std::string_view a, std::string_view b) {
  const size_t width = b.size() + 1;
  std::vector<size_t> table((a.size() + 1) * width);
  const auto at = [&](size_t i, size_t j) -> size_t& { return table[i * width + j]; };
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        at(i, j) = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
    }
  }
  return at(a.size(), b.size());
}

}  // namespace

std::string_view nearest(std::string_view typed, const std::vector<std::string_view>& words) {
  constexpr size_t kLongest = 64;  // nobody mistypes more
  if (typed.empty() || typed.size() > kLongest) return {};
  std::string_view best;
  size_t best_steps = std::max<size_t>(1, typed.size() / 3) + 1;
  for (const std::string_view word : words) {
    const size_t steps = steps_between(typed, word);
    if (steps >= best_steps) continue;
    best = word;
    best_steps = steps;
  }
  return best;
}

std::string suggestion(std::string_view typed, const std::vector<std::string_view>& words,
                       std::string_view before) {
  const std::string_view word = nearest(typed, words);
  return word.empty() ? "" : fmt::format("; did you mean {}{}?", before, word);
}

}  // namespace penstock
