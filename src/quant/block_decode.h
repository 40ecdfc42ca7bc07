// Decoding of blocks to f32, exactly: what the format says a block stands for, each value rounded
// at most once.
//
// This is the plain version, for any speed: what a kernel for a type is compared with, and what
// rows of embeddings and small tensors are read with.
//
// Threads  Plain functions over the caller's bytes; nothing is allocated.
// Limits   Bytes may lie at any address. A scale that is NaN or infinite gives such values.
// Source   legacy_blocks.h, k_blocks.h, codebook_blocks.h, grid_blocks.h, ternary_blocks.h
#pragma once

#include <cstddef>
#include <span>

#include "quant/block_type.h"

namespace penstock {

// Integers, activation formats and NVFP4 are no weights that we can decode.
bool is_decodable(BlockType type);

// values.size() is a multiple of the block, bytes.size() == bytes_of(layout_of(type), values).
void decode_blocks(BlockType type, std::span<const std::byte> bytes, std::span<float> values);

}  // namespace penstock
