#include "store/expert_table.h"

#include <fmt/format.h>

#include "base/byte_cursor.h"

namespace penstock {
namespace {

bool is_aligned(uint64_t value) {
  return value % kRecordAlignment == 0;
}

// Parts in ascending order, each from its own multiple of kRecordAlignment, inside the record.
bool parts_fit(const ExpertTable& table) {
  uint64_t end = 0;
  for (const PartExtent& part : table.parts) {
    if (!is_aligned(part.offset) || part.offset < end || part.bytes == 0) return false;
    if (part.offset > table.record_bytes || part.bytes > table.record_bytes - part.offset) {
      return false;
    }
    end = part.offset + part.bytes;
  }
  return !table.parts.empty();
}

}  // namespace

Result<void> check_table(const ExpertTable& table) {
  const std::string& path = table.file->path();
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: expert records: {}", path, why)};
  };
  if (table.num_layers < 1 || table.num_experts < 1) return refuse("there are none");
  if (table.record_bytes == 0 || !is_aligned(table.record_bytes) ||
      !is_aligned(table.first_record_offset)) {
    return refuse(fmt::format("{} bytes each from {:#x}, not multiples of {}", table.record_bytes,
                              table.first_record_offset, kRecordAlignment));
  }
  if (!parts_fit(table)) return refuse("the parts do not fit into a record");

  const uint64_t num_records =
      static_cast<uint64_t>(table.num_layers) * static_cast<uint64_t>(table.num_experts);
  const auto bytes = checked_multiply(num_records, table.record_bytes);
  const auto end = bytes ? checked_add(*bytes, table.first_record_offset) : std::nullopt;
  const uint64_t file_bytes = PENSTOCK_TRY(table.file->stat()).bytes;
  if (!end || *end > file_bytes) {
    return refuse(fmt::format("{} of {} bytes from {:#x} do not fit into {} bytes; is it complete?",
                              num_records, table.record_bytes, table.first_record_offset,
                              file_bytes));
  }
  if (!table.checksums.empty() && table.checksums.size() != num_records * table.parts.size()) {
    return refuse(fmt::format("{} checksums for {} parts", table.checksums.size(),
                              num_records * table.parts.size()));
  }
  if (kRecordAlignment % table.file->alignment() != 0) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: direct reads here need multiples of {} bytes, records have {}",
                             path, table.file->alignment(), kRecordAlignment)};
  }
  return {};
}

}  // namespace penstock
