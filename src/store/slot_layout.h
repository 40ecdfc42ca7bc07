// Which parts of an expert come with one read, and where in a slot that read and what it brings lies.
//
// A request costs a disk as much as some ten kilobytes, whatever it brings, and foreign files cut an
// expert into up to nine parts. So parts that are neighbours in a file, in every expert of a layer,
// come together where one of them is small. Large ones stay apart: gate and up can be computed
// while down is read, and threads share what has come.
//
//   file    ....|....[gate.......][up......][down....]...|      | multiples of kReadAlignment
//   area   |pad |....[gate.......][up......][down....]...|      as it is read
//   area   |[gate.........][up........][down....]               as it is laid out, part by part
//
// A part that is laid out anew may be larger than it was: the pad is what the parts before it need, so
// that nothing is written over that has not been laid out yet.
//
// Threads  const calls from any
// Memory   some bytes for each part of each layer
// See also store/expert_table.h, docs/performance/in_place.md
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/expert_table.h"

namespace penstock {

// Parts that come with one read, of every expert of a layer.
struct JoinedRead {
  std::vector<int> parts;  // in the order in which they lie in the file
  // Into the slot, multiples of kReadAlignment: of the area, and of the window in it.
  uint64_t area_offset = 0;
  uint64_t window_offset = 0;
};

class SlotLayout {
 public:
  // Of a table that was checked, or that is known to be right and has no files yet.
  explicit SlotLayout(const ExpertTable& table);

  uint64_t slot_bytes() const { return slot_bytes_; }  // a multiple of kReadAlignment
  int num_parts_max() const { return num_parts_max_; }
  int num_reads_max() const { return num_reads_max_; }
  std::span<const JoinedRead> reads(int layer) const { return reads_[static_cast<size_t>(layer)]; }
  int num_reads(int layer) const { return static_cast<int>(reads(layer).size()); }
  // Which read brings the part.
  int read_of(int layer, int part) const {
    return read_of_[static_cast<size_t>(layer * num_parts_max_ + part)];
  }
  // Of all reads of an expert.
  uint64_t read_bytes(const ExpertTable& table, int layer, int expert) const;

 private:
  uint64_t slot_bytes_ = 0;
  int num_parts_max_ = 0;
  int num_reads_max_ = 0;
  std::vector<std::vector<JoinedRead>> reads_;  // [layer]
  std::vector<int> read_of_;                    // [layer][part]
};

// Where the bytes of a part are written that does not stay where it was read to, behind what ends at
// `end` in the same area.
uint64_t place_behind(uint64_t end);

// Bytes of a part once it has come.
uint64_t bytes_in_slot(const PartPlace& part);

}  // namespace penstock
