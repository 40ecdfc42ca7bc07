#include "hub/hash_follower.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/thread.h"

namespace penstock {
namespace {

constexpr uint64_t kStepBytes = 1 << 20;

}  // namespace

Result<std::unique_ptr<HashFollower>> HashFollower::start(const StorageFile& file,
                                                          BlobHash::Kind kind, uint64_t bytes) {
  std::unique_ptr<HashFollower> follower(new HashFollower(file, kind, bytes));
  HashFollower* const self = follower.get();
  self->thread_ =
      PENSTOCK_TRY(start_thread([self](const std::stop_token& quit) { self->run(quit); }));
  return follower;
}

void HashFollower::run(const std::stop_token& quit) {
  std::vector<std::byte> step(std::min(kStepBytes, std::max<uint64_t>(bytes_, 1)));
  uint64_t at = 0;
  Result<void> read;
  while (at < bytes_ && read) {
    {
      std::unique_lock lock(mutex_);
      hashed_ = at;
      if (!changed_.wait(lock, quit, [&] { return ready_ > at; })) return;
    }
    uint64_t ready = 0;
    {
      const std::lock_guard lock(mutex_);
      ready = ready_;
    }
    while (at < ready && read && !quit.stop_requested()) {
      const std::span<std::byte> part(step.data(), std::min<uint64_t>(step.size(), ready - at));
      read = read_exactly(file_, at, part);
      if (read) hash_.add(part);
      at += part.size();
      const std::lock_guard lock(mutex_);
      hashed_ = at;
    }
    if (quit.stop_requested()) return;
  }
  const std::lock_guard lock(mutex_);
  failure_ = read;
  finished_ = true;
}

void HashFollower::advance(uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    PENSTOCK_CHECK(bytes >= ready_ && bytes <= bytes_);
    ready_ = bytes;
  }
  changed_.notify_one();
}

uint64_t HashFollower::hashed_bytes() const {
  const std::lock_guard lock(mutex_);
  return hashed_;
}

bool HashFollower::is_finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

Result<std::string> HashFollower::finish() {
  PENSTOCK_CHECK(is_finished());
  thread_.join();
  PENSTOCK_TRY(failure_);
  return hash_.finish();
}

}  // namespace penstock
