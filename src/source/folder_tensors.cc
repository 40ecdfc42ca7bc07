#include "source/folder_tensors.h"

#include <fmt/format.h>

#include <optional>

#include "format/text.h"
#include "quant/fp8.h"

namespace penstock {
namespace {

std::optional<BlockType> float_type(const TensorInfo& info) {
  if (info.type == "F32") return BlockType::kF32;
  if (info.type == "F16") return BlockType::kF16;
  if (info.type == "BF16") return BlockType::kBF16;
  return std::nullopt;
}

std::vector<int64_t> shape_of(int64_t leading, int64_t rows, int64_t columns) {
  return leading == 0 ? std::vector<int64_t>{rows, columns}
                      : std::vector<int64_t>{leading, rows, columns};
}

StoredMatrix sized(const Coding& coding, const std::vector<int64_t>& shape) {
  StoredMatrix matrix;
  matrix.coding = coding;
  matrix.columns = shape.back();
  matrix.rows = shape.size() > 1 ? shape[shape.size() - 2] : 1;
  return matrix;
}

}  // namespace

Error FolderTensors::error(ErrorCode code, const std::string& reason) const {
  return {code, fmt::format("{}: {}", checkpoint_->directory(), reason)};
}

Plane FolderTensors::plane(const CheckpointTensor& tensor, uint64_t row_bytes) const {
  return {static_cast<uint32_t>(tensor.shard), tensor.info.offset, row_bytes};
}

Result<const CheckpointTensor*> FolderTensors::take(const std::string& name,
                                                    const std::vector<int64_t>& shape) {
  const CheckpointTensor* tensor = checkpoint_->find(name);
  if (tensor == nullptr) {
    return error(ErrorCode::kNotFound,
                 fmt::format("tensor {} {} is missing{}", escaped(name), shape_text(shape),
                             checkpoint_->where_missing(name)));
  }
  if (tensor->info.shape != shape) {
    return error(ErrorCode::kCorrupt,
                 fmt::format("tensor {} has shape {}, config.json asks for {}", escaped(name),
                             shape_text(tensor->info.shape), shape_text(shape)));
  }
  taken_.insert(tensor);
  return tensor;
}

Result<StoredMatrix> FolderTensors::floats(const std::string& name,
                                           const std::vector<int64_t>& shape) {
  const CheckpointTensor* tensor = PENSTOCK_TRY(take(name, shape));
  const std::optional<BlockType> type = float_type(tensor->info);
  if (!type) {
    return error(ErrorCode::kUnsupported, fmt::format("tensor {} is {}, expected BF16, F16 or F32",
                                                      escaped(name), tensor->info.type));
  }
  StoredMatrix matrix = sized({.block = *type}, shape);
  matrix.codes = plane(*tensor, row_bytes(matrix.coding, matrix.columns).codes);
  return matrix;
}

Result<StoredMatrix> FolderTensors::fp8(const std::string& name,
                                        const std::vector<int64_t>& shape) {
  const CheckpointTensor* codes = PENSTOCK_TRY(take(name + ".weight", shape));
  std::vector<int64_t> squares = shape;
  for (size_t i = shape.size() - 2; i < shape.size(); ++i) {
    squares[i] = (shape[i] + kFp8Square - 1) / kFp8Square;
  }
  const std::string scale_name = name + ".weight_scale_inv";
  if (!has(scale_name)) {
    return error(ErrorCode::kCorrupt, fmt::format("tensor {} is FP8, and its scales {} are missing",
                                                  escaped(name + ".weight"), escaped(scale_name)));
  }
  const CheckpointTensor* scales = PENSTOCK_TRY(take(scale_name, squares));
  const std::optional<DType> dtype = scales->info.float_dtype();
  if (!dtype) {
    return error(ErrorCode::kUnsupported, fmt::format("tensor {} is {}, expected BF16, F16 or F32",
                                                      escaped(scale_name), scales->info.type));
  }
  StoredMatrix matrix = sized({.kind = Coding::Kind::kFp8, .scale = *dtype}, shape);
  const RowBytes bytes = row_bytes(matrix.coding, matrix.columns);
  matrix.codes = plane(*codes, bytes.codes);
  matrix.scales = plane(*scales, bytes.scales);
  return matrix;
}

Result<StoredMatrix> FolderTensors::mlx(const std::string& name, std::vector<int64_t> shape) {
  const MlxModule& module = quantisation_->of(name);
  const int64_t columns = shape.back();
  if (columns % module.group != 0 || columns * module.bits % 32 != 0) {
    return error(ErrorCode::kCorrupt,
                 fmt::format("module {} has rows of {}, which {} bits in groups of {} do not fit",
                             escaped(name), columns, module.bits, module.group));
  }
  const std::vector<int64_t> logical = shape;
  shape.back() = columns * module.bits / 32;
  const CheckpointTensor* codes = checkpoint_->find(name + ".weight");
  if (codes->info.shape != shape) {
    return error(
        ErrorCode::kCorrupt,
        fmt::format("tensor {} has shape {}; {} bits in groups of {}, as config.json says, "
                    "make {}",
                    escaped(name + ".weight"), shape_text(codes->info.shape), module.bits,
                    module.group, shape_text(shape)));
  }
  taken_.insert(codes);
  shape.back() = columns / module.group;
  const CheckpointTensor* scales = PENSTOCK_TRY(take(name + ".scales", shape));
  if (module.is_mxfp4) {
    if (scales->info.type != "U8") {
      return error(ErrorCode::kUnsupported,
                   fmt::format("tensor {} is {}, expected U8", escaped(name + ".scales"),
                               scales->info.type));
    }
    StoredMatrix matrix = sized({.kind = Coding::Kind::kMlxMxfp4}, logical);
    const RowBytes bytes = row_bytes(matrix.coding, columns);
    matrix.codes = plane(*codes, bytes.codes);
    matrix.scales = plane(*scales, bytes.scales);
    return matrix;
  }
  const CheckpointTensor* biases = PENSTOCK_TRY(take(name + ".biases", shape));
  const std::optional<DType> dtype = scales->info.float_dtype();
  if (!dtype || biases->info.type != scales->info.type) {
    return error(ErrorCode::kUnsupported,
                 fmt::format("tensors {} and its biases are {} and {}, expected both BF16, F16 or "
                             "F32",
                             escaped(name + ".scales"), scales->info.type, biases->info.type));
  }
  Coding coding{.kind = Coding::Kind::kAffine};
  coding.affine = {static_cast<int>(module.bits), module.group, *dtype};
  StoredMatrix matrix = sized(coding, logical);
  const RowBytes bytes = row_bytes(coding, columns);
  matrix.codes = plane(*codes, bytes.codes);
  matrix.scales = plane(*scales, bytes.scales);
  matrix.biases = plane(*biases, bytes.biases);
  return matrix;
}

Result<StoredMatrix> FolderTensors::module(const std::string& name, int64_t leading, int64_t rows,
                                           int64_t columns) {
  const std::vector<int64_t> shape = shape_of(leading, rows, columns);
  const CheckpointTensor* weight = checkpoint_->find(name + ".weight");
  if (weight == nullptr || float_type(weight->info)) return floats(name + ".weight", shape);
  if (weight->info.type == "F8_E4M3") return fp8(name, shape);
  if (weight->info.type == "U32" && has(name + ".scales") &&
      quantisation_->kind == Quantisation::Kind::kMlx) {
    return mlx(name, shape);
  }
  return error(
      ErrorCode::kUnsupported,
      fmt::format("tensor {} is {}; read are BF16, F16, F32, FP8 E4M3 with scales, and U32 "
                  "with scales as MLX writes it",
                  escaped(name + ".weight"), weight->info.type));
}

std::vector<const CheckpointTensor*> FolderTensors::left_over() const {
  std::vector<const CheckpointTensor*> left;
  for (const CheckpointTensor& tensor : checkpoint_->tensors()) {
    if (!taken_.contains(&tensor)) left.push_back(&tensor);
  }
  return left;
}

}  // namespace penstock
