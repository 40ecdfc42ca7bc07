#include "store/expert_usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "io/output_file.h"
#include "store/kept_bytes.h"

namespace penstock {
namespace {

constexpr char kUsageMagic[8] = {'P', 'S', 'U', 'S',
                                 'A', 'G', 'E', '1'};  // the last one: the version
constexpr uint64_t kUsageHeaderBytes = sizeof(kUsageMagic) + 16 + 4 + 4;

uint64_t file_bytes_of(const UsageOwner& owner) {
  return kUsageHeaderBytes + sizeof(Hash128) +
         sizeof(float) * static_cast<uint64_t>(owner.num_layers) *
             static_cast<uint64_t>(owner.num_experts);
}

}  // namespace

std::vector<ExpertId> most_used(const ExpertUsage& usage) {
  std::vector<size_t> order;
  for (size_t i = 0; i < usage.counts.size(); ++i) {
    if (usage.counts[i] > 0) order.push_back(i);
  }
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return usage.counts[i]; });
  std::vector<ExpertId> experts;
  experts.reserve(order.size());
  const auto num_experts = static_cast<size_t>(usage.num_experts);
  for (const size_t i : order) {
    experts.push_back({static_cast<int>(i / num_experts), static_cast<int>(i % num_experts)});
  }
  return experts;
}

Result<ExpertUsage> load_usage(Storage& storage, const std::string& path, const UsageOwner& owner) {
  const auto corrupt = [&](const char* why) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: {}", path, why)};
  };
  const auto foreign = [&](const char* why) {
    return Error{ErrorCode::kUnsupported, fmt::format("{}: {}", path, why)};
  };
  const std::string text =
      PENSTOCK_TRY(read_text(storage, path, std::max<uint64_t>(file_bytes_of(owner), 1 << 20)));
  const auto bytes = std::as_bytes(std::span(text));
  ByteCursor cursor(bytes);
  const auto magic = cursor.take(sizeof(kUsageMagic));
  if (!cursor.ok() || std::memcmp(magic.data(), kUsageMagic, sizeof(kUsageMagic) - 1) != 0) {
    return corrupt("not a file of usage");
  }
  if (magic.back() != std::byte{kUsageMagic[7]})
    return foreign("usage in another version of the format");
  if (bytes.size() < kUsageHeaderBytes + sizeof(Hash128)) return corrupt("it ends too early");
  const auto summed = bytes.first(bytes.size() - sizeof(Hash128));
  ByteCursor sum(bytes.last(sizeof(Hash128)));
  if (read_hash(sum) != checksum(summed, 0)) return corrupt("its checksum does not agree");

  const Hash128 model = read_hash(cursor);
  const auto num_layers = cursor.read<uint32_t>();
  const auto num_experts = cursor.read<uint32_t>();
  if (model != owner.model) return foreign("the usage of another model");
  if (num_layers != static_cast<uint32_t>(owner.num_layers) ||
      num_experts != static_cast<uint32_t>(owner.num_experts) ||
      bytes.size() != file_bytes_of(owner)) {
    return corrupt("it does not have the shape of its model");
  }
  ExpertUsage usage{owner.num_layers, owner.num_experts, {}};
  usage.counts.resize((bytes.size() - kUsageHeaderBytes - sizeof(Hash128)) / sizeof(float));
  for (float& count : usage.counts) {
    count = cursor.read<float>();
    if (!std::isfinite(count) || count < 0) return corrupt("a count is out of range");
  }
  return usage;
}

Result<void> save_usage(Storage& storage, const std::string& path, const UsageOwner& owner,
                        const ExpertUsage& usage) {
  PENSTOCK_CHECK(usage.num_layers == owner.num_layers && usage.num_experts == owner.num_experts);
  std::vector<std::byte> bytes;
  bytes.reserve(file_bytes_of(owner));
  append(bytes, kUsageMagic);
  append(bytes, owner.model);
  append(bytes, static_cast<uint32_t>(owner.num_layers));
  append(bytes, static_cast<uint32_t>(owner.num_experts));
  for (const float count : usage.counts) append(bytes, count);
  append(bytes, checksum(bytes, 0));

  const std::string folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) PENSTOCK_TRY(storage.make_directory(folder));
  return write_output(storage, path, bytes);
}

}  // namespace penstock
