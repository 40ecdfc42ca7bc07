// Asynchronous reads into memory that the caller owns: submit, go on computing, reap.
//
// One thread submits and reaps; how the bytes travel is the implementation's matter (io_uring, a
// team of threads, a simulated disk). A request is a plain struct inside the object that asked for
// it and stays at its address until reap() hands it back, finished or failed; its target is not
// touched afterwards. Short reads, EINTR and EAGAIN are completed inside; what comes back failed
// has failed. Reads are never cancelled: the owner of the buffers waits, see drain().
//
// Threads  submit and reap from one thread.
// Limits   At most capacity() requests in flight; submit() checks it. With reads in flight that never
//          end, a destroyed reader touches no request any more; the disk may still write to targets.
// Errors   make_reader(): kInvalidArgument, kUnsupported; a request carries its own, an errno value
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct ReadRequest {
  const StorageFile* file = nullptr;
  uint64_t offset = 0;
  std::byte* target = nullptr;
  uint64_t bytes = 0;  // offset, target, bytes: multiples of file->alignment()
  // The first so many suffice, and the file may end after them; 0: all.
  uint64_t bytes_needed = 0;

  int error = 0;  // errno of a failed read, 0 for a finished one; ENODATA: the file ended early
  uint64_t bytes_done = 0;   // progress; what was needed, or more, when finished
  int repeats = 0;           // of calls that brought nothing (io/read_progress.h)
  int64_t submitted_ns = 0;  // steady clock, for latency figures
  int64_t finished_ns = 0;
};

class Reader {
 public:
  virtual ~Reader() = default;

  // "io_uring, depth 64", "4 threads": for banners and benchmark rows.
  virtual std::string description() const = 0;
  virtual int capacity() const = 0;
  virtual int in_flight() const = 0;

  // Starts the reads, in this order where the device allows. Sets the results of each to "nothing
  // yet", so that a finished request can be submitted again.
  virtual void submit(std::span<ReadRequest* const> requests) = 0;

  // Appends finished requests to `finished`. With a positive timeout waits until there is at least
  // one or the time is over; returns at once when nothing is in flight.
  virtual void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) = 0;
};

enum class ReaderKind { kAuto, kUring, kThreads };

struct ReaderOptions {
  ReaderKind kind = ReaderKind::kAuto;
  int depth = 256;  // requests in flight
  int threads = 4;  // of the thread reader
};

// kAuto takes io_uring where the kernel grants it, else threads; `note` says why when it fell back.
// Errors: kInvalidArgument (depth or threads below 1), kUnsupported (kUring, and the kernel
// refuses).
Result<std::unique_ptr<Reader>> make_reader(const ReaderOptions& options, std::string* note);

}  // namespace penstock
