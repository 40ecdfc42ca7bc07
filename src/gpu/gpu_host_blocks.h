// Memory of this machine that a device copies from where it lies (GpuDevice::import), so that no processor
// carries bytes to it.
//
//   blocks.follow(memory);                          // as it is now; nothing under way copies from it
//   if (const auto place = blocks.find(bytes)) {
//     commands.copy(*place->buffer, place->offset, ...);
//   }
//   blocks.let_go_beyond(count);                    // before memory behind so many slots is given back
//
// To keep a block's pages in place takes a driver some 14 ms, so a thread does one after the other from the
// beginning on; bytes of others are not found. Pages that are given back while a block has them are free only when
// it lets go of them, and whatever comes in their place are other pages: so blocks let go before. Where nobody
// said so, another generation has all blocks given up and begun anew.
//
// Threads  one; a second one makes blocks, of memory that is described alike until it has ended
// Memory   the followed one's pages, which cannot be moved or given back meanwhile
// Errors   a block that the driver refuses, or a thread that the system does, ends it until the next generation:
//          what is not there is not found
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "gpu/gpu_device.h"

namespace penstock {

// Slots side by side, the first of which are there.
struct HostSlots {
  std::byte* begin = nullptr;
  uint64_t slot_bytes = 0;
  int64_t count = 0, count_max = 0;
  uint64_t generation = 0;  // another one: some of it was given back
};

class GpuHostBlocks {
 public:
  explicit GpuHostBlocks(GpuDevice& device) : device_(device) {}
  ~GpuHostBlocks();
  GpuHostBlocks(const GpuHostBlocks&) = delete;
  GpuHostBlocks& operator=(const GpuHostBlocks&) = delete;

  // Where the device can do such a thing; else nothing is ever found.
  void follow(const HostSlots& memory);
  // Until no block is being made.
  void wait();
  // Of blocks that reach beyond so many slots. What comes next is another generation, the following number.
  void let_go_beyond(int64_t count);
  // Of all, as soon as it can be without waiting: the device is lost.
  void give_up();
  bool is_empty() const { return num_ready_.load(std::memory_order_acquire) == 0; }

  struct Place {
    const GpuBuffer* buffer = nullptr;
    uint64_t offset = 0;
  };
  std::optional<Place> find(std::span<const std::byte> bytes) const;

 private:
  void end_making();
  uint64_t block_bytes(int64_t index) const;
  int64_t num_whole() const;  // blocks all of which is there
  void make_blocks(const std::stop_token& stop, int64_t end);

  GpuDevice& device_;
  HostSlots memory_;
  int64_t in_block_ = 0;  // slots
  std::vector<GpuBuffer> blocks_;
  std::atomic<int64_t> num_ready_ = 0;
  std::atomic<bool> is_making_ = false, has_failed_ = false;  // since the generation began
  std::jthread thread_;
};

}  // namespace penstock
