// How much text can fit into a context at all: beyond that a prompt is refused before it is read
// whole, because text is part of the budget.
//
// A token stands for no more bytes than the longest one of the vocabulary, and to bring a text into
// its normal form makes it no shorter than a third.
//
// Threads  plain functions
#pragma once

#include <cstdint>

#include "engine/engine.h"

namespace penstock {

uint64_t text_bytes_max(const Engine& engine);

// For a text that has more bytes than that.
Error text_too_long(const Engine& engine);

}  // namespace penstock
