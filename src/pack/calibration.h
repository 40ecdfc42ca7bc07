// What the experts of a source saw in a run over texts: for each layer the rows that went into its
// experts, and which expert each went to.
//
// Whoever runs the model fills it (cli/calibrate.h); the packer reads it layer by layer. It is larger
// than memory may be, so it lies in a file, which lives as long as the object: nobody reads it later,
// and a pack that goes on runs the model again.
//
//   Calibration made = PENSTOCK_TRY(Calibration::create(storage, path, shape));
//   made.add(layer, routing, inputs);             // each layer's tokens in their order
//   PENSTOCK_TRY(made.finish());
//   ExpertInputs inputs; PENSTOCK_TRY(made.load(layer, inputs));
//
// Threads  one
// Memory   a layer's rows in bf16, when they are loaded
// Errors   kIo, kOutOfMemory of the disk, with the file's name; add() keeps its error for finish()
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

struct CalibrationShape {
  int64_t num_layers = 0;  // that have experts
  int64_t num_experts = 0;
  int64_t hidden_size = 0;
  int64_t top_k = 0;
  int64_t tokens = 0;

  uint64_t layer_bytes() const;
  uint64_t bytes() const { return static_cast<uint64_t>(num_layers) * layer_bytes(); }
};

// Of one layer.
struct ExpertInputs {
  int64_t hidden_size = 0;
  int64_t top_k = 0;
  std::vector<uint16_t> rows;    // bf16 [tokens, hidden]
  std::vector<int32_t> experts;  // [tokens, top_k]
  std::vector<float> weights;    // [tokens, top_k]

  int64_t tokens() const { return std::ssize(experts) / top_k; }
};

class Calibration {
 public:
  // The file is made anew. `texts`: a sum of what is run, for the model's identity.
  static Result<Calibration> create(Storage& storage, const std::string& path,
                                    const CalibrationShape& shape, const Hash128& texts);
  Calibration(Calibration&&) = default;
  Calibration& operator=(Calibration&&) = delete;
  ~Calibration();

  const CalibrationShape& shape() const { return shape_; }
  const Hash128& texts() const { return texts_; }

  void add(int64_t layer, const Routing& routing, Rows inputs);
  Result<void> finish();  // all tokens of all layers are there

  Result<void> load(int64_t layer, ExpertInputs& inputs) const;

 private:
  Calibration(Storage& storage, const CalibrationShape& shape, const Hash128& texts)
      : storage_(&storage), shape_(shape), texts_(texts) {}

  // Where the three arrays of a layer begin.
  struct Places {
    uint64_t rows, experts, weights;
  };
  Places places(int64_t layer) const;

  Storage* storage_;
  CalibrationShape shape_;
  Hash128 texts_;
  std::unique_ptr<StorageFile> file_;
  std::vector<int64_t> tokens_;  // that each layer has
  std::vector<uint16_t> rows_;   // on their way
  Result<void> failure_;
};

}  // namespace penstock
