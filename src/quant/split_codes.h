// Codes of 3, 5 and 6 bits, which cross the words of a file. In row panels (row_panels.h) they are kept
// as low parts, two or four bits, in the words of that width, and high parts behind them: of byte k of
// the n-th four of a word.
//
// Threads  plain functions; nothing is allocated
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/coding.h"
#include "quant/lane_words.h"

namespace penstock {

bool has_split_codes(const Coding& coding);

// From 64 codes of a file's stream to their low and high parts; bits: 3, 5 or 6.
const BitMoves& moves_to_split(int bits);

// The stream of 64 codes again, of one lane of words[2 * bits][16].
void join_codes(int bits, const uint32_t* words, size_t lane, std::span<std::byte> stream);

}  // namespace penstock
