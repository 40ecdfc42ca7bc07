#include "store/slot_filler.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

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
  const auto reads_max = static_cast<size_t>(layout_.num_reads_max());
  num_parts_.assign(num_slots, 0);
  parts_.resize(num_slots * static_cast<size_t>(layout_.num_parts_max()));
  reads_.resize(num_slots * reads_max);
  for (size_t i = 0; i < reads_.size(); ++i) {
    reads_[i].slot = static_cast<int32_t>(i / reads_max);
    reads_[i].index = static_cast<int32_t>(i % reads_max);
  }
  queue_.reserve(reads_.size());
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
      static_cast<uint64_t>(layout.num_parts_max()) * sizeof(Part) +
      static_cast<uint64_t>(layout.num_reads_max()) * (sizeof(Read) + sizeof(Read*));
  return slots * slot + table.checksum_bytes();
}

std::span<const SlotFiller::Read> SlotFiller::reads_of(int slot) const {
  if (num_parts(slot) == 0) return {};  // for nobody yet
  const auto first = static_cast<size_t>(slot * layout_.num_reads_max());
  return std::span(reads_).subspan(first, static_cast<size_t>(num_reads(reads_[first].layer)));
}

std::span<SlotFiller::Read> SlotFiller::reads_of(int slot) {
  const std::span<const Read> reads = std::as_const(*this).reads_of(slot);
  return {const_cast<Read*>(reads.data()), reads.size()};
}

const SlotFiller::Read& SlotFiller::read_of(int slot, int part) const {
  const Read& first = reads_[static_cast<size_t>(slot * layout_.num_reads_max())];
  return *(&first + layout_.read_of(first.layer, part));
}

void SlotFiller::begin(int slot, int layer, int expert) {
  PENSTOCK_CHECK(!is_reading(slot));
  num_parts_[static_cast<size_t>(slot)] = table_.layer(layer).num_parts();
  std::byte* const base = slot_memory(slot);
  Read* read = &reads_[static_cast<size_t>(slot * layout_.num_reads_max())];
  for (const JoinedRead& joined : layout_.reads(layer)) {
    const ReadWindow window = table_.window(layer, expert, joined.parts);
    read->layer = layer;
    read->expert = expert;
    read->file_index = window.file;
    read->file = table_.files[static_cast<size_t>(window.file)];
    read->offset = window.offset;
    read->area = base + joined.area_offset;
    read->target = base + joined.window_offset;
    read->bytes = window.bytes;
    read->bytes_needed = window.bytes_needed;
    read->state = PartState::kMissing;
    find_payloads(*read);
    ++read;
  }
}

void SlotFiller::find_payloads(const Read& read) {
  for (const int index : parts_of(read)) {
    const PartPlace& place = table_.part(read.layer, index);
    Part& part = part_at(read.slot, index);
    part.data = read.target + (place.of(read.expert).offset - read.offset);
    part.payload = part.data;
    part.data_bytes = place.bytes;
  }
}

void SlotFiller::forgive(int slot) {
  for (Read& read : reads_of(slot)) {
    if (read.state == PartState::kFailed) read.state = PartState::kMissing;
  }
}

void SlotFiller::move(int from, int to) {
  PENSTOCK_CHECK(is_complete(from));
  const Read& first = reads_of(from)[0];
  begin(to, first.layer, first.expert);
  for (int i = 0; i < num_parts(to); ++i) {
    Part& target = part_at(to, i);
    const std::span<const std::byte> bytes = data(from, i);
    target.data = slot_memory(to) + (bytes.data() - slot_memory(from));
    target.data_bytes = bytes.size();
    std::memcpy(target.data, bytes.data(), bytes.size());
  }
  for (Read& read : reads_of(to)) read.state = PartState::kGood;
  for (Read& read : reads_of(from)) read.state = PartState::kMissing;
}

void SlotFiller::give_back_after(int num_slots) {
  ++times_given_back_;
  memory_.give_back_after(static_cast<uint64_t>(num_slots) * layout_.slot_bytes());
}

Result<void> SlotFiller::take_again(int begin, int end) {
  return memory_.take_again(static_cast<uint64_t>(begin) * layout_.slot_bytes(),
                            static_cast<uint64_t>(end) * layout_.slot_bytes());
}

