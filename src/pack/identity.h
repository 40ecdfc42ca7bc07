// Who a model is: its id, and its key while it is being packed.
//
// The id goes into every checksum and so must be known before the first weight is read. It follows
// from the configuration, the options, every file's name, size and header, and the first and the
// middle 256 bytes of every tensor: fine-tunes of one model, which agree in all but the weights,
// get different ids. It does not depend on paths or times: the same source and options give the
// same bytes everywhere.
//
// Errors  derive_model_id(): kIo of reading the samples
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "format/checkpoint.h"
#include "io/checksum.h"
#include "pack/pack.h"
#include "pack/plan.h"
#include "source/model_source.h"

namespace penstock {

// Words of the manifest: "keep", "q4".
std::string option_text(const std::optional<DType>& type);
std::string option_text(const std::optional<MatrixForm>& form);
std::string experts_text(const StoredTypes& types);  // "q2, down q3" where they differ

// Who made the codes, where it was not rounding; else empty.
std::string quantiser_text(const StoredTypes& types);

// What derive_model_id() reads of the weights, for who can have it read together. May overlap.
std::vector<FileRange> sample_ranges(const Checkpoint& checkpoint);
std::vector<FileRange> sample_ranges(const ModelSource& source);

Result<uint64_t> derive_model_id(Checkpoint& checkpoint, const StoredTypes& types);
Result<uint64_t> derive_model_id(ModelSource& source, const StoredTypes& types);

// Of an unfinished pack: the id, and which very files it is made from (inode and time included).
Hash128 derive_pack_key(const Checkpoint& checkpoint, uint64_t model_id);
Hash128 derive_pack_key(const ModelSource& source, uint64_t model_id);

}  // namespace penstock
