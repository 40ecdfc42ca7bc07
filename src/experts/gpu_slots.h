// Slots for experts in a device's memory: who is in which, and copies on their way there.
//
//   const auto slot = slots.cache().claim(layer, expert);
//   PENSTOCK_TRY(slots.fill(*slot, pieces));             // while has_room(); the copy starts
//   ...
//   for (int slot : PENSTOCK_TRY(slots.settle())) ...    // has arrived: ready
//
// A slot is all of an expert, wherever its parts lie here. Bytes go through staging memory that both
// can reach, over the device's queue for copies; or, many experts at a time, from where they lie (bring()), into
// slots that were claimed and into places for guests, who are nobody's after their call.
//
// Invariants
//   (1) A slot that the device may still read from is pinned by whoever asked it to: claim() takes
//       none of these, so nothing is written over what is being read.
//   (2) A slot is ready when its copy has ended, not before.
//
// Threads  the computing thread; the team copies into staging memory
// Memory   bytes_for(): all of it allocated in create(), slots in blocks of at most kGpuBlockMax
// Errors   create(): kOutOfMemory, kIo. fill(), settle(), bring(): kIo when the device is lost
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "base/result.h"
#include "gpu/gpu_device.h"
#include "gpu/gpu_host_blocks.h"
#include "gpu/host_rows.h"
#include "store/expert_cache.h"

namespace penstock {

// Bytes of the host that belong into a slot.
struct SlotPiece {
  uint64_t offset = 0;  // in the slot
  std::span<const std::byte> bytes;
};

class GpuSlots {
 public:
  struct Shape {
    CacheShape cache = {};
    uint64_t slot_bytes = 0;
    int num_staging = 1;  // copies at a time
    int num_guests = 0;   // places behind the slots
  };
  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const Shape& shape);
  // How many slots fit into so much of the device's memory.
  static int64_t slots_in(uint64_t bytes, uint64_t slot_bytes);

  static Result<GpuSlots> create(GpuDevice& device, const Shape& shape, HostRows host = HostRows());

  // Who is where. What claim() begins is ended by settle() after a fill(), after a bring() by its caller.
  ExpertCache& cache() { return cache_; }
  const ExpertCache& cache() const { return cache_; }
  uint64_t address(int slot) const;  // or place
  // Those of guests follow the slots.
  int first_guest() const { return shape_.cache.num_slots; }
  int num_guests() const { return shape_.num_guests; }

  // Whether another copy can start at once.
  bool has_room() const { return std::ssize(on_their_way_) < shape_.num_staging; }
  // Of a slot that was claimed. The pieces are read before it returns.
  Result<void> fill(int slot, std::span<const SlotPiece> pieces);
  // Takes in what has arrived, without waiting. Valid until the next call.
  Result<std::span<const int>> settle();

  // Bytes that lie where the device reaches them, to slots and places; they stay as they are until the fence of
  // the device's queue for copies has passed.
  struct Brought {
    int place = 0;
    uint64_t offset = 0;  // in it
    GpuHostBlocks::Place from;
    uint64_t bytes = 0;
  };
  Result<Fence> bring(std::span<const Brought> list);

 private:
  struct Copy {
    int slot = 0;
    Fence fence;
  };

  GpuSlots(GpuDevice& device, const Shape& shape, HostRows host);

  GpuDevice* device_;
  Shape shape_;
  HostRows host_;
  ExpertCache cache_;
  int64_t slots_per_block_;
  std::vector<GpuBuffer> blocks_;
  GpuBuffer staging_;
  int next_staging_ = 0;
  std::deque<Copy> on_their_way_;  // in the order of their submission
  std::vector<int> settled_;
};

}  // namespace penstock
