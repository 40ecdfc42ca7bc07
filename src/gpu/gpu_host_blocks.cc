#include "gpu/gpu_host_blocks.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/thread.h"

namespace penstock {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{256} << 20;

// Of a block, which begins and ends where the device wants it; 0: they are too large.
int64_t slots_in_block(uint64_t slot_bytes, uint64_t alignment) {
  const uint64_t together = alignment / std::gcd(alignment, slot_bytes);
  return static_cast<int64_t>(std::max(kBlockBytes, slot_bytes) / slot_bytes / together * together);
}

}  // namespace

GpuHostBlocks::~GpuHostBlocks() {
  end_making();
}

void GpuHostBlocks::end_making() {
  thread_ = {};  // asks it to stop and waits
}

void GpuHostBlocks::let_go_beyond(int64_t count) {
  end_making();
  ++memory_.generation;
  has_failed_ = false;
  if (in_block_ == 0) return;
  const int64_t kept = std::min(num_ready_.load(), std::max<int64_t>(count, 0) / in_block_);
  for (int64_t i = kept; i < num_ready_; ++i) blocks_[static_cast<size_t>(i)] = {};
  num_ready_ = kept;
}

void GpuHostBlocks::give_up() {
  thread_.request_stop();
  if (is_making_) return;
  num_ready_ = 0;
  blocks_.clear();
}

void GpuHostBlocks::follow(const HostSlots& memory) {
  const uint64_t alignment = device_.facts().import_alignment;
  if (alignment == 0 || memory.slot_bytes == 0) return;
  if (memory.begin != memory_.begin || memory.generation != memory_.generation) {
    end_making();
    has_failed_ = false;
    num_ready_ = 0;
    blocks_.clear();
    in_block_ = slots_in_block(memory.slot_bytes, alignment);
    const bool is_possible =
        in_block_ > 0 && reinterpret_cast<uintptr_t>(memory.begin) % alignment == 0;
    if (is_possible) {
      blocks_.resize(static_cast<size_t>((memory.count_max + in_block_ - 1) / in_block_));
    }
  }
  if (!is_making_) memory_ = memory;
  if (blocks_.empty() || has_failed_ || is_making_ || num_whole() <= num_ready_) return;
  is_making_ = true;
  Result<std::jthread> started = start_thread(
      [this, end = num_whole()](const std::stop_token& stop) { make_blocks(stop, end); });
  if (started) {
    thread_ = std::move(*started);
  } else {
    is_making_ = false;
    has_failed_ = true;
  }
}

void GpuHostBlocks::wait() {
  if (thread_.joinable()) thread_.join();
}

uint64_t GpuHostBlocks::block_bytes(int64_t index) const {
  const int64_t count = std::min(in_block_, memory_.count_max - index * in_block_);
  return static_cast<uint64_t>(count) * memory_.slot_bytes;
}

// The last one ends where the memory does, so it must all be there.
int64_t GpuHostBlocks::num_whole() const {
  if (memory_.count < memory_.count_max) return memory_.count / in_block_;
  const int64_t last = std::ssize(blocks_) - 1;
  return last + (block_bytes(last) % device_.facts().import_alignment == 0 ? 1 : 0);
}

void GpuHostBlocks::make_blocks(const std::stop_token& stop, int64_t end) {
  for (int64_t i = num_ready_; i < end && !stop.stop_requested(); ++i) {
    const uint64_t offset = static_cast<uint64_t>(i * in_block_) * memory_.slot_bytes;
    Result<GpuBuffer> block =
        device_.import({memory_.begin + offset, static_cast<size_t>(block_bytes(i))});
    if (!block) {
      has_failed_ = true;
      break;
    }
    blocks_[static_cast<size_t>(i)] = std::move(*block);
    num_ready_.store(i + 1, std::memory_order_release);
  }
  is_making_ = false;
}

std::optional<GpuHostBlocks::Place> GpuHostBlocks::find(std::span<const std::byte> bytes) const {
  const int64_t ready = num_ready_.load(std::memory_order_acquire);
  if (ready == 0 || bytes.data() < memory_.begin) return std::nullopt;
  const auto at = static_cast<uint64_t>(bytes.data() - memory_.begin);
  const uint64_t whole = static_cast<uint64_t>(in_block_) * memory_.slot_bytes;
  const uint64_t index = at / whole, offset = at % whole;
  if (index >= static_cast<uint64_t>(ready)) return std::nullopt;
  const GpuBuffer& block = blocks_[index];
  if (offset + bytes.size() > block.size()) return std::nullopt;
  return Place{&block, offset};
}

}  // namespace penstock
