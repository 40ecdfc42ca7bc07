// Every reader must behave alike, so the same tests run over each of them.
//
// Rows D3 and D7 to D10 of the fault table: short reads and interruptions, a file that shrinks or
// vanishes, io_uring refused, completions in any order at any depth, direct reads refused.

#include "io/reader.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <latch>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#include "base/memory.h"
#include "io/read_progress.h"
#include "io/readers.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kNumBlocks = 96;

// Block b of every test file consists of this byte, with its number in front.
std::vector<std::byte> test_content() {
  std::vector<std::byte> content(kNumBlocks * kBlock);
  for (uint64_t at = 0; at < content.size(); ++at) {
    content[at] = static_cast<std::byte>(at / kBlock * 31 + at % kBlock % 7);
  }
  return content;
}

void read_everything(Reader& reader, const StorageFile& file, uint64_t bytes_per_read) {
  const std::vector<std::byte> content = test_content();
  AlignedMemory memory = *AlignedMemory::create(content.size(), "a test");
  std::vector<ReadRequest> requests(content.size() / bytes_per_read);
  std::vector<int> order(requests.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(5));
  size_t submitted = 0;
  std::vector<ReadRequest*> finished;
  while (finished.size() < requests.size()) {
    std::vector<ReadRequest*> batch;
    while (submitted < requests.size() &&
           reader.in_flight() + std::ssize(batch) < reader.capacity()) {
      const size_t i = static_cast<size_t>(order[submitted++]);
      ReadRequest& request = requests[i];
      request.file = &file;
      request.offset = i * bytes_per_read;
      request.bytes = bytes_per_read;
      request.target = memory.bytes().data() + request.offset;
      batch.push_back(&request);
    }
    reader.submit(batch);
    reader.reap(1s, finished);
  }
  EXPECT_EQ(reader.in_flight(), 0);
  for (const ReadRequest& request : requests) {
    EXPECT_EQ(request.error, 0);
    EXPECT_EQ(request.bytes_done, request.bytes);
    EXPECT_GE(request.finished_ns, request.submitted_ns);
  }
  EXPECT_TRUE(std::equal(content.begin(), content.end(), memory.bytes().begin()));
}

ReadRequest read_one(Reader& reader, const StorageFile& file, uint64_t offset, uint64_t bytes) {
  AlignedMemory memory = *AlignedMemory::create(bytes, "a test");
  ReadRequest request;
  request.file = &file;
  request.offset = offset;
  request.bytes = bytes;
  request.target = memory.bytes().data();
  ReadRequest* const batch[] = {&request};
  reader.submit(batch);
  std::vector<ReadRequest*> finished;
  while (finished.empty()) reader.reap(1s, finished);
  return request;
}

class TestFile {
 public:
  explicit TestFile(uint64_t bytes = kNumBlocks * kBlock)
      : path_(testing::TempDir() + "penstock_reader_" + std::to_string(getpid())) {
    auto file = *posix_storage().open(path_, OpenMode::kCreate);
    const std::vector<std::byte> content = test_content();
    file->write(0, std::span(content).first(bytes)).value();
    file->sync().value();
  }
  ~TestFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct ReaderCase {
  const char* name;
  std::function<std::unique_ptr<Reader>(int depth)> make;  // nothing where it cannot be had
};

class EveryReader : public testing::TestWithParam<ReaderCase> {
 protected:
  void SetUp() override {
    if (GetParam().make(1) == nullptr) GTEST_SKIP() << "refused by this kernel";
  }
};

TEST_P(EveryReader, brings_every_block_at_every_depth) {
  const TestFile on_disk;
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadDirect}) {
    const auto file = *posix_storage().open(on_disk.path(), mode);
    for (const int depth : {1, 2, 7, 64, 256}) {
      const auto reader = GetParam().make(depth);
      EXPECT_EQ(reader->capacity(), depth);
      read_everything(*reader, *file, kBlock);
      read_everything(*reader, *file, 4 * kBlock);
    }
  }
}

TEST_P(EveryReader, waits_no_longer_than_told_and_not_at_all_when_idle) {
  const auto reader = GetParam().make(4);
  std::vector<ReadRequest*> finished;
  reader->reap(10min, finished);
  EXPECT_TRUE(finished.empty());
}

