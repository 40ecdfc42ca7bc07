// Fills slots of memory from flash: one read per part of an expert, or for several that are neighbours
// (store/slot_layout.h), each part compared with its checksum.
//
// Reads go straight into the slot, each as a window of whole blocks (store/expert_table.h); where in
// it a payload begins can differ from one expert to the next. Where that is no address for those who
// use it, or no form, the payload is moved or laid out anew once it has been checked. A read that
// fails is repeated, and so is one that brings bytes which do not have their checksum: once, or from
// every copy that there is; only after that have its parts failed. Which expert belongs in which slot,
// and for how long, is the business of Slots above.
//
// Where the files have copies on other drives, each read goes to the drive from which it comes
// soonest (store/drives.h), but never to a copy where there is no checksum to compare with yet.
//
//   read: missing --enqueue--> queued --submit--> reading --collect--> good
//            ^------clear_queue--'                   `-----collect---> failed --forgive--> missing
//
// Threads  One. The reader writes slot bytes between submit and collect.
// Memory   Slots, what is known of each part and one request per read, allocated in create(). The
//          destructor waits for reads in flight; the bytes stay for ever where a disk does not answer
//          and may still write.
// Errors   create(): kOutOfMemory. A failed part is an Error of its own (failure_of): kIo for reads,
//          kCorrupt for checksums.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/histogram.h"
#include "base/memory.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "io/reader.h"
#include "store/drives.h"
#include "store/expert_table.h"
#include "store/slot_layout.h"

namespace penstock {

enum class PartState : uint8_t { kMissing, kQueued, kReading, kGood, kFailed };

struct FillStats {
  uint64_t reads = 0;  // submitted, repeated ones included
  uint64_t bytes_read = 0;
  uint64_t io_retries = 0;
  uint64_t checksum_failures = 0;
  uint64_t bytes_verified = 0;
  uint64_t checksums_learned = 0;
  int64_t verify_ns = 0;
};

class SlotFiller {
 public:
  // The table has been checked against its files. verify: compare checksums where there are any.
  // team: to share them, where several parts have come; may be null.
  static Result<std::unique_ptr<SlotFiller>> create(ExpertTable table,
                                                    std::unique_ptr<Reader> reader, int num_slots,
                                                    bool verify, ThreadPool* team);
  ~SlotFiller();
  SlotFiller(const SlotFiller&) = delete;
  SlotFiller& operator=(const SlotFiller&) = delete;

  // The slot is for this expert from now on; nothing of it is here. No read into it is in flight.
  void begin(int slot, int layer, int expert);
  // Failed parts may be tried again.
  void forgive(int slot);

  // The bytes of a complete slot go into another one, no read into which is in flight.
  void move(int from, int to);
  // Slots from `num_slots` on are not used for now: their memory goes back to the system, as far as
  // it is whole pages. Their bytes are lost.
  void give_back_after(int num_slots);
  // Memory for slots begin to end again. kOutOfMemory when there is none.
  Result<void> take_again(int begin, int end);

  // All slots, and how often some were given back.
  std::span<std::byte> memory() { return memory_.bytes(); }
  uint64_t times_given_back() const { return times_given_back_; }

  // Asks for a part that is missing, and for those that come with it; they wait until the reader has
  // room.
  void enqueue(int slot, int part);
  void submit();
  void clear_queue();
  bool has_queue() const { return !queue_.empty(); }

  // Takes in what has ended, waiting for the first up to `timeout`. Adds the slots it touched.
  void collect(std::chrono::nanoseconds timeout, std::vector<int>& touched);

  // Of the expert that the slot is for, since its first begin().
  int num_parts(int slot) const { return num_parts_[static_cast<size_t>(slot)]; }
  int num_reads(int layer) const { return layout_.num_reads(layer); }  // of any expert of it
  uint64_t read_bytes(int layer, int expert) const {
    return layout_.read_bytes(table_, layer, expert);
  }
  PartState state(int slot, int part) const { return read_of(slot, part).state; }
  bool is_reading(int slot) const;
  bool is_complete(int slot) const;
  std::optional<Error> failure_of(int slot) const;  // of its first failed part
  std::span<const std::byte> data(int slot, int part) const;

  const ExpertTable& table() const { return table_; }
  const StorageFile* file_being_read() const;  // one of them; nullptr: none
  const Reader& reader() const { return *reader_; }
  const FillStats& stats() const { return stats_; }
  const Drives& drives() const { return drives_; }
  void reset_stats();
  // Seconds from submitting a read to taking it in, repeated reads apart; since the start.
  const Histogram& read_times() const { return read_times_; }

  static uint64_t bytes_needed(const ExpertTable& table, int num_slots);

 private:
  struct Part {
    const std::byte* payload = nullptr;  // where its read brings it
    std::byte* data = nullptr;           // the same, or where it was moved or laid out
    uint64_t data_bytes = 0;             // of the payload, or of its form once it was laid out
  };
  struct Read : ReadRequest {
    int32_t slot = 0;
    int32_t index = 0;  // of the layer's reads
    int32_t layer = 0;
    int32_t expert = 0;
    std::byte* area = nullptr;  // of the slot, that its parts may be moved in
    PartState state = PartState::kMissing;
    int32_t file_index = 0;  // of the table
    int8_t drive = 0;        // that it was last asked of
    int8_t tries = 0;        // so far
    uint32_t tried = 0;      // drives it was asked of, a bit each
    Drives::Asked asked;
    int32_t wrong_part = -1;  // the first that had not its checksum
    // Of the latest time that it came.
    uint64_t bytes_verified = 0;
    uint32_t sums_learned = 0;
  };

  SlotFiller(ExpertTable table, SlotLayout layout, std::unique_ptr<Reader> reader,
             AlignedMemory memory, bool verify, ThreadPool* team);

  const Part& part_at(int slot, int part) const {
    return parts_[static_cast<size_t>(slot * layout_.num_parts_max() + part)];
  }
  Part& part_at(int slot, int part) {
    return parts_[static_cast<size_t>(slot * layout_.num_parts_max() + part)];
  }
  std::span<const Read> reads_of(int slot) const;  // of the expert that it is for
  std::span<Read> reads_of(int slot);
  const Read& read_of(int slot, int part) const;
  std::span<const int> parts_of(const Read& read) const {
    return layout_.reads(read.layer)[static_cast<size_t>(read.index)].parts;
  }
  std::byte* slot_memory(int slot) {
    return memory_.bytes().data() + static_cast<uint64_t>(slot) * layout_.slot_bytes();
  }
  void find_payloads(const Read& read);
  void check_and_lay_out();  // what has ended
  void check_and_lay_out(Read& read);
  bool has_its_checksum(Read& read, int part);
  void ask(Read& read, int64_t now_ns);  // of a drive: the caller submits it
  void finish(Read& read);
  uint64_t lay_out(const Read& read, int part, uint64_t end);
  Error failure(const Read& read) const;

  ExpertTable table_;  // what it learns are checksums
  const SlotLayout layout_;
  const bool verify_;
  ThreadPool* const team_;
  AlignedMemory memory_;
  uint64_t times_given_back_ = 0;
  std::vector<Part> parts_;     // [slot][part], as many as an expert has at most
  std::vector<Read> reads_;     // [slot][read], likewise
  std::vector<int> num_parts_;  // [slot]
  std::unique_ptr<Reader> reader_;
  Drives drives_;
  std::vector<Read*> queue_;
  size_t queue_head_ = 0;
  std::vector<ReadRequest*> batch_;
  std::vector<ReadRequest*> ended_;
  FillStats stats_;
  Histogram read_times_;
};

}  // namespace penstock
