// Waiting for a lock that another program holds for a moment.
//
// A lock of Storage is asked for without waiting, so that who holds it for hours can be told of.
// What a program keeps for itself (a reference, counts, checksums) is written in a moment, by two
// runs that end together at the same one: there the second waits for its turn.
//
// Threads  any
// Errors   lock_in_turn(): those of Storage::lock, also that it is still held after the wait
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

// What is written at once is written in a moment, but a disk under load takes its time to sync.
inline constexpr std::chrono::milliseconds kTurnOfAnother{10'000};

// What Storage::lock says of a lock that is held, and whether an error says so.
Error locked_error(const std::string& path);
bool is_locked_error(const Error& error);

Result<std::unique_ptr<Storage::Lock>> lock_in_turn(Storage& storage, const std::string& path,
                                                    std::chrono::milliseconds wait_at_most);

}  // namespace penstock
