#include "base/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/pages.h"
#include "base/thread.h"

namespace penstock {
namespace {

constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

std::atomic<int64_t> successes_left{-1};

bool is_told_to_fail() {
  if (successes_left.load(std::memory_order_relaxed) < 0) return false;
  return successes_left.fetch_sub(1) == 0;
}

Error no_memory(const char* purpose, uint64_t bytes, int error) {
  return {
      ErrorCode::kOutOfMemory,
      fmt::format("no memory for {}: {} bytes ({:.1f} MiB): {}", purpose, bytes,
                  static_cast<double>(bytes) / (1 << 20), std::generic_category().message(error))};
}

// In pieces, by several threads: a page is cleared by the thread that asks for it, and a virtual
// machine's host hands out memory to each processor by itself. 0.5 GB/s with one thread, 0.8 with two.
int make_present(std::span<std::byte> bytes) {
  constexpr uint64_t kPieceBytes = uint64_t{64} << 20;
  constexpr uint64_t kThreadsMax = 8;
  std::atomic<uint64_t> next{0};
  std::atomic<int> error{0};
  const auto work = [&] {
    for (;;) {
      const uint64_t begin = next.fetch_add(kPieceBytes);
      if (begin >= bytes.size() || error.load() != 0) return;
      const uint64_t count = std::min<uint64_t>(kPieceBytes, bytes.size() - begin);
      if (const int failed = make_pages_present(bytes.subspan(begin, count)); failed != 0) {
        error.store(failed);
      }
    }
  };
  const auto processors = static_cast<uint64_t>(allowed_processors());
  const uint64_t threads = std::min({bytes.size() / kPieceBytes, processors, kThreadsMax});
  std::vector<std::jthread> helpers;
  for (uint64_t i = 1; i < threads; ++i) {
    Result<std::jthread> helper = start_thread(work);
    if (!helper) break;  // those that are here make all of it present
    helpers.push_back(*std::move(helper));
  }
  work();
  helpers.clear();
  return error.load();
}

}  // namespace

void fail_allocation_after(int64_t successes) {
  successes_left.store(successes);
}

Result<AlignedMemory> AlignedMemory::create(uint64_t bytes, const char* purpose, Prefault prefault,
                                            Pages pages) {
  if (is_told_to_fail()) return no_memory(purpose, bytes, ENOMEM);
  AlignedMemory memory;
  if (bytes == 0) return memory;
  const uint64_t page = page_bytes();
  const uint64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : page;
  if (bytes > UINT64_MAX / 2) return no_memory(purpose, bytes, ENOMEM);
  const uint64_t whole_bytes = (bytes + page - 1) / page * page;

  // A mapping starts at a page: map one alignment more and return what lies outside.
  const uint64_t slack_bytes = alignment - page;
  void* mapping = ::mmap(nullptr, whole_bytes + slack_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return no_memory(purpose, bytes, errno);
  auto* begin = static_cast<std::byte*>(mapping);
  const uint64_t misfit = reinterpret_cast<uintptr_t>(begin) % alignment;
  const uint64_t head_bytes = misfit == 0 ? 0 : alignment - misfit;
  if (head_bytes > 0) ::munmap(begin, head_bytes);
  if (slack_bytes > head_bytes) {
    ::munmap(begin + head_bytes + whole_bytes, slack_bytes - head_bytes);
  }
  memory.bytes_ = {begin + head_bytes, bytes};
  memory.mapped_bytes_ = whole_bytes;
  memory.alignment_ = alignment;
  memory.purpose_ = purpose;

  if (alignment == kHugePageBytes) {
    const auto ask = pages == Pages::kSmall ? ask_for_small_pages : ask_for_huge_pages;
    ask({memory.bytes_.data(), whole_bytes});
  }
  if (prefault == Prefault::kYes) {
    if (const int error = make_present(memory.bytes_); error != 0) {
      return no_memory(purpose, bytes, error);
    }
  }
  return memory;
}

void AlignedMemory::give_back_after(uint64_t kept) {
  if (kept >= bytes_.size()) return;
  const uint64_t begin = (kept + alignment_ - 1) / alignment_ * alignment_;
  if (begin < mapped_bytes_) give_back_pages({bytes_.data() + begin, mapped_bytes_ - begin});
}

Result<void> AlignedMemory::take_again(uint64_t begin, uint64_t end) {
  PENSTOCK_CHECK(begin <= end && end <= bytes_.size());
  // A page that begins before `begin` was never given back, and what lies there may be in use.
  const uint64_t first = (begin + page_bytes() - 1) / page_bytes() * page_bytes();
  if (first >= end) return {};
  const int error = is_told_to_fail() ? ENOMEM : make_present(bytes_.subspan(first, end - first));
  if (error != 0) return no_memory(purpose_, end - begin, error);
  return {};
}

AlignedMemory::~AlignedMemory() {
  if (mapped_bytes_ > 0) ::munmap(bytes_.data(), mapped_bytes_);
}

AlignedMemory::AlignedMemory(AlignedMemory&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
      alignment_(other.alignment_),
      purpose_(other.purpose_) {}

AlignedMemory& AlignedMemory::operator=(AlignedMemory&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(alignment_, other.alignment_);
  std::swap(purpose_, other.purpose_);
  return *this;
}

}  // namespace penstock
