// The readers behind make_reader, one by one: for make_reader itself, benchmarks and tests.
//
// Errors  make_uring_reader(): kUnsupported when the system does not grant it
#pragma once

#include <memory>

#include "io/reader.h"

namespace penstock {

// kOutOfMemory where the system refuses a thread.
Result<std::unique_ptr<Reader>> start_thread_reader(int num_threads, int depth);

// The same for tests and benchmarks, which can do nothing about a refusal.
std::unique_ptr<Reader> make_thread_reader(int num_threads, int depth);

// Whether this kind of system knows io_uring at all. Threads are no fallback where it does not.
bool system_has_uring();

// kUnsupported, with the kernel's reason, where io_uring is refused or too old.
Result<std::unique_ptr<Reader>> make_uring_reader(int depth);

}  // namespace penstock
