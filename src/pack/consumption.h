// In what order the pieces of a pack are written so that the files of its source can go one by one.
//
// A file may go once every piece that is made from it is written. So pieces are written file by file:
// always those of the file for which the fewest bytes are missing. Files that no piece needs, or that
// the last piece or the last step needs, stay until the model is complete.
//
// The order follows from the plan and the sizes of files alone: a run that goes on has the same one.
//
// Units  bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace penstock {

// One piece of the new model: its size, and the files of the source that it is made from.
struct PieceSource {
  uint64_t bytes = 0;
  std::vector<uint32_t> files = {};  // ascending
};

struct ConsumedFile {
  uint64_t bytes = 0;
  bool is_kept = false;     // until the model is complete
  bool is_gone = false;     // already
  uint64_t here_bytes = 0;  // room that one takes before it arrives: a half one, or one left over
};

inline constexpr size_t kWhenComplete = SIZE_MAX;

struct Consumption {
  std::vector<size_t> order;        // pieces, as they are written
  std::vector<size_t> place;        // [piece]: where in `order`
  std::vector<size_t> spent_after;  // [file]: so many pieces of `order`, or kWhenComplete
};

// Pieces as they are numbered, for who consumes nothing.
Consumption plain_order(size_t num_pieces);

// What goes next: the file for which the fewest bytes are missing, or, where files come only when they
// are needed, one of those that are here already before another is begun.
enum class NextFile { kFewestMissing, kBegun };

Consumption plan_consumption(std::span<const PieceSource> pieces,
                             std::span<const ConsumedFile> files,
                             NextFile next = NextFile::kFewestMissing);

// How much more the disk holds at the worst moment than after `pieces_done` pieces: what is written
// less what went. `other_bytes`: of what is written at the end, while the last files are still there.
uint64_t staging_bytes(const Consumption& consumption, std::span<const PieceSource> pieces,
                       std::span<const ConsumedFile> files, size_t pieces_done,
                       uint64_t other_bytes);

// Of files that come when the first piece needs them and go when they are spent: what is written after
// `pieces_done` pieces and the files that are here take at most so much more than now.
struct ArrivalRoom {
  uint64_t bytes = 0;
  size_t num_files = 0;  // here at a time, at most
};

ArrivalRoom arrival_room(const Consumption& consumption, std::span<const PieceSource> pieces,
                         std::span<const ConsumedFile> files, size_t pieces_done,
                         uint64_t other_bytes);

}  // namespace penstock
