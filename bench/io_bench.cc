// What can this disk give, through the readers of this engine?
//
//   io_bench model/experts.bin
//   io_bench experts.bin --reader uring threads --block-kib 512 2048 --depth 8 64 --seconds 5
//   --json
//
// Reads blocks in random order, each block once per pass, into 2 MiB pages, and reports GB/s (10^9
// bytes), the time from submission to completion at the middle and at the 99th percentile, and the
// processor time spent per second. Direct reads go past the page cache; before a buffered run the
// file's pages are dropped, which needs them to be written out. "checksum" is XXH3-128 over bytes
// in memory on one thread: what verification costs.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/memory.h"
#include "io/checksum.h"
#include "io/read_progress.h"
#include "io/readers.h"

namespace penstock {
namespace {

struct Options {
  std::string path;
  std::vector<std::string> readers = {"uring", "threads"};
  std::vector<uint64_t> block_kib = {64, 256, 512, 1024, 2048, 4096};
  std::vector<int> depths = {1, 4, 16, 64};
  std::vector<std::string> modes = {"direct", "buffered"};
  int threads = 4;
  double seconds = 2.0;
  uint64_t seed = 1;
  bool json = false;
};

struct Row {
  std::string reader;
  std::string mode;
  uint64_t block_bytes = 0;
  int depth = 0;
  double gb_per_s = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double cpu_share = 0;  // processor seconds per second
  uint64_t bytes = 0;
};

double process_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double percentile_ms(std::vector<int64_t>& latencies_ns, double share) {
  if (latencies_ns.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(latencies_ns.size() - 1));
  std::nth_element(latencies_ns.begin(), latencies_ns.begin() + at, latencies_ns.end());
  return static_cast<double>(latencies_ns[static_cast<size_t>(at)]) * 1e-6;
}

Result<std::unique_ptr<Reader>> reader_of(const std::string& name, int depth, int threads) {
  if (name == "uring") return make_uring_reader(depth);
  return make_thread_reader(threads, depth);
}

// Random blocks for `seconds`, then whatever is in flight.
Result<Row> measure(const Options& options, const StorageFile& file, Reader& reader,
                    uint64_t block_bytes, std::span<std::byte> memory) {
  const uint64_t file_bytes = PENSTOCK_TRY(file.stat()).bytes;
  std::vector<uint64_t> offsets(file_bytes / block_bytes);
  if (offsets.empty())
    return Error{ErrorCode::kInvalidArgument, "the file is smaller than a block"};
  for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = i * block_bytes;
  std::shuffle(offsets.begin(), offsets.end(), std::mt19937_64(options.seed));
  if (file.alignment() == 1) file.drop_cached(0, file_bytes);

  const auto depth = static_cast<size_t>(reader.capacity());
  std::vector<ReadRequest> requests(depth);
  std::vector<ReadRequest*> idle;
  for (size_t i = 0; i < depth; ++i) {
    requests[i].file = &file;
    requests[i].bytes = block_bytes;
    requests[i].target = memory.data() + i * block_bytes;
    idle.push_back(&requests[i]);
  }
  std::vector<int64_t> latencies_ns;
  const int64_t begin_ns = steady_now_ns();
  const auto limit_ns = static_cast<int64_t>(options.seconds * 1e9);
  const double cpu_begin = process_seconds();
  size_t next = 0;
  std::vector<ReadRequest*> finished;
  for (;;) {
    // Buffered reads would come from memory in a second pass.
    const bool has_more = file.alignment() > 1 || next < offsets.size();
    const bool goes_on = has_more && steady_now_ns() - begin_ns < limit_ns;
    if (goes_on) {
      for (ReadRequest* request : idle) request->offset = offsets[next++ % offsets.size()];
      reader.submit(idle);
      idle.clear();
    }
    if (reader.in_flight() == 0) break;
    finished.clear();
    reader.reap(std::chrono::seconds(1), finished);
    for (ReadRequest* request : finished) {
      if (request->error != 0) {
        return Error{ErrorCode::kIo, fmt::format("read at {:#x} of {}: error {}", request->offset,
                                                 file.path(), request->error)};
      }
      latencies_ns.push_back(request->finished_ns - request->submitted_ns);
      idle.push_back(request);
    }
  }
  const double wall_s = 1e-9 * static_cast<double>(steady_now_ns() - begin_ns);
  Row row;
  row.mode = file.alignment() > 1 ? "direct" : "buffered";
  row.block_bytes = block_bytes;
  row.depth = reader.capacity();
  row.bytes = latencies_ns.size() * block_bytes;
  row.gb_per_s = 1e-9 * static_cast<double>(row.bytes) / wall_s;
  row.cpu_share = (process_seconds() - cpu_begin) / wall_s;
  row.p50_ms = percentile_ms(latencies_ns, 0.5);
  row.p99_ms = percentile_ms(latencies_ns, 0.99);
  return row;
}

Result<double> checksum_gb_per_s() {
  AlignedMemory memory =
      PENSTOCK_TRY(AlignedMemory::create(uint64_t{64} << 20, "the checksum", Prefault::kYes));
  uint64_t bytes = 0;
  uint64_t sum = 0;
  const double begin = process_seconds();
  while (process_seconds() - begin < 0.5) {
    sum ^= part_checksum(sum, 0, 0, 0, memory.bytes()).low;
    bytes += memory.bytes().size();
  }
  return 1e-9 * static_cast<double>(bytes) / (process_seconds() - begin);
}

void print(const Row& row, bool json) {
  if (json) {
    const Json line = {
        {"reader", row.reader}, {"mode", row.mode},           {"block_bytes", row.block_bytes},
        {"depth", row.depth},   {"gb_per_s", row.gb_per_s},   {"p50_ms", row.p50_ms},
        {"p99_ms", row.p99_ms}, {"cpu_share", row.cpu_share}, {"bytes", row.bytes}};
    fmt::print("{}\n", to_text(line));
    return;
  }
  fmt::print("{:<20} {:<9} {:>6} KiB {:>6} {:>8.3f} {:>9.2f} {:>9.2f} {:>6.2f}\n", row.reader,
             row.mode, row.block_bytes / 1024, row.depth, row.gb_per_s, row.p50_ms, row.p99_ms,
             row.cpu_share);
}

Result<void> run(const Options& options) {
  if (!options.json) {
    fmt::print("checksum {:.1f} GB/s\n", PENSTOCK_TRY(checksum_gb_per_s()));
    fmt::print("{:<20} {:<9} {:>10} {:>6} {:>8} {:>9} {:>9} {:>6}\n", "reader", "mode", "block",
               "depth", "GB/s", "p50 ms", "p99 ms", "cpu");
  }
  for (const std::string& mode : options.modes) {
    const auto file = PENSTOCK_TRY(posix_storage().open(
        options.path, mode == "direct" ? OpenMode::kReadDirect : OpenMode::kRead));
    if (mode == "direct" && file->alignment() == 1) {
      fmt::print(stderr, "{}: direct reads are refused here\n", options.path);
      continue;
    }
    for (const std::string& name : options.readers) {
      for (const uint64_t kib : options.block_kib) {
        for (const int depth : options.depths) {
          const auto reader = PENSTOCK_TRY(reader_of(name, depth, options.threads));
          AlignedMemory memory = PENSTOCK_TRY(AlignedMemory::create(
              static_cast<uint64_t>(depth) * kib * 1024, "read targets", Prefault::kYes));
          Row row = PENSTOCK_TRY(measure(options, *file, *reader, kib * 1024, memory.bytes()));
          row.reader = name == "uring" ? "io_uring" : reader->description();
          print(row, options.json);
        }
      }
    }
  }
  return {};
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  CLI::App app("Measures how fast a file can be read.");
  penstock::Options options;
  app.add_option("file", options.path, "the file; larger than memory tells the most")->required();
  app.add_option("--reader", options.readers, "uring, threads")
      ->check(CLI::IsMember({"uring", "threads"}));
  app.add_option("--mode", options.modes, "direct, buffered")
      ->check(CLI::IsMember({"direct", "buffered"}));
  app.add_option("--block-kib", options.block_kib, "block sizes, multiples of 4")
      ->check(CLI::Range(4, 1 << 20));
  app.add_option("--depth", options.depths, "requests in flight")->check(CLI::Range(1, 4096));
  app.add_option("--threads", options.threads, "of the thread reader")->check(CLI::Range(1, 1024));
  app.add_option("--seconds", options.seconds, "per row")->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "of the order of blocks");
  app.add_flag("--json", options.json, "one JSON object per row");
  CLI11_PARSE(app, argc, argv);
  for (uint64_t& kib : options.block_kib) kib -= kib % 4;
  const auto done = penstock::run(options);
  if (!done) {
    fmt::print(stderr, "{}\n", done.error().message);
    return 1;
  }
  return 0;
}
