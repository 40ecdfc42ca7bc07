// Where the experts of a model lie in its file, and how the parts of one lie in a slot. Pure data.
//
// Every expert is one record of record_bytes; all records follow one another, expert by expert and
// layer by layer. A slot in memory has the layout of a record, so a read goes straight to its
// place. A record consists of parts in the order in which they are needed (gate and up, then down):
// the first part can be computed with while the second is still on its way.
//
//   record  | part 0 ........ pad | part 1 .... pad |     pad: to the next multiple of 4096
//
// Limits  first_record_offset, record_bytes and the offsets of parts are multiples of
//         kRecordAlignment; parts lie in ascending order and do not share a multiple of it.
//         check_table() compares all of it with the file.
// Errors  check_table(): kCorrupt, kInvalidArgument, naming the file
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

inline constexpr uint64_t kRecordAlignment = kDirectAlignmentMax;

struct PartExtent {
  uint64_t offset = 0;  // inside the record
  uint64_t bytes = 0;   // what the checksum covers; the read goes on to the next multiple of 4096
};

struct ExpertTable {
  const StorageFile* file = nullptr;  // outlives the store
  int num_layers = 0;
  int num_experts = 0;
  uint64_t first_record_offset = 0;
  uint64_t record_bytes = 0;
  std::vector<PartExtent> parts = {};
  std::vector<Hash128> checksums = {};  // [layer][expert][part]; empty: nothing to compare with
  uint64_t model_id = 0;                // goes into every checksum

  int num_parts() const { return static_cast<int>(parts.size()); }
  uint64_t slot_bytes() const { return record_bytes; }
  uint64_t record_offset(int layer, int expert) const {
    return first_record_offset +
           (static_cast<uint64_t>(layer) * static_cast<uint64_t>(num_experts) +
            static_cast<uint64_t>(expert)) *
               record_bytes;
  }
  size_t checksum_index(int layer, int expert, int part) const {
    return (static_cast<size_t>(layer) * static_cast<size_t>(num_experts) +
            static_cast<size_t>(expert)) *
               parts.size() +
           static_cast<size_t>(part);
  }
};

// The table describes a file that somebody else wrote: nothing of it is believed. kCorrupt when it
// does not fit the file, kUnsupported when the file cannot be read in such pieces.
Result<void> check_table(const ExpertTable& table);

}  // namespace penstock