void SlotFiller::enqueue(int slot, int part) {
  Read& wanted = reads_of(slot)[static_cast<size_t>(read_of(slot, part).index)];
  PENSTOCK_CHECK(wanted.state == PartState::kMissing);
  wanted.state = PartState::kQueued;
  queue_.push_back(&wanted);
}

void SlotFiller::submit() {
  batch_.clear();
  const int64_t now_ns = steady_now_ns();
  const auto room = static_cast<size_t>(reader_->capacity() - reader_->in_flight());
  while (queue_head_ < queue_.size() && batch_.size() < room) {
    Read* read = queue_[queue_head_++];
    read->state = PartState::kReading;
    read->tries = 0;
    read->tried = 0;
    ask(*read, now_ns);
    batch_.push_back(read);
  }
  if (queue_head_ == queue_.size()) clear_queue();
  if (batch_.empty()) return;
  reader_->submit(batch_);
}

void SlotFiller::ask(Read& read, int64_t now_ns) {
  constexpr uint32_t kAllCopies = ~1u;
  const bool is_known = verify_ && std::ranges::all_of(parts_of(read), [&](int part) {
                          return table_.has_checksum(read.layer, read.expert, part);
                        });
  // Once each has been asked, each is asked again: one of them may have failed for a moment.
  if (std::popcount(read.tried) == drives_.count()) read.tried = 0;
  const uint32_t without = is_known ? read.tried : kAllCopies;
  read.drive = static_cast<int8_t>(drives_.choose(read.bytes, without, now_ns));
  read.tried |= 1u << read.drive;
  ++read.tries;
  read.file = table_.file(read.drive, read.file_index);
  read.asked = drives_.begin(read.drive, read.bytes, now_ns);
  read.wrong_part = -1;
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
      const Read& read = static_cast<const Read&>(*request);
      read_times_.add(static_cast<double>(now_ns - read.asked.at_ns) / 1e9);
    }
  }
  check_and_lay_out();
  for (ReadRequest* request : ended_) {
    Read& read = static_cast<Read&>(*request);
    finish(read);
    touched.push_back(read.slot);
  }
}

void SlotFiller::finish(Read& read) {
  PENSTOCK_CHECK(read.state == PartState::kReading);
  stats_.bytes_read += read.bytes_done;
  const bool has_wrong_checksum = read.wrong_part >= 0;
  const bool is_good = read.error == 0 && !has_wrong_checksum;
  const int64_t now_ns = steady_now_ns();
  drives_.end(read.drive, read.asked, is_good, now_ns);
  if (is_good) {
    read.state = PartState::kGood;
    // Read through the page cache, it would be held there once more, beside the budget.
    if (read.file->alignment() == 1) read.file->drop_cached(read.offset, read.bytes);
    return;
  }
  if (has_wrong_checksum) {
    ++stats_.checksum_failures;
    // A buffered file would hand out the same bytes again.
    read.file->drop_cached(read.offset, read.bytes);
  }
  if (read.tries >= 2 * drives_.count()) {
    read.state = PartState::kFailed;
    return;
  }
  if (read.error != 0) ++stats_.io_retries;
  ask(read, now_ns);
  ReadRequest* const again[] = {&read};
  reader_->submit(again);
}

void SlotFiller::check_and_lay_out() {
  if (ended_.empty()) return;
  const int64_t begin_ns = steady_now_ns();
  const auto check = [this](int64_t i, int) {
    check_and_lay_out(static_cast<Read&>(*ended_[static_cast<size_t>(i)]));
  };
  if (team_ != nullptr) {
    team_->run(std::ssize(ended_), check);
  } else {
    for (int64_t i = 0; i < std::ssize(ended_); ++i) check(i, 0);
  }
  if (verify_) stats_.verify_ns += steady_now_ns() - begin_ns;
  for (const ReadRequest* request : ended_) {
    const Read& read = static_cast<const Read&>(*request);
    stats_.bytes_verified += read.bytes_verified;
    stats_.checksums_learned += read.sums_learned;
  }
}

