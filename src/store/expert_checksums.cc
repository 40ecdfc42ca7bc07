#include "store/expert_checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "io/locks.h"
#include "io/output_file.h"
#include "store/kept_bytes.h"

namespace penstock {
namespace {

constexpr char kSumsMagic[8] = {'P', 'S', 'S', 'U',
                                'M', 'S', '_', '1'};  // the last one: the version
constexpr uint64_t kSumsHeaderBytes = sizeof(kSumsMagic) + sizeof(Hash128) + sizeof(uint32_t);
constexpr uint64_t kFileBytesMax = 1 << 30;

// Sums that `kept` lacks, where both have as many parts.
void add_missing(const KeptChecksums& others, KeptChecksums& kept) {
  if (kept.layers.size() < others.layers.size()) kept.layers.resize(others.layers.size());
  for (size_t layer = 0; layer < others.layers.size(); ++layer) {
    std::vector<Hash128>& sums = kept.layers[layer];
    if (sums.empty()) sums = others.layers[layer];
    if (sums.size() != others.layers[layer].size()) continue;
    for (size_t i = 0; i < sums.size(); ++i) {
      if (sums[i] == Hash128{}) sums[i] = others.layers[layer][i];
    }
  }
}

size_t num_sums(const ExpertTable& table, int layer) {
  return static_cast<size_t>(table.num_experts) * table.layer(layer).parts.size();
}

}  // namespace

Result<KeptChecksums> load_checksums(Storage& storage, const std::string& path,
                                     const Hash128& model) {
  const auto corrupt = [&](const char* why) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: {}", path, why)};
  };
  const std::string text = PENSTOCK_TRY(read_text(storage, path, kFileBytesMax));
  const auto bytes = std::as_bytes(std::span(text));
  ByteCursor cursor(bytes);
  const auto magic = cursor.take(sizeof(kSumsMagic));
  if (!cursor.ok() || std::memcmp(magic.data(), kSumsMagic, sizeof(kSumsMagic) - 1) != 0) {
    return corrupt("not a file of checksums");
  }
  if (magic.back() != std::byte{kSumsMagic[7]}) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: checksums in another version of the format", path)};
  }
  if (bytes.size() < kSumsHeaderBytes + sizeof(Hash128)) return corrupt("it ends too early");
  const auto summed = bytes.first(bytes.size() - sizeof(Hash128));
  ByteCursor sum(bytes.last(sizeof(Hash128)));
  if (read_hash(sum) != checksum(summed, 0)) return corrupt("its checksum does not agree");
  if (read_hash(cursor) != model) {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: checksums of another model", path)};
  }
  const uint64_t num_layers = cursor.read<uint32_t>();
  uint64_t left = summed.size() - kSumsHeaderBytes;
  KeptChecksums kept;
  for (uint64_t layer = 0; layer < num_layers; ++layer) {
    if (left < sizeof(uint32_t)) return corrupt("it ends too early");
    left -= sizeof(uint32_t);
    const uint64_t count = cursor.read<uint32_t>();
    if (count > left / sizeof(Hash128)) return corrupt("it ends too early");
    left -= count * sizeof(Hash128);
    std::vector<Hash128>& sums = kept.layers.emplace_back();
    sums.reserve(count);
    for (uint64_t i = 0; i < count; ++i) sums.push_back(read_hash(cursor));
  }
  if (left != 0) return corrupt("there is more in it than its counts say");
  return kept;
}

Result<void> save_checksums(Storage& storage, const std::string& path, const Hash128& model,
                            const KeptChecksums& kept) {
  std::vector<std::byte> bytes;
  append(bytes, kSumsMagic);
  append(bytes, model);
  append(bytes, static_cast<uint32_t>(kept.layers.size()));
  for (const std::vector<Hash128>& sums : kept.layers) {
    append(bytes, static_cast<uint32_t>(sums.size()));
    for (const Hash128& sum : sums) append(bytes, sum);
  }
  append(bytes, checksum(bytes, 0));

  const std::string folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) PENSTOCK_TRY(storage.make_directory(folder));
  return write_output(storage, path, bytes);
}

void learn_checksums(const KeptChecksums& kept, ExpertTable& table) {
  table.learns_checksums = true;
  for (int layer = 0; layer < table.num_layers(); ++layer) {
    LayerPlaces& places = table.layers[static_cast<size_t>(layer)];
    places.checksums.assign(num_sums(table, layer), Hash128{});
    const auto index = static_cast<size_t>(layer);
    if (index >= kept.layers.size() || kept.layers[index].size() != places.checksums.size()) {
      continue;
    }
    places.checksums = kept.layers[index];
  }
}

void remember_checksums(const ExpertTable& table, KeptChecksums& kept) {
  if (kept.layers.size() < table.layers.size()) kept.layers.resize(table.layers.size());
  for (int layer = 0; layer < table.num_layers(); ++layer) {
    kept.layers[static_cast<size_t>(layer)] = table.layer(layer).checksums;
  }
}

Result<void> keep_checksums(Storage& storage, const std::string& path, const Hash128& model,
                            const ExpertTable& table, KeptChecksums& kept) {
  remember_checksums(table, kept);
  const std::string folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) PENSTOCK_TRY(storage.make_directory(folder));
  // Against another run between reading and writing; without a lock the later one stays.
  const auto lock = lock_in_turn(storage, folder + ".lock", kTurnOfAnother);
  if (const Result<KeptChecksums> now = load_checksums(storage, path, model)) {
    add_missing(*now, kept);
  }
  return save_checksums(storage, path, model, kept);
}

}  // namespace penstock
