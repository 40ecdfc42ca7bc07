#include "store/expert_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/byte_cursor.h"
#include "base/check.h"
#include "store/drives.h"

namespace penstock {
namespace {

// So many bytes of one expert cannot be held by any machine, and sums of them do not wrap.
constexpr uint64_t kSlotBytesMax = uint64_t{1} << 48;

uint64_t align_up(uint64_t bytes) {
  return (bytes + kReadAlignment - 1) / kReadAlignment * kReadAlignment;
}

// Where the part of every expert lies, in order, must be in a file. Of a sequence the last one is
// enough, once its numbers do not wrap.
Result<void> check_part(const ExpertTable& table, std::span<const uint64_t> file_bytes, int layer,
                        int index) {
  const PartPlace& part = table.part(layer, index);
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("layer {}, part {} of the experts: {}", layer, index, why)};
  };
  const auto num_experts = static_cast<uint64_t>(table.num_experts);
  if (part.bytes == 0) return refuse("it has no bytes");
  PENSTOCK_CHECK(part.alignment > 0 && kReadAlignment % part.alignment == 0);
  if (!part.each.empty() && part.each.size() != num_experts) {
    return refuse(fmt::format("{} places for {} experts", part.each.size(), num_experts));
  }
  const bool is_sequence = part.each.empty();
  if (is_sequence && num_experts > 1 && part.stride < part.bytes) {
    return refuse(fmt::format("{} bytes each, from one to the next {}", part.bytes, part.stride));
  }
  const auto length = checked_multiply(num_experts - 1, part.stride);
  if (is_sequence && (!length || !checked_add(*length, part.first.offset))) {
    return refuse(fmt::format("{} of them, {} bytes apart", num_experts, part.stride));
  }
  for (int expert = is_sequence ? table.num_experts - 1 : 0; expert < table.num_experts; ++expert) {
    const FilePlace place = part.of(expert);
    if (place.file < 0 || place.file >= std::ssize(table.files)) {
      return refuse(fmt::format("file {} of {}", place.file, table.files.size()));
    }
    const auto file = static_cast<size_t>(place.file);
    const auto end = checked_add(place.offset, part.bytes);
    if (!end || *end > file_bytes[file]) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: layer {}, part {} of expert {}: {} bytes from {:#x} do not fit "
                               "into {} bytes; is it complete?",
                               table.files[file]->path(), layer, index, expert, part.bytes,
                               place.offset, file_bytes[file])};
    }
  }
  return {};
}

Result<void> check_alignment(const StorageFile& file) {
  if (kReadAlignment % file.alignment() == 0) return {};
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: direct reads here need multiples of {} bytes, experts are read in "
                           "multiples of {}",
                           file.path(), file.alignment(), kReadAlignment)};
}

Result<void> check_layer(const ExpertTable& table, std::span<const uint64_t> file_bytes,
                         int index) {
  const LayerPlaces& layer = table.layer(index);
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: layer {} of the experts: {}",
                                                  table.files[0]->path(), index, why)};
  };
  if (layer.parts.empty()) return refuse("there are no parts");
  if (layer.first_parts < 1 || layer.first_parts > layer.num_parts()) {
    return refuse(fmt::format("{} of {} parts come first", layer.first_parts, layer.parts.size()));
  }
  for (int part = 0; part < layer.num_parts(); ++part) {
    PENSTOCK_TRY(check_part(table, file_bytes, index, part));
  }
  uint64_t bytes = 0;
  for (const PartPlace& part : layer.parts) {
    for (const uint64_t more : {part.bytes, part.form == nullptr ? 0 : part.form->bytes()}) {
      if (more > kSlotBytesMax || bytes > kSlotBytesMax - more) {
        return refuse(fmt::format("an expert of more than {} bytes", kSlotBytesMax));
      }
      bytes += more;
    }
  }
  const uint64_t num_sums = static_cast<uint64_t>(table.num_experts) * layer.parts.size();
  if (!layer.checksums.empty() && layer.checksums.size() != num_sums) {
    return refuse(fmt::format("{} checksums for {} parts", layer.checksums.size(), num_sums));
  }
  return {};
}

// Who has no experts has no copy; the others are as long as what they are copies of.
Result<void> check_copies(const ExpertTable& table, std::span<const uint64_t> file_bytes) {
  PENSTOCK_CHECK(table.copies.size() < kDrivesMax);
  for (const auto& files : table.copies) {
    PENSTOCK_CHECK(files.size() == table.files.size());
    for (size_t i = 0; i < files.size(); ++i) {
      if (files[i] == nullptr) continue;
      PENSTOCK_TRY(check_alignment(*files[i]));
      const uint64_t bytes = PENSTOCK_TRY(files[i]->stat()).bytes;
      if (bytes == file_bytes[i]) continue;
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{} has {} bytes, but {} has {}: it is no copy of it",
                               files[i]->path(), bytes, table.files[i]->path(), file_bytes[i])};
    }
  }
  return {};
}

}  // namespace

ReadWindow ExpertTable::window(int layer_index, int expert, std::span<const int> parts) const {
  const FilePlace first = part(layer_index, parts.front()).of(expert);
  const PartPlace& last = part(layer_index, parts.back());
  const uint64_t offset = first.offset - first.offset % kReadAlignment;
  const uint64_t needed = last.of(expert).offset + last.bytes - offset;
  return {.file = first.file, .offset = offset, .bytes = align_up(needed), .bytes_needed = needed};
}

uint64_t ExpertTable::checksum_bytes() const {
  uint64_t bytes = 0;
  for (const LayerPlaces& layer : layers) bytes += layer.checksums.size() * sizeof(Hash128);
  return bytes;
}

bool ExpertTable::has_checksum(int layer_index, int expert, int part_index) const {
  if (layer(layer_index).checksums.empty()) return false;
  return !learns_checksums || checksum_of(layer_index, expert, part_index) != Hash128{};
}

const Hash128& ExpertTable::checksum_of(int layer_index, int expert, int part_index) const {
  const LayerPlaces& places = layer(layer_index);
  const auto first = static_cast<size_t>(expert) * places.parts.size();
  return places.checksums[first + static_cast<size_t>(part_index)];
}

Hash128& ExpertTable::checksum_of(int layer_index, int expert, int part_index) {
  return const_cast<Hash128&>(std::as_const(*this).checksum_of(layer_index, expert, part_index));
}

Result<void> check_table(const ExpertTable& table) {
  PENSTOCK_CHECK(!table.files.empty());
  const std::string& path = table.files[0]->path();
  if (table.num_experts < 1 || table.layers.empty()) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: there are no experts", path)};
  }
  std::vector<uint64_t> file_bytes;
  for (const StorageFile* file : table.files) {
    PENSTOCK_CHECK(file != nullptr);
    file_bytes.push_back(PENSTOCK_TRY(file->stat()).bytes);
    PENSTOCK_TRY(check_alignment(*file));
  }
  PENSTOCK_TRY(check_copies(table, file_bytes));
  for (int layer = 0; layer < table.num_layers(); ++layer) {
    PENSTOCK_TRY(check_layer(table, file_bytes, layer));
  }
  return {};
}

}  // namespace penstock
