#include "store/slot_filler.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "io/read_progress.h"
#include "io/system_error.h"

namespace penstock {
namespace {

// How long the end of the program waits for a disk from which nothing comes.
constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(2);

}  // namespace

Result<std::unique_ptr<SlotFiller>> SlotFiller::create(ExpertTable table,
                                                       std::unique_ptr<Reader> reader,
                                                       int num_slots, bool verify,
                                                       ThreadPool* team) {
  SlotLayout layout(table);
  AlignedMemory memory = PENSTOCK_TRY(AlignedMemory::create(
      static_cast<uint64_t>(num_slots) * layout.slot_bytes(), "expert slots"));
  return std::unique_ptr<SlotFiller>(new SlotFiller(
      std::move(table), std::move(layout), std::move(reader), std::move(memory), verify, team));
}

SlotFiller::SlotFiller(ExpertTable table, SlotLayout layout, std::unique_ptr<Reader> reader,
                       AlignedMemory memory, bool verify, ThreadPool* team)
    : table_(std::move(table)),
      layout_(std::move(layout)),
      verify_(verify && table_.checksum_bytes() > 0),
      team_(team),
      memory_(std::move(memory)),
      reader_(std::move(reader)),
      drives_(1 + static_cast<int>(table_.copies.size())) {
  const size_t num_slots = memory_.bytes().size() / layout_.slot_bytes();
  const auto parts_max = static_cast<size_t>(layout_.num_parts_max());
  num_parts_.assign(num_slots, 0);
  parts_.resize(num_slots * parts_max);
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i].slot = static_cast<int32_t>(i / parts_max);
    parts_[i].part = static_cast<int32_t>(i % parts_max);
  }
  queue_.reserve(parts_.size());
  const auto capacity = static_cast<size_t>(reader_->capacity());
  batch_.reserve(capacity);
  ended_.reserve(capacity);
}

SlotFiller::~SlotFiller() {
  if (drain(*reader_, kPatience)) return;
  // A disk that does not answer may do so later, and write: these bytes stay for ever.
  static auto* const kept = new std::vector<AlignedMemory>;
  kept->push_back(std::move(memory_));
}

uint64_t SlotFiller::bytes_needed(const ExpertTable& table, int num_slots) {
  const SlotLayout layout(table);
  const auto slots = static_cast<uint64_t>(num_slots);
  const uint64_t slot =
      layout.slot_bytes() + sizeof(int) +
      static_cast<uint64_t>(layout.num_parts_max()) * (sizeof(Part) + sizeof(Part*));
  return slots * slot + table.checksum_bytes();
}

void SlotFiller::begin(int slot, int layer, int expert) {
  PENSTOCK_CHECK(!is_reading(slot));
  num_parts_[static_cast<size_t>(slot)] = table_.layer(layer).num_parts();
  std::byte* const base =
      memory_.bytes().data() + static_cast<uint64_t>(slot) * layout_.slot_bytes();
  for (int i = 0; i < num_parts(slot); ++i) {
    const ReadWindow window = table_.window(layer, expert, i);
    Part& part = part_at(slot, i);
    part.layer = layer;
    part.expert = expert;
    part.file_index = window.file;
    part.file = table_.files[static_cast<size_t>(window.file)];
    part.offset = window.offset;
    part.target = base + layout_.area_offset(layer, i);
    part.bytes = window.bytes;
    part.bytes_needed = window.skew + table_.part(layer, i).bytes;
    part.skew = part.payload_begin = static_cast<uint32_t>(window.skew);
    part.data_bytes = table_.part(layer, i).bytes;
    part.state = PartState::kMissing;
  }
}

void SlotFiller::forgive(int slot) {
  for (int i = 0; i < num_parts(slot); ++i) {
    Part& part = part_at(slot, i);
    if (part.state == PartState::kFailed) part.state = PartState::kMissing;
  }
}

