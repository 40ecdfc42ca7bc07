#include "pack/identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "format/manifest.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr uint64_t kSampleBytes = 256;

void update_number(RunningChecksum& sum, uint64_t number) {
  sum.update(std::as_bytes(std::span(&number, 1)));
}

// With its length, so that two texts cannot be cut elsewhere and give the same bytes.
void update_text(RunningChecksum& sum, std::string_view text) {
  update_number(sum, text.size());
  sum.update(std::as_bytes(std::span(text)));
}

std::vector<const CheckpointTensor*> tensors_by_place(const Checkpoint& checkpoint) {
  std::vector<const CheckpointTensor*> by_place;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) by_place.push_back(&tensor);
  std::sort(by_place.begin(), by_place.end(), [](const auto* a, const auto* b) {
    return a->shard != b->shard ? a->shard < b->shard : a->info.offset < b->info.offset;
  });
  return by_place;
}

Result<void> update_samples(RunningChecksum& sum, Checkpoint& checkpoint) {
  std::vector<std::byte> sample;
  for (const CheckpointTensor* tensor : tensors_by_place(checkpoint)) {
    for (const uint64_t offset : {uint64_t{0}, tensor->info.bytes / 2}) {
      sample.resize(std::min(kSampleBytes, tensor->info.bytes - offset));
      PENSTOCK_TRY(checkpoint.read(*tensor, offset, sample));
      sum.update(sample);
    }
  }
  return {};
}

struct Sample {
  uint32_t file = 0;
  uint64_t offset = 0, bytes = 0;
};

// Of the codes of every resident tensor, and of the first and the middle expert of every layer.
std::vector<Sample> samples_of(const ModelSource& source) {
  std::vector<Sample> samples;
  const auto add = [&](const StoredMatrix& matrix) {
    const uint64_t bytes = plane_bytes(matrix.coding, matrix.rows, matrix.columns).codes;
    for (const uint64_t offset : {uint64_t{0}, bytes / 2}) {
      samples.push_back({matrix.codes.file, matrix.codes.offset + offset,
                         std::min(kSampleBytes, bytes - offset)});
    }
  };
  for (const SourceTensor& tensor : source.tensors()) {
    for (const StoredRows& range : tensor.ranges) add(range.matrix);
  }
  for (const LayerExperts& layer : source.experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      for (const int64_t expert : {int64_t{0}, source.config().num_experts / 2}) {
        add(part.of(expert));
      }
    }
  }
  return samples;
}

Result<void> update_samples(RunningChecksum& sum, ModelSource& source) {
  std::vector<std::byte> bytes;
  for (const Sample& sample : samples_of(source)) {
    bytes.resize(sample.bytes);
    PENSTOCK_TRY(source.read_bytes(sample.file, sample.offset, bytes));
    sum.update(bytes);
  }
  return {};
}

// Of files as they lie there: an edited or replaced one has another key.
template <typename Files>
Hash128 key_of(const Files& files, uint64_t model_id) {
  RunningChecksum sum;
  update_number(sum, model_id);
  for (const auto& file : files) {
    update_number(sum, file.stat.bytes);
    update_number(sum, file.stat.inode);
    update_number(sum, static_cast<uint64_t>(file.stat.modified_ns));
  }
  return sum.value();
}

void update_options(RunningChecksum& sum, const StoredTypes& types) {
  update_text(sum, experts_text(types));
  update_text(sum, option_text(types.resident));
  for (const LayerTypes& layer : types.layers) update_text(sum, to_text(layer));
  if (types.without_prediction) update_text(sum, "without prediction");
  if (const std::string text = quantiser_text(types); !text.empty()) update_text(sum, text);
}

}  // namespace

std::string option_text(const std::optional<DType>& type) {
  return type ? std::string(name_of(*type)) : "keep";
}

std::string option_text(const std::optional<MatrixForm>& form) {
  return form ? name_of(*form) : "keep";
}

std::string experts_text(const StoredTypes& types) {
  if (types.target_bytes) return fmt::format("mixed, at most {} bytes", *types.target_bytes);
  if (!types.experts || !types.down || types.down == types.experts) {
    return option_text(types.experts);
  }
  return option_text(types.experts) + ", down " + option_text(types.down);
}

std::string quantiser_text(const StoredTypes& types) {
  if (!types.are_quantised() || types.quantiser == Quantiser::kRound) return {};
  const std::string name(name_of(types.quantiser));
  return types.calibration ? name + ", calibrated with " + hex_text(*types.calibration) : name;
}

std::vector<FileRange> sample_ranges(const Checkpoint& checkpoint) {
  std::vector<FileRange> ranges;
  for (const CheckpointTensor* tensor : tensors_by_place(checkpoint)) {
    const CheckpointShard& shard = checkpoint.shards()[static_cast<size_t>(tensor->shard)];
    for (const uint64_t offset : {uint64_t{0}, tensor->info.bytes / 2}) {
      ranges.push_back({checkpoint.path_of(shard.name), tensor->info.offset + offset,
                        std::min(kSampleBytes, tensor->info.bytes - offset)});
    }
  }
  return ranges;
}

std::vector<FileRange> sample_ranges(const ModelSource& source) {
  std::vector<FileRange> ranges;
  for (const Sample& sample : samples_of(source)) {
    ranges.push_back({source.files()[sample.file].path, sample.offset, sample.bytes});
  }
  return ranges;
}

Result<uint64_t> derive_model_id(Checkpoint& checkpoint, const StoredTypes& types) {
  RunningChecksum sum;
  update_text(sum, "penstock model");
  update_number(sum, kFormatVersion);
  update_options(sum, types);
  update_text(sum, checkpoint.config_text());
  for (const CheckpointShard& shard : checkpoint.shards()) {
    update_text(sum, shard.name);
    update_number(sum, shard.stat.bytes);
    update_number(sum, shard.header_sum.low);
    update_number(sum, shard.header_sum.high);
  }
  PENSTOCK_TRY(update_samples(sum, checkpoint));
  return sum.value().low;
}

Result<uint64_t> derive_model_id(ModelSource& source, const StoredTypes& types) {
  RunningChecksum sum;
  update_text(sum, "penstock model of coded weights");
  update_number(sum, kFormatVersionMax);
  update_options(sum, types);
  update_text(sum, to_text(normal_config(source.config())));
  for (const CheckpointFile& file : source.files()) {
    update_text(sum, file.name());
    update_number(sum, file.stat.bytes);
    update_number(sum, file.header_sum.low);
    update_number(sum, file.header_sum.high);
  }
  PENSTOCK_TRY(update_samples(sum, source));
  return sum.value().low;
}

Hash128 derive_pack_key(const ModelSource& source, uint64_t model_id) {
  return key_of(source.files(), model_id);
}

Hash128 derive_pack_key(const Checkpoint& checkpoint, uint64_t model_id) {
  return key_of(checkpoint.shards(), model_id);
}

}  // namespace penstock
