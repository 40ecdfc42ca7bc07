// Files of states: what a prefix of tokens left behind, or a part of it, with a checksum over all.
//
//   offset  size
//   0       8     "PSPREFX1", the last one: the version
//   8       16    identity of model and arithmetic: whose states these are
//   24      8     n, the number of tokens
//   32      4     first page that is here
//   36      4     the one behind the last
//   40      4     1: the set of recurrent states comes first
//   44      4     0
//   48      8     m, the number of floats
//   56      4 n   token ids
//   ...     4 m   the set, then the pages, in the order of SequenceMemory's pieces
//   ...     16    XXH3-128 of everything before, low then high
//
// Little-endian. The tokens stand in the file, so that a file is used for exactly these, whatever
// its name is.
//
// Threads  the computing thread
// Memory   `staging`, at least kPieceFloatsMax floats; the tokens
// Errors   read: kNotFound; kCorrupt for damage; kUnsupported for another version or model; kIo.
//          write: those of io/output_file.h
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"
#include "model/state.h"
#include "text/token.h"

namespace penstock {

struct PrefixRecord {
  Hash128 identity;
  std::span<const TokenId> tokens;
  int64_t page_begin = 0, page_end = 0;
  bool has_set = false;
};

// Of `state`, which holds at least these tokens, and exactly these where there is a set.
Result<uint64_t> write_record(Storage& storage, const std::string& path, const PrefixRecord& record,
                              const SequenceState& state, std::span<float> staging);

// Into pages and set that `state` has taken for it. After an error their bytes are anything.
Result<void> read_record(Storage& storage, const std::string& path, const PrefixRecord& record,
                         SequenceState& state, std::span<float> staging);

uint64_t record_bytes(const PrefixRecord& record, const SequenceState& state);

// The tokens that a file is about; at most tokens_max.
Result<std::vector<TokenId>> read_record_tokens(Storage& storage, const std::string& path,
                                                const Hash128& identity, int64_t tokens_max);

}  // namespace penstock
