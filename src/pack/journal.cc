#include "pack/journal.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace penstock {
namespace {

constexpr uint64_t kEntryBytes = 64;
constexpr uint64_t kSumsOffset = 8;  // behind the index
constexpr uint64_t kSumOffset = 48;
static_assert(kSumsOffset + sizeof(PieceSums) <= kSumOffset);
constexpr uint64_t kSumSeed = 0x70656e73746f636bull;  // "penstock": keeps zeros from being an entry

using JournalEntry = std::array<std::byte, kEntryBytes>;

JournalEntry make_entry(uint64_t index, const PieceSums& sums) {
  JournalEntry entry{};
  std::memcpy(entry.data(), &index, sizeof(index));
  std::memcpy(entry.data() + kSumsOffset, sums.data(), sizeof(PieceSums));
  const Hash128 sum = checksum(std::span(entry).first<kSumOffset>(), kSumSeed);
  std::memcpy(entry.data() + kSumOffset, &sum, sizeof(sum));
  return entry;
}

bool parse_entry(std::span<const std::byte> bytes, uint64_t index, PieceSums& sums) {
  std::memcpy(sums.data(), bytes.data() + kSumsOffset, sizeof(PieceSums));
  const JournalEntry expected = make_entry(index, sums);
  return std::memcmp(bytes.data(), expected.data(), kEntryBytes) == 0;
}

}  // namespace

Result<Journal> Journal::create(Storage& storage, const std::string& path, const Hash128& key) {
  Journal journal;
  journal.file_ = PENSTOCK_TRY(storage.open(path, OpenMode::kCreate));
  PENSTOCK_TRY(journal.file_->write(0, make_entry(0, {key, {}})));
  PENSTOCK_TRY(journal.file_->sync());
  return journal;
}

Result<Journal> Journal::resume(Storage& storage, const std::string& path, const Hash128& key) {
  Journal journal;
  journal.file_ = PENSTOCK_TRY(storage.open(path, OpenMode::kWrite));
  const FileStat stat = PENSTOCK_TRY(journal.file_->stat());
  std::vector<std::byte> bytes(stat.bytes / kEntryBytes * kEntryBytes);
  PENSTOCK_TRY(read_exactly(*journal.file_, 0, bytes));
  const std::span<const std::byte> all = bytes;
  PieceSums sums;
  if (all.empty() || !parse_entry(all.first(kEntryBytes), 0, sums)) {
    return Error{ErrorCode::kNotFound, path + ": the journal is damaged"};
  }
  if (sums.front() != key) {
    return Error{ErrorCode::kNotFound, "it was made from another source or with other options"};
  }
  for (uint64_t index = 1; index < all.size() / kEntryBytes; ++index) {
    if (!parse_entry(all.subspan(index * kEntryBytes, kEntryBytes), index, sums)) break;
    journal.pieces_.push_back(sums);
  }
  journal.pieces_durable_ = journal.pieces_.size();
  return journal;
}

Result<void> Journal::commit() {
  if (pieces_durable_ == pieces_.size()) return {};
  std::vector<std::byte> bytes;
  bytes.reserve((pieces_.size() - pieces_durable_) * kEntryBytes);
  for (size_t i = pieces_durable_; i < pieces_.size(); ++i) {
    const JournalEntry entry = make_entry(i + 1, pieces_[i]);
    bytes.insert(bytes.end(), entry.begin(), entry.end());
  }
  PENSTOCK_TRY(file_->write((pieces_durable_ + 1) * kEntryBytes, bytes));
  PENSTOCK_TRY(file_->sync());
  pieces_durable_ = pieces_.size();
  return {};
}

Result<void> Journal::truncate(size_t count) {
  if (count >= pieces_.size()) return {};
  // Zeros are no entry. Left alone, old entries would follow the new ones that are still to come.
  const std::vector<std::byte> zeros((pieces_durable_ - std::min(count, pieces_durable_)) *
                                     kEntryBytes);
  PENSTOCK_TRY(file_->write((count + 1) * kEntryBytes, zeros));
  PENSTOCK_TRY(file_->sync());
  pieces_.resize(count);
  pieces_durable_ = std::min(pieces_durable_, count);
  return {};
}

}  // namespace penstock
