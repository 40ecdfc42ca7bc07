#include "pack/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/check.h"

namespace penstock {

uint64_t CalibrationShape::layer_bytes() const {
  const int64_t token = hidden_size * static_cast<int64_t>(sizeof(uint16_t)) +
                        top_k * static_cast<int64_t>(sizeof(int32_t) + sizeof(float));
  return static_cast<uint64_t>(tokens * token);
}

Result<Calibration> Calibration::create(Storage& storage, const std::string& path,
                                        const CalibrationShape& shape, const Hash128& texts) {
  PENSTOCK_CHECK(shape.tokens > 0 && shape.top_k > 0 && shape.num_layers > 0);
  Calibration made(storage, shape, texts);
  made.tokens_.assign(static_cast<size_t>(shape.num_layers), 0);
  made.file_ = PENSTOCK_TRY(storage.open(path, OpenMode::kCreate));
  PENSTOCK_TRY(made.file_->reserve(shape.bytes()));
  return made;
}

Calibration::~Calibration() {
  if (file_ == nullptr) return;
  const std::string path = file_->path();
  file_.reset();
  // What stays is overwritten by the next run, and told by nobody: there is nothing to be done.
  static_cast<void>(storage_->remove(path));
}

Calibration::Places Calibration::places(int64_t layer) const {
  const auto tokens = static_cast<uint64_t>(shape_.tokens);
  const uint64_t begin = static_cast<uint64_t>(layer) * shape_.layer_bytes();
  const uint64_t experts =
      begin + tokens * static_cast<uint64_t>(shape_.hidden_size) * sizeof(uint16_t);
  return {begin, experts, experts + tokens * static_cast<uint64_t>(shape_.top_k) * sizeof(int32_t)};
}

void Calibration::add(int64_t layer, const Routing& routing, Rows inputs) {
  if (!failure_) return;
  int64_t& done = tokens_[static_cast<size_t>(layer)];
  PENSTOCK_CHECK(routing.top_k == shape_.top_k && inputs.width == shape_.hidden_size);
  PENSTOCK_CHECK(done + routing.num_tokens <= shape_.tokens);
  rows_.clear();
  for (int64_t row = 0; row < routing.num_tokens; ++row) {
    std::ranges::transform(inputs.row(row), std::back_inserter(rows_), f32_to_bf16);
  }
  const auto choices = static_cast<size_t>(routing.num_tokens * routing.top_k);
  const Places at = places(layer);
  const auto write = [&](uint64_t begin, int64_t each, std::span<const std::byte> bytes) {
    if (failure_) failure_ = file_->write(begin + static_cast<uint64_t>(done * each), bytes);
  };
  write(at.rows, shape_.hidden_size * 2, std::as_bytes(std::span(rows_)));
  write(at.experts, shape_.top_k * 4, std::as_bytes(std::span(routing.experts).first(choices)));
  write(at.weights, shape_.top_k * 4, std::as_bytes(std::span(routing.weights).first(choices)));
  done += routing.num_tokens;
}

Result<void> Calibration::finish() {
  PENSTOCK_TRY(failure_);
  PENSTOCK_CHECK(std::ranges::all_of(tokens_, [&](int64_t n) { return n == shape_.tokens; }));
  return {};
}

Result<void> Calibration::load(int64_t layer, ExpertInputs& inputs) const {
  PENSTOCK_CHECK(layer >= 0 && layer < shape_.num_layers);
  const auto choices = static_cast<size_t>(shape_.tokens * shape_.top_k);
  inputs.hidden_size = shape_.hidden_size;
  inputs.top_k = shape_.top_k;
  inputs.rows.resize(static_cast<size_t>(shape_.tokens * shape_.hidden_size));
  inputs.experts.resize(choices);
  inputs.weights.resize(choices);
  const Places at = places(layer);
  PENSTOCK_TRY(read_exactly(*file_, at.rows, std::as_writable_bytes(std::span(inputs.rows))));
  PENSTOCK_TRY(read_exactly(*file_, at.experts, std::as_writable_bytes(std::span(inputs.experts))));
  return read_exactly(*file_, at.weights, std::as_writable_bytes(std::span(inputs.weights)));
}

}  // namespace penstock
