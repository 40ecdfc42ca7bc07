#include "io/locks.h"

#include <thread>

namespace penstock {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kLocked =
    " is locked by another program that is writing here; wait until it ends";
constexpr std::chrono::milliseconds kBetweenTries{20};

}  // namespace

Error locked_error(const std::string& path) {
  return {ErrorCode::kIo, path + std::string(kLocked)};
}

bool is_locked_error(const Error& error) {
  return error.code == ErrorCode::kIo && error.message.ends_with(kLocked);
}

Result<std::unique_ptr<Storage::Lock>> lock_in_turn(Storage& storage, const std::string& path,
                                                    std::chrono::milliseconds wait_at_most) {
  const auto end = steady_clock::now() + wait_at_most;
  for (;;) {
    Result<std::unique_ptr<Storage::Lock>> lock = storage.lock(path);
    if (lock || !is_locked_error(lock.error()) || steady_clock::now() >= end) return lock;
    std::this_thread::sleep_for(kBetweenTries);
  }
}

}  // namespace penstock