TEST_P(EveryReader, a_read_past_the_end_is_ENODATA) {
  const TestFile on_disk(10 * kBlock + 100);  // truncated inside a block
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadDirect}) {
    const auto file = *posix_storage().open(on_disk.path(), mode);
    const auto reader = GetParam().make(4);
    EXPECT_EQ(read_one(*reader, *file, 9 * kBlock, kBlock).error, 0);
    EXPECT_EQ(read_one(*reader, *file, 10 * kBlock, kBlock).error, ENODATA);
    EXPECT_EQ(read_one(*reader, *file, 8 * kBlock, 4 * kBlock).error, ENODATA);
    EXPECT_EQ(read_one(*reader, *file, 64 * kBlock, kBlock).error, ENODATA);
  }
}

TEST_P(EveryReader, goes_on_with_a_deleted_file_and_fails_cleanly_with_a_truncated_one) {
  const TestFile on_disk;
  const auto file = *posix_storage().open(on_disk.path(), OpenMode::kReadDirect);
  const auto reader = GetParam().make(8);
  const auto other = *posix_storage().open(on_disk.path(), OpenMode::kRead);
  ASSERT_EQ(::unlink(on_disk.path().c_str()), 0);
  read_everything(*reader, *file, kBlock);
  std::filesystem::path link = "/proc/self/fd/" + std::to_string(other->descriptor());
  ASSERT_EQ(::truncate(link.c_str(), 5 * kBlock), 0);
  EXPECT_EQ(read_one(*reader, *file, 4 * kBlock, kBlock).error, 0);
  EXPECT_EQ(read_one(*reader, *file, 4 * kBlock, 2 * kBlock).error, ENODATA);
}

INSTANTIATE_TEST_SUITE_P(
    Readers, EveryReader,
    testing::Values(ReaderCase{"threads", [](int depth) { return make_thread_reader(3, depth); }},
                    ReaderCase{"uring",
                               [](int depth) -> std::unique_ptr<Reader> {
                                 auto reader = make_uring_reader(depth);
                                 return reader ? std::move(*reader) : nullptr;
                               }},
                    ReaderCase{"fake",
                               [](int depth) -> std::unique_ptr<Reader> {
                                 return std::make_unique<FakeReader>(
                                     FakeReaderOptions{.seed = 4, .depth = depth}, nullptr);
                               }}),
    [](const auto& test) { return std::string(test.param.name); });

// The readers without a descriptor of their own read from the simulated disk.
class OnSimulatedDisk : public testing::TestWithParam<bool> {
 protected:
  OnSimulatedDisk() {
    auto file = *disk_.open("/f", OpenMode::kCreate);
    file->write(0, test_content()).value();
    file_ = *disk_.open("/f", OpenMode::kReadDirect);
    if (GetParam()) {
      reader_ = make_thread_reader(3, 16);
    } else {
      reader_ = std::make_unique<FakeReader>(FakeReaderOptions{.seed = 9, .depth = 16}, nullptr);
    }
  }
  SimStorage disk_{2};
  std::unique_ptr<StorageFile> file_;
  std::unique_ptr<Reader> reader_;
};

TEST_P(OnSimulatedDisk, short_reads_and_interruptions_at_every_call_are_completed) {
  disk_.inject({.call = SimCall::kRead, .times = kForEver, .effect = SimEffect::kShort});
  read_everything(*reader_, *file_, 8 * kBlock);
  EXPECT_GT(disk_.calls(SimCall::kRead), kNumBlocks / 8 + 10);
  for (const int error : {EINTR, EAGAIN}) {
    for (uint64_t nth = 0; nth < kNumBlocks / 8; ++nth) {
      const uint64_t struck = disk_.faults_struck();
      disk_.clear_faults();
      disk_.inject({.call = SimCall::kRead, .after = nth, .times = 3, .error = error});
      read_everything(*reader_, *file_, 8 * kBlock);
      EXPECT_EQ(disk_.faults_struck(), struck + 3);
    }
  }
}

TEST_P(OnSimulatedDisk, an_interruption_without_end_is_an_error_not_a_hang) {
  disk_.inject({.call = SimCall::kRead, .times = kForEver, .error = EAGAIN});
  EXPECT_EQ(read_one(*reader_, *file_, 0, kBlock).error, EAGAIN);
}

