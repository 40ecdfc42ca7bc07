#include "store/slot_filler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "io/read_progress.h"
#include "io/system_error.h"

namespace penstock {
namespace {

uint64_t window_bytes(const PartExtent& part) {
  return (part.bytes + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

}  // namespace

Result<std::unique_ptr<SlotFiller>> SlotFiller::create(ExpertTable table,
                                                       std::unique_ptr<Reader> reader,
                                                       int num_slots, bool verify,
                                                       ThreadPool* team) {
  AlignedMemory memory = PENSTOCK_TRY(AlignedMemory::create(
      static_cast<uint64_t>(num_slots) * table.slot_bytes(), "expert slots", Prefault::kYes));
  return std::unique_ptr<SlotFiller>(
      new SlotFiller(std::move(table), std::move(reader), std::move(memory), verify, team));
}

SlotFiller::SlotFiller(ExpertTable table, std::unique_ptr<Reader> reader, AlignedMemory memory,
                       bool verify, ThreadPool* team)
    : table_(std::move(table)),
      verify_(verify && !table_.checksums.empty()),
      team_(team),
      memory_(std::move(memory)),
      reader_(std::move(reader)) {
  const uint64_t num_slots = memory_.bytes().size() / table_.slot_bytes();
  parts_.resize(num_slots * table_.parts.size());
  for (uint64_t slot = 0; slot < num_slots; ++slot) {
    for (int i = 0; i < table_.num_parts(); ++i) {
      const PartExtent& extent = table_.parts[static_cast<size_t>(i)];
      Part& part = part_at(static_cast<int>(slot), i);
      part.slot = static_cast<int32_t>(slot);
      part.part = i;
      part.file = table_.file;
      part.target = memory_.bytes().data() + slot * table_.slot_bytes() + extent.offset;
      part.bytes = window_bytes(extent);
    }
  }
  queue_.reserve(parts_.size());
  const auto capacity = static_cast<size_t>(reader_->capacity());
  batch_.reserve(capacity);
  ended_.reserve(capacity);
}

SlotFiller::~SlotFiller() {
  while (reader_->in_flight() > 0) {
    ended_.clear();
    reader_->reap(std::chrono::seconds(1), ended_);
  }
}

uint64_t SlotFiller::bytes_needed(const ExpertTable& table, int num_slots) {
  const uint64_t parts = static_cast<uint64_t>(num_slots) * table.parts.size();
  return static_cast<uint64_t>(num_slots) * table.slot_bytes() +
         parts * (sizeof(Part) + sizeof(Part*)) + table.checksums.size() * sizeof(Hash128);
}

void SlotFiller::begin(int slot, int layer, int expert) {
  PENSTOCK_CHECK(!is_reading(slot));
  const uint64_t record_offset = table_.record_offset(layer, expert);
  for (int i = 0; i < table_.num_parts(); ++i) {
    Part& part = part_at(slot, i);
    part.layer = layer;
    part.expert = expert;
    part.offset = record_offset + table_.parts[static_cast<size_t>(i)].offset;
    part.state = PartState::kMissing;
  }
}

void SlotFiller::forgive(int slot) {
  for (int i = 0; i < table_.num_parts(); ++i) {
    Part& part = part_at(slot, i);
    if (part.state == PartState::kFailed) part.state = PartState::kMissing;
  }
}

void SlotFiller::move(int from, int to) {
  PENSTOCK_CHECK(is_complete(from));
  const Part& first = part_at(from, 0);
  begin(to, first.layer, first.expert);
  for (int i = 0; i < table_.num_parts(); ++i) {
    std::memcpy(part_at(to, i).target, part_at(from, i).target, part_at(from, i).bytes);
    part_at(to, i).state = PartState::kGood;
    part_at(from, i).state = PartState::kMissing;
  }
}

void SlotFiller::give_back_after(int num_slots) {
  memory_.give_back_after(static_cast<uint64_t>(num_slots) * table_.slot_bytes());
}

Result<void> SlotFiller::take_again(int begin, int end) {
  return memory_.take_again(static_cast<uint64_t>(begin) * table_.slot_bytes(),
                            static_cast<uint64_t>(end) * table_.slot_bytes());
}

void SlotFiller::enqueue(int slot, int part) {
  Part& wanted = part_at(slot, part);
  PENSTOCK_CHECK(wanted.state == PartState::kMissing);
  wanted.state = PartState::kQueued;
  queue_.push_back(&wanted);
}

void SlotFiller::submit() {
  batch_.clear();
  const auto room = static_cast<size_t>(reader_->capacity() - reader_->in_flight());
  while (queue_head_ < queue_.size() && batch_.size() < room) {
    Part* part = queue_[queue_head_++];
    part->state = PartState::kReading;
    part->is_second_read = false;
    part->has_wrong_checksum = false;
    batch_.push_back(part);
  }
  if (queue_head_ == queue_.size()) clear_queue();
  if (batch_.empty()) return;
  stats_.reads += batch_.size();
  reader_->submit(batch_);
}

void SlotFiller::clear_queue() {
  for (; queue_head_ < queue_.size(); ++queue_head_) {
    queue_[queue_head_]->state = PartState::kMissing;
  }
  queue_.clear();
  queue_head_ = 0;
}

void SlotFiller::collect(std::chrono::nanoseconds timeout, std::vector<int>& touched) {
  ended_.clear();
  reader_->reap(timeout, ended_);
  compare_checksums();
  for (ReadRequest* request : ended_) {
    Part& part = static_cast<Part&>(*request);
    finish(part);
    touched.push_back(part.slot);
  }
}

void SlotFiller::finish(Part& part) {
  PENSTOCK_CHECK(part.state == PartState::kReading);
  stats_.bytes_read += part.bytes_done;
  if (part.error == 0 && !part.has_wrong_checksum) {
    part.state = PartState::kGood;
    return;
  }
  if (part.has_wrong_checksum) {
    ++stats_.checksum_failures;
    // A buffered file would hand out the same bytes again.
    part.file->drop_cached(part.offset, part.bytes);
  }
  if (part.is_second_read) {
    part.state = PartState::kFailed;
    return;
  }
  if (part.error != 0) ++stats_.io_retries;
  part.is_second_read = true;
  ++stats_.reads;
  ReadRequest* const again[] = {&part};
  reader_->submit(again);
}

void SlotFiller::compare_checksums() {
  if (!verify_ || ended_.empty()) return;
  const int64_t begin_ns = steady_now_ns();
  const auto compare = [this](int64_t i, int) {
    Part& part = static_cast<Part&>(*ended_[static_cast<size_t>(i)]);
    part.has_wrong_checksum = part.error == 0 && !has_its_checksum(part);
  };
  if (team_ != nullptr) {
    team_->run(std::ssize(ended_), compare);
  } else {
    for (int64_t i = 0; i < std::ssize(ended_); ++i) compare(i, 0);
  }
  stats_.verify_ns += steady_now_ns() - begin_ns;
  for (const ReadRequest* request : ended_) {
    const Part& part = static_cast<const Part&>(*request);
    if (part.error == 0) stats_.bytes_verified += data(part.slot, part.part).size();
  }
}

bool SlotFiller::has_its_checksum(const Part& part) const {
  const auto payload = data(part.slot, part.part);
  const Hash128 sum = part_checksum(table_.model_id, part.layer, part.expert, part.part, payload);
  return sum == table_.checksums[table_.checksum_index(part.layer, part.expert, part.part)];
}

uint64_t SlotFiller::expert_read_bytes() const {
  uint64_t bytes = 0;
  for (const PartExtent& part : table_.parts) bytes += window_bytes(part);
  return bytes;
}

bool SlotFiller::any_part(int slot, PartState state) const {
  for (int i = 0; i < table_.num_parts(); ++i) {
    if (part_at(slot, i).state == state) return true;
  }
  return false;
}

bool SlotFiller::is_complete(int slot) const {
  for (int i = 0; i < table_.num_parts(); ++i) {
    if (part_at(slot, i).state != PartState::kGood) return false;
  }
  return true;
}

std::optional<Error> SlotFiller::failure_of(int slot) const {
  for (int i = 0; i < table_.num_parts(); ++i) {
    const Part& part = part_at(slot, i);
    if (part.state != PartState::kFailed) continue;
    const std::string who =
        fmt::format("layer {} expert {} part {}", part.layer, part.expert, part.part);
    const std::string where =
        fmt::format("{} bytes at {:#x} of {}", part.bytes, part.offset, part.file->path());
    if (part.has_wrong_checksum) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: {} do not have their checksum, also when read again; pack the "
                               "model again, and mistrust this disk",
                               who, where)};
    }
    const std::string reason = part.error == ENODATA
                                   ? "the file ends before that; was it truncated?"
                                   : reason_of(part.error);
    return Error{ErrorCode::kIo, fmt::format("{}: read of {} failed: {}", who, where, reason)};
  }
  return std::nullopt;
}

std::span<const std::byte> SlotFiller::data(int slot, int part) const {
  const PartExtent& extent = table_.parts[static_cast<size_t>(part)];
  return memory_.bytes().subspan(static_cast<size_t>(slot) * table_.slot_bytes() + extent.offset,
                                 extent.bytes);
}

}  // namespace penstock
