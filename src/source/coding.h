// Where the bytes of one matrix lie in the files of a checkpoint.
//
// One to three planes (quant/coding.h). No plane need be aligned to anything. Nothing here is in
// memory: these are places in files.
//
// Limits  All of it was compared with the files when the source was opened.
#pragma once

#include <cstdint>

#include "quant/coding.h"

namespace penstock {

struct Plane {
  uint32_t file = 0;       // index into ModelSource::files()
  uint64_t offset = 0;     // of row 0
  uint64_t row_bytes = 0;  // scales of FP8: of 128 rows
};

struct StoredMatrix {
  Coding coding;
  int64_t rows = 0;
  int64_t columns = 0;
  Plane codes = {};
  Plane scales = {};
  Plane biases = {};
};

}  // namespace penstock
