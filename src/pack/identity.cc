#include "pack/identity.h"

#include <algorithm>
#include <vector>

#include "format/manifest.h"

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

Result<void> update_samples(RunningChecksum& sum, Checkpoint& checkpoint) {
  std::vector<const CheckpointTensor*> by_place;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) by_place.push_back(&tensor);
  std::sort(by_place.begin(), by_place.end(), [](const auto* a, const auto* b) {
    return a->shard != b->shard ? a->shard < b->shard : a->info.offset < b->info.offset;
  });
  std::vector<std::byte> sample;
  for (const CheckpointTensor* tensor : by_place) {
    for (const uint64_t offset : {uint64_t{0}, tensor->info.bytes / 2}) {
      sample.resize(std::min(kSampleBytes, tensor->info.bytes - offset));
      PENSTOCK_TRY(checkpoint.read(*tensor, offset, sample));
      sum.update(sample);
    }
  }
  return {};
}

}  // namespace

std::string option_text(const std::optional<DType>& type) {
  return type ? std::string(name_of(*type)) : "keep";
}

Result<uint64_t> derive_model_id(Checkpoint& checkpoint, const StoredTypes& types) {
  RunningChecksum sum;
  update_text(sum, "penstock model");
  update_number(sum, kFormatVersion);
  update_text(sum, option_text(types.experts));
  update_text(sum, option_text(types.resident));
  if (types.without_prediction) update_text(sum, "without prediction");
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

Hash128 derive_pack_key(const Checkpoint& checkpoint, uint64_t model_id) {
  RunningChecksum sum;
  update_number(sum, model_id);
  for (const CheckpointShard& shard : checkpoint.shards()) {
    update_number(sum, shard.stat.bytes);
    update_number(sum, shard.stat.inode);
    update_number(sum, static_cast<uint64_t>(shard.stat.modified_ns));
  }
  return sum.value();
}

}  // namespace penstock
