#include "survey/doctor.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <thread>

#include "base/byte_text.h"
#include "compute/cpu/cpu_backend.h"
#include "host/memory_limits.h"
#include "host/processors.h"
#include "survey/probes.h"

namespace penstock {
namespace {

constexpr uint64_t kMemoryMax = uint64_t{1} << 30;

struct FlashPlan {
  bool direct;
  uint64_t read_bytes;
  int depth;
};

class Examination {
 public:
  Examination(Storage& storage, const DoctorOptions& options, const DoctorObserver& on_step,
              std::stop_token stop)
      : storage_(storage), options_(options), on_step_(on_step), stop_(std::move(stop)) {}

  Result<DoctorReport> run();

 private:
  Result<void> prepare();
  Result<void> open_flash();
  void plan_flash(uint64_t file_bytes);
  Result<void> measure_flash();
  Result<void> measure_bursts();
  Result<void> measure_sustained();
  Result<void> measure_memory();
  Result<void> measure_kernels();
  Result<void> look_at_gpus();
  void say(const std::string& what) {
    if (on_step_) on_step_(what, done_, total_);
    ++done_;
  }

  Storage& storage_;
  const DoctorOptions& options_;
  const DoctorObserver& on_step_;
  std::stop_token stop_;
  int threads_ = 1;
  uint64_t memory_bytes_ = 0;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<StorageFile> direct_, buffered_;
  DiskFacts facts_;
  std::vector<FlashPlan> flash_plan_;
  std::vector<BurstCase> burst_plan_;
  std::vector<int> thread_counts_;
  std::vector<DType> dtypes_;
  int done_ = 0, total_ = 0;
  DoctorReport report_;
};

// 1, 2, 4, ... and the number asked for.
std::vector<int> thread_counts(int threads) {
  std::vector<int> counts;
  for (int count = 1; count < threads; count *= 2) counts.push_back(count);
  counts.push_back(threads);
  return counts;
}

Result<void> Examination::prepare() {
  threads_ = options_.threads > 0 ? options_.threads : usable_processors().count;
  memory_bytes_ = options_.memory_bytes;
  if (memory_bytes_ == 0) {
    const MemoryAvailability available = PENSTOCK_TRY(memory_available());
    memory_bytes_ = std::min(kMemoryMax, available.available_bytes / 8);
  }
  MachineProfile& profile = report_.profile;
  profile.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  profile.version = options_.version;
  profile.machine = this_machine();
  thread_counts_ = thread_counts(threads_);
  dtypes_ = {options_.dtype};
  if (options_.dtype != DType::kQ8) dtypes_.push_back(DType::kQ8);
  if (!options_.experts_path.empty()) PENSTOCK_TRY(open_flash());
  total_ = static_cast<int>(flash_plan_.size() + burst_plan_.size() + thread_counts_.size() +
                            dtypes_.size() + 1) +
           (options_.looks_at_gpus ? 1 : 0) + (options_.sustained_s > 0 && direct_ ? 1 : 0);
  return {};
}

Result<void> Examination::open_flash() {
  DiskFacts& facts = facts_;
  facts.path = options_.experts_path;
  direct_ = PENSTOCK_TRY(storage_.open(facts.path, OpenMode::kReadDirect));
  buffered_ = PENSTOCK_TRY(storage_.open(facts.path, OpenMode::kRead));
  facts.disk = PENSTOCK_TRY(disk_under(storage_, facts.path));
  facts.reads_direct = direct_->alignment() > 1;
  reader_ = PENSTOCK_TRY(make_reader(options_.reader, &facts.reader_note));
  report_.profile.disk = facts.disk;
  report_.profile.reader = reader_->description();
  facts.file_bytes = PENSTOCK_TRY(direct_->stat()).bytes;
  plan_flash(facts.file_bytes);
  return {};
}

// Small, middling and large blocks and the engine's own reads, each alone and many at a time.
void Examination::plan_flash(uint64_t file_bytes) {
  const uint64_t part = options_.part_bytes;
  std::vector<uint64_t> sizes = {uint64_t{64} << 10, uint64_t{256} << 10, uint64_t{1} << 20, part};
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  const auto add = [&](bool direct, uint64_t read_bytes, int depth) {
    const bool fits = static_cast<uint64_t>(depth) * read_bytes <= memory_bytes_;
    if (fits && read_bytes <= file_bytes && depth <= reader_->capacity()) {
      flash_plan_.push_back({direct, read_bytes, depth});
    }
  };
  if (direct_->alignment() > 1) {
    for (const uint64_t size : sizes) {
      for (const int depth : {1, 4, 16, 64}) add(true, size, depth);
    }
  }
  for (const int depth : {1, 4, 16}) add(false, part, depth);
  // Two reads an expert, from one missing expert to all of a layer's.
  for (const int reads : {2, 4, 8, 16}) {
    const bool fits = static_cast<uint64_t>(reads) * part <= memory_bytes_;
    if (fits && part <= file_bytes && reads <= reader_->capacity()) {
      burst_plan_.push_back({.read_bytes = part, .reads = reads, .seconds = options_.point_s});
    }
  }
}

Result<void> Examination::measure_flash() {
  for (const FlashPlan& plan : flash_plan_) {
    say(fmt::format("disk, {} reads of {}, {} at a time", plan.direct ? "direct" : "buffered",
                    format_bytes(plan.read_bytes), plan.depth));
    const StorageFile& file = plan.direct ? *direct_ : *buffered_;
    report_.profile.flash.push_back(PENSTOCK_TRY(probe_flash(
        *reader_, file,
        {.read_bytes = plan.read_bytes, .depth = plan.depth, .seconds = options_.point_s}, stop_)));
  }
  return {};
}

Result<void> Examination::measure_bursts() {
  for (const BurstCase& burst : burst_plan_) {
    say(fmt::format("disk, {} reads of {} at once after a pause", burst.reads,
                    format_bytes(burst.read_bytes)));
    const StorageFile& file = direct_->alignment() > 1 ? *direct_ : *buffered_;
    report_.profile.bursts.push_back(PENSTOCK_TRY(probe_burst(*reader_, file, burst, stop_)));
  }
  return {};
}

Result<void> Examination::measure_sustained() {
  const FlashPoint* best = flash_near(report_.profile, options_.part_bytes);
  if (best == nullptr || options_.sustained_s <= 0) return {};
  say(fmt::format("disk, for {:.0f} s", options_.sustained_s));
  const FlashPoint point = PENSTOCK_TRY(probe_flash(
      *reader_, best->is_direct ? *direct_ : *buffered_,
      {.read_bytes = best->read_bytes, .depth = best->depth, .seconds = options_.sustained_s},
      stop_));
  report_.profile.sustained_gbps = point.gbps;
  report_.profile.sustained_s = options_.sustained_s;
  return {};
}

Result<void> Examination::measure_memory() {
  for (const int threads : thread_counts_) {
    say(fmt::format("memory, {} threads", threads));
    report_.profile.memory.push_back(
        PENSTOCK_TRY(probe_memory(threads, memory_bytes_ / 2, options_.point_s, stop_)));
  }
  say("memory, small and large pages");
  report_.profile.pages =
      PENSTOCK_TRY(probe_pages(threads_, memory_bytes_ / 2, options_.point_s, stop_));
  report_.profile.op_us = probe_dispatch_us(threads_);
  return {};
}

Result<void> Examination::measure_kernels() {
  for (const DType dtype : dtypes_) {
    say(fmt::format("products in {}", name_of(dtype)));
    report_.profile.kernels.push_back(
        PENSTOCK_TRY(probe_kernel({.config = options_.config,
                                   .dtype = dtype,
                                   .threads = threads_,
                                   .simd_target = options_.simd_target,
                                   .buffer_bytes = memory_bytes_ / 2,
                                   .seconds = options_.point_s},
                                  stop_)));
  }
  return {};
}

Result<void> Examination::look_at_gpus() {
  say("GPUs");
  report_.gpus = PENSTOCK_TRY(survey_gpus(options_.point_s, {}, stop_));
  report_.profile.gpus = measured_gpus(report_.gpus);
  return {};
}

Result<DoctorReport> Examination::run() {
  PENSTOCK_TRY(prepare());
  std::vector<Finding>& findings = report_.findings;
  const std::vector<Finding> settings = settings_findings(report_.profile.machine);
  findings.insert(findings.begin(), settings.begin(), settings.end());
  PENSTOCK_TRY(measure_flash());
  PENSTOCK_TRY(measure_bursts());
  if (direct_) {
    if (!report_.profile.flash.empty()) facts_.small_read_us = report_.profile.flash.front().p50_us;
    const std::vector<Finding> disk = disk_findings(facts_);
    findings.insert(findings.end(), disk.begin(), disk.end());
  }
  PENSTOCK_TRY(measure_memory());
  PENSTOCK_TRY(measure_kernels());
  if (options_.looks_at_gpus) PENSTOCK_TRY(look_at_gpus());
  PENSTOCK_TRY(measure_sustained());
  const std::vector<std::string> targets = CpuBackend::targets();
  report_.profile.compute =
      fmt::format("{}, {} threads",
                  options_.simd_target.empty() ? (targets.empty() ? "?" : targets.front())
                                               : options_.simd_target,
                  threads_);
  const std::vector<Finding> rates = rate_findings(report_.profile);
  findings.insert(findings.end(), rates.begin(), rates.end());
  return std::move(report_);
}

}  // namespace

Json to_json(const DoctorReport& report) {
  Json json = to_json(report.profile);
  Json findings = Json::array();
  for (const Finding& finding : report.findings) findings.push_back(to_json(finding));
  json["findings"] = std::move(findings);
  json["gpus"] = to_json(report.gpus);
  if (!report.gpus.absence.empty()) json["gpus_absence"] = report.gpus.absence;
  return json;
}

Result<DoctorReport> examine(Storage& storage, const DoctorOptions& options,
                             const DoctorObserver& on_step, std::stop_token stop) {
  return Examination(storage, options, on_step, std::move(stop)).run();
}

}  // namespace penstock
