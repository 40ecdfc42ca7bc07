// Whether a piece of an unfinished pack is on the disk as it was written, by the sums of its journal.
//
// Pieces are numbered as in pack.h: the tensors of resident.bin, then the records of experts.bin.
//
// Threads  one
// Errors   kIo of the disk. Bytes that are not there or not the right ones are no error: false
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"
#include "io/storage.h"
#include "pack/journal.h"
#include "pack/pack_input.h"

namespace penstock {

// Read at once, where nothing asks for more.
inline constexpr uint64_t kCheckStepBytes = 4 << 20;

bool all_zero(std::span<const std::byte> bytes);  // as padding is

struct NewFiles {
  const StorageFile& resident;
  const StorageFile& experts;
};

// What memory is needed for it, aligned as AlignedMemory is.
uint64_t piece_check_bytes(const PackInput& input);

Result<bool> piece_is_good(const PackInput& input, const NewFiles& files,
                           std::span<std::byte> memory, size_t piece, const PieceSums& sums);

uint64_t piece_bytes(const PackInput& input, size_t piece);    // with padding
std::string piece_name(const PackInput& input, size_t piece);  // "tensor norm"

}  // namespace penstock
