// The word that somebody probably meant.
//
// Threads  plain functions
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock {

// Of `words` the one nearest to `typed` by letters changed, left out, added or swapped; empty when
// none is near.
std::string_view nearest(std::string_view typed, const std::vector<std::string_view>& words);

// "; did you mean --temp?", or nothing.
std::string suggestion(std::string_view typed, const std::vector<std::string_view>& words,
                       std::string_view before = "");

}  // namespace penstock
