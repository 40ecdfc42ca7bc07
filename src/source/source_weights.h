// The resident tensors of a checkpoint in memory: how each lies there, and loading them.
//
// Floats become panels, as packing makes them; what is quantised stays in the codes of its file, rows
// in normal order, side by side for the kernels (quant/row_panels.h) where its coding can be. So
// loading changes no value and takes no more memory than the file has, but for F16, which becomes f32,
// the last panel's missing rows, and FP8's scales, one for each row.
//
// Memory  load() fills bytes() bytes of the caller's and keeps none.
// Errors  load(): as ModelSource
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/resident_weights.h"
#include "quant/row_panels.h"
#include "source/model_source.h"

namespace penstock {

class SourceWeights {
 public:
  explicit SourceWeights(const ModelSource& source);

  uint64_t bytes() const { return bytes_; }

  // memory: 64-byte aligned. What is made views it, and orders of columns in `source`.
  Result<ResidentWeights> load(
      ModelSource& source, std::span<std::byte> memory,
      const std::function<void(uint64_t done, uint64_t total)>& progress) const;

 private:
  enum class Form : uint8_t { kVector, kPanels, kCoded };
  struct Placed {
    Form form = Form::kVector;
    DType dtype = DType::kF32;  // of panels
    Coding coding = {};         // of coded rows
    bool in_panels = false;     // they lie side by side
    uint64_t offset = 0;        // of values, panels or codes
    uint64_t scales = 0, biases = 0;
  };

  Placed place(const SourceTensor& tensor);
  uint64_t reserve(uint64_t bytes);
  static Result<void> load_panels(ModelSource& source, const SourceTensor& tensor, DType dtype,
                                  std::byte* target);
  static Result<void> read_coded(ModelSource& source, const SourceTensor& tensor, CodedPlane plane,
                                 int64_t first, int64_t count, std::byte* target);
  static Result<void> load_plane(ModelSource& source, const SourceTensor& tensor,
                                 const Placed& placed, CodedPlane plane, std::byte* target);
  static Result<CodedRows> load_coded(ModelSource& source, const SourceTensor& tensor,
                                      const Placed& placed, std::byte* memory);

  std::vector<Placed> placed_;  // of source.tensors()
  uint64_t bytes_ = 0;
};

}  // namespace penstock