void SlotFiller::move(int from, int to) {
  PENSTOCK_CHECK(is_complete(from));
  const Part& first = part_at(from, 0);
  begin(to, first.layer, first.expert);
  for (int i = 0; i < num_parts(to); ++i) {
    Part& target = part_at(to, i);
    const std::span<const std::byte> bytes = data(from, i);
    target.payload_begin = part_at(from, i).payload_begin;
    target.data_bytes = bytes.size();
    std::memcpy(target.target + target.payload_begin, bytes.data(), bytes.size());
    target.state = PartState::kGood;
    part_at(from, i).state = PartState::kMissing;
  }
}

void SlotFiller::give_back_after(int num_slots) {
  memory_.give_back_after(static_cast<uint64_t>(num_slots) * layout_.slot_bytes());
}

Result<void> SlotFiller::take_again(int begin, int end) {
  return memory_.take_again(static_cast<uint64_t>(begin) * layout_.slot_bytes(),
                            static_cast<uint64_t>(end) * layout_.slot_bytes());
}

void SlotFiller::enqueue(int slot, int part) {
  Part& wanted = part_at(slot, part);
  PENSTOCK_CHECK(wanted.state == PartState::kMissing);
  wanted.state = PartState::kQueued;
  queue_.push_back(&wanted);
}

void SlotFiller::submit() {
  batch_.clear();
  const int64_t now_ns = steady_now_ns();
  const auto room = static_cast<size_t>(reader_->capacity() - reader_->in_flight());
  while (queue_head_ < queue_.size() && batch_.size() < room) {
    Part* part = queue_[queue_head_++];
    part->state = PartState::kReading;
    part->tries = 0;
    part->tried = 0;
    ask(*part, now_ns);
    part->payload_begin = part->skew;
    part->data_bytes = part->bytes_needed - part->skew;
    batch_.push_back(part);
  }
  if (queue_head_ == queue_.size()) clear_queue();
  if (batch_.empty()) return;
  reader_->submit(batch_);
}

void SlotFiller::ask(Part& part, int64_t now_ns) {
  constexpr uint32_t kAllCopies = ~1u;
  const bool is_known = verify_ && table_.has_checksum(part.layer, part.expert, part.part);
  const uint32_t without = is_known ? part.tried : kAllCopies;
  part.drive = static_cast<int8_t>(drives_.choose(part.bytes, without, now_ns));
  part.tried |= 1u << part.drive;
  ++part.tries;
  part.file = table_.file(part.drive, part.file_index);
  part.asked = drives_.begin(part.drive, part.bytes, now_ns);
  part.has_wrong_checksum = false;
  ++stats_.reads;
}

void SlotFiller::reset_stats() {
  stats_ = {};
  drives_.reset_stats();
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
  if (!ended_.empty()) {
    const int64_t now_ns = steady_now_ns();
    for (const ReadRequest* request : ended_) {
      const Part& part = static_cast<const Part&>(*request);
      read_times_.add(static_cast<double>(now_ns - part.asked.at_ns) / 1e9);
    }
  }
  check_and_lay_out();
  for (ReadRequest* request : ended_) {
    Part& part = static_cast<Part&>(*request);
    finish(part);
    touched.push_back(part.slot);
  }
}

void SlotFiller::finish(Part& part) {
  PENSTOCK_CHECK(part.state == PartState::kReading);
  stats_.bytes_read += part.bytes_done;
  const bool is_good = part.error == 0 && !part.has_wrong_checksum;
  const int64_t now_ns = steady_now_ns();
  drives_.end(part.drive, part.asked, is_good, now_ns);
  if (is_good) {
    part.state = PartState::kGood;
    // Read through the page cache, it would be held there once more, beside the budget.
    if (part.file->alignment() == 1) part.file->drop_cached(part.offset, part.bytes);
    return;
  }
  if (part.has_wrong_checksum) {
    ++stats_.checksum_failures;
    // A buffered file would hand out the same bytes again.
    part.file->drop_cached(part.offset, part.bytes);
  }
  if (part.tries >= std::max(2, drives_.count())) {
    part.state = PartState::kFailed;
    return;
  }
  if (part.error != 0) ++stats_.io_retries;
  ask(part, now_ns);
  ReadRequest* const again[] = {&part};
  reader_->submit(again);
}

