// Reads through io_uring: the kernel starts them all with one call and no thread of ours waits.

#include <fmt/format.h>
#include <liburing.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "io/read_progress.h"
#include "io/readers.h"
#include "io/system_error.h"

namespace penstock {
namespace {

// What the kernel cannot take now but may take later; all else is a refusal.
bool is_passing(int error) {
  return error == EAGAIN || error == EBUSY || error == ENOMEM || error == EINTR;
}

class UringReader final : public Reader {
 public:
  explicit UringReader(int depth) : depth_(depth) {}

  ~UringReader() override {
    // With reads in flight the ring stays for as long as the program: to close it would be to wait
    // for them.
    if (is_set_up_ && in_flight_ == 0) io_uring_queue_exit(&ring_);
  }

  // 0, or the errno of the refusal. Sandboxes often grant the ring and refuse to use it, so it is
  // used once.
  int set_up() {
    const int result = io_uring_queue_init(static_cast<unsigned>(depth_), &ring_, 0);
    if (result < 0) return -result;
    is_set_up_ = true;
    // Without it a wait with a limit of time would submit reads on its own.
    if ((ring_.features & IORING_FEAT_EXT_ARG) == 0) return ENOSYS;
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool can_read = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    if (!can_read) return ENOSYS;
    return try_it();
  }

  std::string description() const override { return fmt::format("io_uring, depth {}", depth_); }
  int capacity() const override { return depth_; }
  int in_flight() const override { return in_flight_; }

  void submit(std::span<ReadRequest* const> requests) override {
    in_flight_ += static_cast<int>(requests.size());
    PENSTOCK_CHECK(in_flight_ <= depth_);
    for (ReadRequest* request : requests) {
      begin_read(*request);
      enqueue(*request);
    }
    pass_to_kernel();
  }

  void reap(std::chrono::nanoseconds timeout, std::vector<ReadRequest*>& finished) override {
    if (in_flight_ == 0) return;
    const size_t before = finished.size();
    const int64_t deadline_ns = steady_now_ns() + timeout.count();
    for (;;) {
      collect(finished);
      pass_to_kernel();
      hand_back_refused(finished);
      const int64_t left_ns = deadline_ns - steady_now_ns();
      if (finished.size() > before || left_ns <= 0) return;
      __kernel_timespec wait{.tv_sec = left_ns / 1'000'000'000, .tv_nsec = left_ns % 1'000'000'000};
      io_uring_cqe* first = nullptr;
      const int result = io_uring_wait_cqe_timeout(&ring_, &first, &wait);
      if (result == -EINTR) return;  // a signal: the caller may want to look at its stop token
      // Refused to wait: reads that the kernel has taken arrive all the same.
      if (result < 0 && result != -ETIME) {
        std::this_thread::sleep_for(std::min(kNap, std::chrono::nanoseconds(left_ns)));
      }
    }
  }

 private:
  int try_it() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(entry);
    int submitted = -EAGAIN;
    for (int i = 0; i < kTransientRepeatsMax && submitted < 1; ++i) {
      submitted = io_uring_submit(&ring_);
      if (submitted < 0 && !is_passing(-submitted)) return -submitted;
    }
    if (submitted < 1) return EAGAIN;
    io_uring_cqe* answer = nullptr;
    __kernel_timespec wait{.tv_sec = 1, .tv_nsec = 0};
    int result = -EINTR;
    for (int i = 0; i < kTransientRepeatsMax && result == -EINTR; ++i) {
      result = io_uring_wait_cqe_timeout(&ring_, &answer, &wait);
    }
    if (result < 0) return -result;
    io_uring_cqe_seen(&ring_, answer);
    return 0;
  }

  void enqueue(ReadRequest& request) {
    if (refused_error_ != 0) {
      refused_.push_back(&request);
      return;
    }
    PENSTOCK_CHECK(request.file->descriptor() >= 0);
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    PENSTOCK_CHECK(entry != nullptr);  // the queue has a place for each request in flight
    const ReadRest rest = rest_of(request);
    const size_t bytes = std::min(rest.target.size(), kBytesPerCallMax);
    io_uring_prep_read(entry, request.file->descriptor(), rest.target.data(),
                       static_cast<unsigned>(bytes), rest.offset);
    io_uring_sqe_set_data(entry, &request);
    // Through the page cache io_uring tries first, on our time, and gets what is there; handing the
    // read to a kernel thread at once is twice as fast and as fast as threads of ours.
    if (request.file->alignment() == 1) io_uring_sqe_set_flags(entry, IOSQE_ASYNC);
    queued_.push_back(&request);
  }

  // What the kernel cannot take now stays queued for the next call. Where it refuses for good, the
  // requests that it did not take have failed; what lies in the ring is never handed over.
  void pass_to_kernel() {
    for (int repeats = 0; !queued_.empty() && repeats <= kTransientRepeatsMax; ++repeats) {
      const int result = io_uring_submit(&ring_);
      if (result > 0) {
        const auto taken = std::min(queued_.size(), static_cast<size_t>(result));
        queued_.erase(queued_.begin(), queued_.begin() + static_cast<ptrdiff_t>(taken));
        continue;
      }
      if (result == -EINTR) continue;
      if (result == 0 || is_passing(-result)) return;
      refused_error_ = -result;
      refused_.insert(refused_.end(), queued_.begin(), queued_.end());
      queued_.clear();
    }
  }

  void hand_back_refused(std::vector<ReadRequest*>& finished) {
    for (ReadRequest* request : refused_) {
      request->error = refused_error_;
      request->finished_ns = steady_now_ns();
      finished.push_back(request);
    }
    in_flight_ -= static_cast<int>(refused_.size());
    refused_.clear();
  }

  void collect(std::vector<ReadRequest*>& finished) {
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&ring_, &completion) == 0) {
      auto* request = static_cast<ReadRequest*>(io_uring_cqe_get_data(completion));
      const int result = completion->res;
      io_uring_cqe_seen(&ring_, completion);
      if (!record_read(*request, result)) {
        enqueue(*request);
        continue;
      }
      request->finished_ns = steady_now_ns();
      --in_flight_;
      finished.push_back(request);
    }
  }

  // The kernel reads at most 2 GiB - 4 KiB at a time; a multiple of every alignment.
  static constexpr size_t kBytesPerCallMax = size_t{1} << 30;
  static constexpr std::chrono::nanoseconds kNap = std::chrono::milliseconds(1);

  const int depth_;
  int in_flight_ = 0;
  bool is_set_up_ = false;
  io_uring ring_{};
  std::deque<ReadRequest*> queued_;    // in the ring, not taken by the kernel, in their order
  std::vector<ReadRequest*> refused_;  // to be handed back as failed
  int refused_error_ = 0;              // why the kernel takes no reads any more
};

}  // namespace

bool system_has_uring() {
  return true;
}

Result<std::unique_ptr<Reader>> make_uring_reader(int depth) {
  auto reader = std::make_unique<UringReader>(depth);
  if (const int error = reader->set_up(); error != 0) {
    return Error{ErrorCode::kIo,
                 fmt::format("io_uring is not available here ({})", reason_of(error))};
  }
  return std::unique_ptr<Reader>(std::move(reader));
}

}  // namespace penstock