// Part by part as they lie in the file: what is laid out ends before the next one begins.
void SlotFiller::check_and_lay_out(Read& read) {
  read.bytes_verified = read.sums_learned = 0;
  read.wrong_part = -1;
  if (read.error != 0) return;
  find_payloads(read);
  const bool is_verified = verify_ && !table_.layer(read.layer).checksums.empty();
  uint64_t end = 0;
  for (const int part : parts_of(read)) {
    if (is_verified && !has_its_checksum(read, part)) {
      read.wrong_part = part;
      return;
    }
    end = lay_out(read, part, end);
  }
}

// The payload further to the front of the area, behind what ends at `end`, where its address or its
// form does not suit those who use it. That is a pass over bytes that comparing checksums has just
// brought into the caches. Where it ends, or `end` when it stayed.
uint64_t SlotFiller::lay_out(const Read& read, int index, uint64_t end) {
  const PartPlace& place = table_.part(read.layer, index);
  Part& part = part_at(read.slot, index);
  const std::span<const std::byte> payload(part.payload, part.data_bytes);
  const auto skew = static_cast<uint64_t>(part.payload - read.target);
  if (place.form == nullptr && skew % place.alignment == 0) return end;
  const uint64_t begin = place_behind(end);
  part.data = read.area + begin;
  if (place.form != nullptr) {
    part.data_bytes = place.form->bytes();
    place.form->lay_out(payload, {part.data, part.data_bytes});
  } else {
    std::memmove(part.data, payload.data(), payload.size());
  }
  return begin + part.data_bytes;
}

bool SlotFiller::has_its_checksum(Read& read, int part) {
  const auto payload = data(read.slot, part);
  const Hash128 found = part_checksum(table_.model_id, read.layer, read.expert, part, payload);
  Hash128& known = table_.checksum_of(read.layer, read.expert, part);
  read.bytes_verified += payload.size();
  if (table_.learns_checksums && known == Hash128{}) {
    known = found;
    ++read.sums_learned;
  }
  return found == known;
}

const StorageFile* SlotFiller::file_being_read() const {
  const auto read = std::ranges::find(reads_, PartState::kReading, &Read::state);
  return read == reads_.end() ? nullptr : read->file;
}

bool SlotFiller::is_reading(int slot) const {
  return std::ranges::any_of(reads_of(slot),
                             [](const Read& read) { return read.state == PartState::kReading; });
}

bool SlotFiller::is_complete(int slot) const {
  return std::ranges::all_of(reads_of(slot),
                             [](const Read& read) { return read.state == PartState::kGood; });
}

std::optional<Error> SlotFiller::failure_of(int slot) const {
  for (const Read& read : reads_of(slot)) {
    if (read.state == PartState::kFailed) return failure(read);
  }
  return std::nullopt;
}

// Of a read that brings several parts, names the one with a wrong checksum, or all of them.
Error SlotFiller::failure(const Read& read) const {
  const bool has_wrong_checksum = read.wrong_part >= 0;
  std::vector<int> parts(parts_of(read).begin(), parts_of(read).end());
  if (has_wrong_checksum) parts = {read.wrong_part};
  const uint64_t begin = table_.part(read.layer, parts.front()).of(read.expert).offset;
  const PartPlace& last = table_.part(read.layer, parts.back());
  const std::string who = fmt::format("layer {} expert {} part{} {}", read.layer, read.expert,
                                      parts.size() > 1 ? "s" : "", fmt::join(parts, ", "));
  const std::string where = fmt::format(
      "{} bytes at {:#x} of {}{}", last.of(read.expert).offset + last.bytes - begin, begin,
      read.file->path(), std::has_single_bit(read.tried) ? "" : " and of its other copies");
  if (has_wrong_checksum && table_.learns_checksums) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: {} are not what they were when they were first read, also when "
                             "read again; mistrust this disk, fetch the file again",
                             who, where)};
  }
  if (has_wrong_checksum) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: {} do not have their checksum, also when read again; pack the "
                             "model again, and mistrust this disk",
                             who, where)};
  }
  const std::string reason = read.error == ENODATA ? "the file ends before that; was it truncated?"
                                                   : reason_of(read.error);
  return Error{ErrorCode::kIo, fmt::format("{}: read of {} failed: {}", who, where, reason)};
}

std::span<const std::byte> SlotFiller::data(int slot, int part) const {
  const Part& place = part_at(slot, part);
  return {place.data, place.data_bytes};
}

}  // namespace penstock
