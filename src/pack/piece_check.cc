#include "pack/piece_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

// False where the file ends before.
Result<bool> read_whole(const StorageFile& file, uint64_t offset, std::span<std::byte> target) {
  const Result<void> read = read_exactly(file, offset, target);
  if (!read && read.error().code == ErrorCode::kCorrupt) return false;
  if (!read) return read.error();
  return true;
}

Result<bool> resident_is_good(const ResidentTensor& tensor, const StorageFile& file,
                              std::span<std::byte> memory, const Hash128& expected) {
  RunningChecksum sum;
  const uint64_t end = align_file(tensor.bytes);
  for (uint64_t done = 0; done < end; done += kCheckStepBytes) {
    const std::span<std::byte> part = memory.first(std::min(kCheckStepBytes, end - done));
    if (!PENSTOCK_TRY(read_whole(file, tensor.offset + done, part))) return false;
    sum.update(part);
  }
  return sum.value() == expected;
}

Result<bool> record_is_good(const PackInput& input, const StorageFile& file,
                            std::span<std::byte> memory, uint64_t record, const PieceSums& sums) {
  const ExpertParts& experts = input.experts();
  const ExpertRecord& form = experts.record_of(record);
  const std::span<std::byte> bytes = memory.first(form.bytes);
  if (!PENSTOCK_TRY(read_whole(file, experts.offset_of(record), bytes))) return false;
  const auto layer = static_cast<int>(experts.layer_of(record));
  const auto expert = static_cast<int>(static_cast<int64_t>(record) % experts.num_experts);
  return std::ranges::all_of(kPackedParts, [&](PackedPart part) {
    const auto [offset, part_bytes] = form.extent(part);
    const uint64_t end = offset + part_bytes;
    return part_checksum(input.model_id(), layer, expert, part,
                         bytes.subspan(offset, part_bytes)) == sums[static_cast<size_t>(part)] &&
           all_zero(bytes.subspan(end, form.padded_end(part) - end));
  });
}

}  // namespace

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

uint64_t piece_check_bytes(const PackInput& input) {
  return std::max(kCheckStepBytes, input.experts().largest_record());
}

Result<bool> piece_is_good(const PackInput& input, const NewFiles& files,
                           std::span<std::byte> memory, size_t piece, const PieceSums& sums) {
  const size_t num_resident = input.resident().size();
  if (piece >= num_resident) {
    return record_is_good(input, files.experts, memory, piece - num_resident, sums);
  }
  return resident_is_good(input.resident()[piece], files.resident, memory, sums.front());
}

uint64_t piece_bytes(const PackInput& input, size_t piece) {
  const size_t num_resident = input.resident().size();
  if (piece >= num_resident) return input.experts().record_of(piece - num_resident).bytes;
  return align_file(input.resident()[piece].bytes);
}

std::string piece_name(const PackInput& input, size_t piece) {
  const size_t num_resident = input.resident().size();
  if (piece < num_resident) return "tensor " + input.resident()[piece].name;
  const auto record = static_cast<int64_t>(piece - num_resident);
  const int64_t num_experts = input.experts().num_experts;
  return fmt::format("expert {} of layer {}", record % num_experts, record / num_experts);
}

}  // namespace penstock