TEST_P(OnSimulatedDisk, other_errors_come_back_at_once_and_do_not_last) {
  disk_.inject({.call = SimCall::kRead, .error = EIO});
  EXPECT_EQ(read_one(*reader_, *file_, 0, kBlock).error, EIO);
  EXPECT_EQ(read_one(*reader_, *file_, 0, kBlock).error, 0);
}

INSTANTIATE_TEST_SUITE_P(Readers, OnSimulatedDisk, testing::Bool(),
                         [](const auto& test) { return test.param ? "threads" : "fake"; });

// From now on the kernel answers this thread's `call` with `error`, as the filter of a container
// does. False where this kernel takes no such filter.
bool refuse_from_now_on(uint32_t call, int error) {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {.len = std::size(rules), .filter = rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Runs `body` on a thread of its own for which this holds.
bool with_refused(uint32_t call, int error, const std::function<void()>& body) {
  bool is_filtered = false;
  std::thread([&] {
    is_filtered = refuse_from_now_on(call, error);
    if (is_filtered) body();
  }).join();
  return is_filtered;
}

TEST(MakeReader, falls_back_to_threads_with_a_note_when_io_uring_is_refused) {
  for (const int error : {EPERM, ENOSYS, ENOMEM, EMFILE}) {
    const bool was_tried = with_refused(__NR_io_uring_setup, error, [error] {
      std::string note;
      const auto reader = *make_reader({}, &note);
      EXPECT_EQ(reader->description(), "4 threads");
      EXPECT_NE(note.find("io_uring"), std::string::npos);
      EXPECT_NE(note.find(std::generic_category().message(error)), std::string::npos) << note;
      const auto insisted = make_reader({.kind = ReaderKind::kUring}, &note);
      ASSERT_FALSE(insisted.has_value());
      EXPECT_EQ(insisted.error().code, ErrorCode::kIo);
    });
    if (!was_tried) GTEST_SKIP() << "this kernel filters no system calls";
  }
}

// Without a filter: the kernel's rings end at 32,768 entries.
TEST(MakeReader, falls_back_to_threads_when_a_ring_cannot_be_as_deep) {
  constexpr int kDepth = 1 << 16;
  std::string note;
  const auto reader = *make_reader({.depth = kDepth, .threads = 2}, &note);
  EXPECT_EQ(reader->description(), "2 threads");
  EXPECT_EQ(reader->capacity(), kDepth);
  EXPECT_NE(note.find("io_uring"), std::string::npos) << note;
  const auto insisted = make_reader({.kind = ReaderKind::kUring, .depth = kDepth}, nullptr);
  EXPECT_EQ(insisted.error().code, ErrorCode::kIo);
}

TEST(MakeReader, has_a_note_only_where_it_fell_back) {
  std::string note;
  const auto reader = *make_reader({.depth = 5}, &note);
  EXPECT_EQ(note.empty(), reader->description() == "io_uring, depth 5");
}

// Sandboxes that grant the setup and refuse the use.
TEST(MakeReader, a_ring_that_may_not_be_entered_is_refused_at_the_start) {
  for (const int error : {EPERM, ENOSYS, EACCES, EIO, EINVAL, EAGAIN, EBUSY, EINTR}) {
    const bool was_tried = with_refused(__NR_io_uring_enter, error, [error] {
      std::string note;
      const auto reader = *make_reader({}, &note);
      EXPECT_EQ(reader->description(), "4 threads") << error;
      EXPECT_NE(note.find("io_uring"), std::string::npos);
      EXPECT_FALSE(make_uring_reader(4).has_value());
    });
    if (!was_tried) GTEST_SKIP() << "this kernel filters no system calls";
  }
}

TEST(UringReader, a_ring_that_is_refused_later_fails_its_reads_and_hangs_in_none) {
  for (const int error : {EPERM, EIO, EBADF, ENOSYS}) {
    std::thread([error] {
      auto made = make_uring_reader(8);
      if (!made) return;
      const auto reader = *std::move(made);
      const TestFile on_disk;
      const auto file = *posix_storage().open(on_disk.path(), OpenMode::kReadDirect);
      EXPECT_EQ(read_one(*reader, *file, 0, kBlock).error, 0);
      if (!refuse_from_now_on(__NR_io_uring_enter, error)) return;
      for (int i = 0; i < 20; ++i) {  // more than the ring has places
        EXPECT_EQ(read_one(*reader, *file, 0, kBlock).error, error);
      }
      EXPECT_TRUE(drain(*reader, 1ms));
    }).join();
  }
}

TEST(UringReader, reads_that_the_kernel_does_not_take_for_now_wait_and_do_not_hang) {
  for (const int error : {EAGAIN, EBUSY, ENOMEM, EINTR}) {
    std::thread([error] {
      auto made = make_uring_reader(8);
      if (!made) return;
      auto reader = *std::move(made);
      const TestFile on_disk;
      const auto file = *posix_storage().open(on_disk.path(), OpenMode::kReadDirect);
      if (!refuse_from_now_on(__NR_io_uring_enter, error)) return;
      AlignedMemory memory = *AlignedMemory::create(kBlock, "a test");
      ReadRequest request{.file = file.get(), .target = memory.bytes().data(), .bytes = kBlock};
      ReadRequest* const batch[] = {&request};
      std::vector<ReadRequest*> finished;
      reader->submit(batch);
      reader->reap(20ms, finished);
      EXPECT_TRUE(finished.empty());
      EXPECT_EQ(reader->in_flight(), 1);
      EXPECT_FALSE(drain(*reader, 30ms));
      reader.reset();  // does not wait
    }).join();
  }
}

// A disk from which nothing comes: each read waits until the gate opens.
class HangingFile final : public StorageFile {
 public:
  explicit HangingFile(std::shared_ptr<std::latch> gate) : gate_(std::move(gate)) {}
  const std::string& path() const override { return path_; }
  int64_t try_read(uint64_t, std::span<std::byte>) const override {
    const std::shared_ptr<std::latch> gate = gate_;
    gate->wait();
    return -EIO;
  }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return {}; }
  Result<void> reserve(uint64_t) override { return {}; }
  Result<void> sync() override { return {}; }
  Result<FileStat> stat() const override { return FileStat{}; }
  void drop_cached(uint64_t, uint64_t) const override {}
  uint64_t alignment() const override { return 1; }
  int descriptor() const override { return -1; }

 private:
  std::string path_ = "/hangs";
  std::shared_ptr<std::latch> gate_;
};

TEST(ThreadReader, reads_that_never_end_are_abandoned_and_nobody_touches_them_again) {
  const auto gate = std::make_shared<std::latch>(1);
  const HangingFile file(gate);
  for (const size_t num_reads : {1u, 3u, 16u}) {  // fewer and more than threads
    std::vector<std::byte> target(num_reads);
    std::vector<ReadRequest> requests(num_reads);
    std::vector<ReadRequest*> batch;
    for (size_t i = 0; i < num_reads; ++i) {
      requests[i].file = &file;
      requests[i].target = &target[i];
      requests[i].bytes = 1;
      batch.push_back(&requests[i]);
    }
    auto reader = make_thread_reader(3, 16);
    reader->submit(batch);
    EXPECT_FALSE(drain(*reader, 30ms));
    reader.reset();  // does not wait either
  }
  gate->count_down();
}

TEST(ThreadReader, a_reader_at_rest_is_drained_at_once) {
  const auto reader = make_thread_reader(2, 4);
  EXPECT_TRUE(drain(*reader, 1h));
}

TEST(MakeReader, refuses_a_depth_below_one) {
  EXPECT_EQ(make_reader({.depth = 0}, nullptr).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(make_reader({.threads = 0}, nullptr).error().code, ErrorCode::kInvalidArgument);
}

TEST(FakeReader, answers_in_another_order_than_asked) {
  SimStorage disk;
  (*disk.open("/f", OpenMode::kCreate))->write(0, test_content()).value();
  const auto file = *disk.open("/f", OpenMode::kRead);
  FakeReader reader({.seed = 3, .depth = 32}, nullptr);
  std::vector<std::byte> target(32);
  std::vector<ReadRequest> requests(32);
  std::vector<ReadRequest*> batch;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].file = file.get();
    requests[i].offset = i * kBlock;
    requests[i].bytes = 1;
    requests[i].target = &target[i];
    batch.push_back(&requests[i]);
  }
  reader.submit(batch);
  std::vector<ReadRequest*> finished;
  while (finished.size() < batch.size()) reader.reap(1s, finished);
  EXPECT_NE(finished, batch);
  EXPECT_TRUE(std::is_permutation(finished.begin(), finished.end(), batch.begin()));
}

}  // namespace
}  // namespace penstock
