// Random weights in their stored form, as fast as memory can be copied.
//
// A model of 200 GB from a seed must be limited by the disk and not by a generator of numbers. So a
// few MiB of random blocks are made once per kind of matrix, and every matrix is put together from
// pieces of them at places that a hash of (seed, matrix, piece) draws. No two matrices have the
// same bytes, and every byte follows from the seed alone, in whatever order matrices are asked for.
//
// Entries are uniform around zero with the wanted standard deviation: codes of a quantised type are
// uniform, with one scale and one bias for all groups.
//
// Threads  one
// Memory   kPoolBytes for each pair of dtype and deviation that was asked for
// Limits   columns of matrices are multiples of kGroupColumns
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "compute/panel.h"

namespace penstock {

// A well-mixed function of both: the random numbers of this file, by index.
uint64_t mix_bits(uint64_t a, uint64_t b);

class RandomWeights {
 public:
  static constexpr int64_t kPieceBlocks = 16;

  explicit RandomWeights(uint64_t seed) : seed_(seed) {}

  // Blocks of the matrix number `matrix`, from block `first_block` (a multiple of kPieceBlocks) on.
  void fill_blocks(DType dtype, float deviation, uint64_t matrix, int64_t first_block,
                   std::span<std::byte> out);

  // A whole matrix; missing rows of the last panel become zeros.
  void fill_matrix(DType dtype, float deviation, uint64_t matrix, int64_t rows, int64_t columns,
                   std::span<std::byte> out);

  // Uniform values in [low, high).
  void fill_values(uint64_t matrix, float low, float high, std::span<float> out) const;

 private:
  const std::vector<std::byte>& pool(DType dtype, float deviation);

  uint64_t seed_;
  std::map<std::pair<DType, float>, std::vector<std::byte>> pools_;
};

// Zeros in the rows of a panel from `rows` on.
void clear_missing_rows(DType dtype, int64_t rows, std::span<std::byte> panel);

}  // namespace penstock