void SlotFiller::check_and_lay_out() {
  if (ended_.empty()) return;
  const int64_t begin_ns = steady_now_ns();
  const auto check = [this](int64_t i, int) {
    Part& part = static_cast<Part&>(*ended_[static_cast<size_t>(i)]);
    part.has_wrong_checksum = is_verified(part) && !has_its_checksum(part);
    if (part.error == 0 && !part.has_wrong_checksum) lay_out(part);
  };
  if (team_ != nullptr) {
    team_->run(std::ssize(ended_), check);
  } else {
    for (int64_t i = 0; i < std::ssize(ended_); ++i) check(i, 0);
  }
  if (verify_) stats_.verify_ns += steady_now_ns() - begin_ns;
  for (const ReadRequest* request : ended_) {
    const Part& part = static_cast<const Part&>(*request);
    if (!is_verified(part)) continue;
    stats_.bytes_verified += table_.part(part.layer, part.part).bytes;
    if (part.is_first_sum) ++stats_.checksums_learned;
  }
}

// The payload to the front of its area, where its address or its form does not suit those who use
// it. That is a pass over bytes that comparing checksums has just brought into the caches.
void SlotFiller::lay_out(Part& part) const {
  const PartPlace& place = table_.part(part.layer, part.part);
  const std::span<const std::byte> payload = data(part.slot, part.part);
  if (place.form != nullptr) {
    part.data_bytes = place.form->bytes();
    place.form->lay_out(payload, {part.target, part.data_bytes});
  } else if (part.skew % place.alignment == 0) {
    return;
  } else {
    std::memmove(part.target, payload.data(), payload.size());
  }
  part.payload_begin = 0;
}

bool SlotFiller::is_verified(const Part& part) const {
  return verify_ && part.error == 0 && !table_.layer(part.layer).checksums.empty();
}

bool SlotFiller::has_its_checksum(Part& part) {
  const auto payload = data(part.slot, part.part);
  const Hash128 found = part_checksum(table_.model_id, part.layer, part.expert, part.part, payload);
  Hash128& known = table_.checksum_of(part.layer, part.expert, part.part);
  part.is_first_sum = table_.learns_checksums && known == Hash128{};
  if (part.is_first_sum) known = found;
  return found == known;
}

const StorageFile* SlotFiller::file_being_read() const {
  const auto part = std::ranges::find(parts_, PartState::kReading, &Part::state);
  return part == parts_.end() ? nullptr : part->file;
}

bool SlotFiller::any_part(int slot, PartState state) const {
  for (int i = 0; i < num_parts(slot); ++i) {
    if (part_at(slot, i).state == state) return true;
  }
  return false;
}

bool SlotFiller::is_complete(int slot) const {
  for (int i = 0; i < num_parts(slot); ++i) {
    if (part_at(slot, i).state != PartState::kGood) return false;
  }
  return true;
}

std::optional<Error> SlotFiller::failure_of(int slot) const {
  for (int i = 0; i < num_parts(slot); ++i) {
    const Part& part = part_at(slot, i);
    if (part.state != PartState::kFailed) continue;
    const std::string who =
        fmt::format("layer {} expert {} part {}", part.layer, part.expert, part.part);
    const std::string where = fmt::format(
        "{} bytes at {:#x} of {}{}", data(slot, i).size(), part.offset + part.skew,
        part.file->path(), std::has_single_bit(part.tried) ? "" : " and of its other copies");
    if (part.has_wrong_checksum && table_.learns_checksums) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("{}: {} are not what they were when they were first read, also when "
                               "read again; mistrust this disk, fetch the file again",
                               who, where)};
    }
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
  const Part& place = part_at(slot, part);
  return {place.target + place.payload_begin, place.data_bytes};
}

}  // namespace penstock
