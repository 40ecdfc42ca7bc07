#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "compute/cpu/cpu_backend.h"
#include "engine/limits.h"
#include "survey/elapsed.h"
#include "survey/probes.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPromptTokens = 512;
constexpr int64_t kPromptExperts = 8;  // of one call: several, as they arrive in the engine

// Experts of a model's shape, one after the other; their values are those of one panel, repeated.
struct ProbedExperts {
  AlignedMemory memory;
  int64_t count = 0;
  uint64_t gate_up_bytes = 0, bytes = 0;
  DType dtype = DType::kQ4;
  int64_t hidden = 0, width = 0;

  ExpertWork work(int64_t index, std::span<const int32_t> tokens,
                  std::span<const int32_t> places) const {
    const std::byte* start = memory.bytes().data() + static_cast<uint64_t>(index % count) * bytes;
    return work_of_gate_up({dtype, 2 * width, hidden, start},
                           {dtype, hidden, width, start + gate_up_bytes}, tokens, places);
  }
};

Result<ProbedExperts> make_experts(const KernelCase& how) {
  ProbedExperts experts;
  experts.dtype = how.dtype;
  experts.hidden = how.config.hidden_size;
  experts.width = how.config.moe_intermediate_size;
  experts.gate_up_bytes =
      static_cast<uint64_t>(panel_bytes(how.dtype, 2 * experts.width, experts.hidden));
  experts.bytes = experts.gate_up_bytes +
                  static_cast<uint64_t>(panel_bytes(how.dtype, experts.hidden, experts.width));
  experts.count = std::max<int64_t>({static_cast<int64_t>(how.buffer_bytes / experts.bytes),
                                     how.config.num_experts_per_tok, kPromptExperts});
  experts.memory = PENSTOCK_TRY(AlignedMemory::create(
      static_cast<uint64_t>(experts.count) * experts.bytes, "measuring products", Prefault::kYes));
  // All panels are made of blocks of one size: a block of ordinary numbers fills everything.
  std::mt19937 random(1);
  std::uniform_real_distribution<float> weight(-0.05f, 0.05f);
  std::vector<float> values(static_cast<size_t>(kPanelRows * kGroupColumns));
  for (float& value : values) value = weight(random);
  std::vector<std::byte> block(static_cast<size_t>(block_bytes(how.dtype)));
  make_panels(how.dtype, values, kPanelRows, kGroupColumns, block);
  const std::span<std::byte> all = experts.memory.bytes();
  for (size_t at = 0; at < all.size(); at += block.size()) {
    std::memcpy(all.data() + at, block.data(), std::min(block.size(), all.size() - at));
  }
  return experts;
}

// Activations of a chunk: x, hidden and out of the two expert ops.
struct Activations {
  std::vector<float> x, hidden, out;
  Rows x_rows, hidden_rows, out_rows;

  Activations(int64_t tokens, int64_t places, int64_t hidden_size, int64_t width)
      : x(static_cast<size_t>(tokens * hidden_size)),
        hidden(static_cast<size_t>(places * width)),
        out(static_cast<size_t>(places * hidden_size)),
        x_rows{x.data(), tokens, hidden_size, hidden_size},
        hidden_rows{hidden.data(), places, width, width},
        out_rows{out.data(), places, hidden_size, hidden_size} {
    std::mt19937 random(2);
    std::normal_distribution<float> value;
    for (float& v : x) v = value(random);
  }
};

void call(Backend& backend, const std::vector<ExpertWork>& works, const Activations& rows) {
  backend.expert_gate_up(rows.x_rows, works, rows.hidden_rows);
  backend.expert_down(rows.hidden_rows, works, rows.out_rows);
}

// Calls of both ops per second: `calls` are repeated in turn until the time is over.
double calls_per_second(Backend& backend, const std::vector<std::vector<ExpertWork>>& calls,
                        const Activations& rows, double seconds, const std::stop_token& stop) {
  call(backend, calls.front(), rows);
  const Clock::time_point start = Clock::now();
  size_t done = 0;
  double elapsed_s = 0;
  do {
    call(backend, calls[done % calls.size()], rows);
    ++done;
    elapsed_s = seconds_since(start);
  } while (elapsed_s < seconds && !stop.stop_requested());
  return static_cast<double>(done) / elapsed_s;
}

// Median microseconds of a call that follows a pause, in which the team falls asleep.
double us_after_pause(Backend& backend, const std::vector<std::vector<ExpertWork>>& calls,
                      const Activations& rows, double seconds, const std::stop_token& stop) {
  constexpr auto kPause = std::chrono::milliseconds(2);  // a few experts' way from the disk
  std::vector<double> times_us;
  const Clock::time_point begin = Clock::now();
  do {
    std::this_thread::sleep_for(kPause);
    const Clock::time_point start = Clock::now();
    call(backend, calls[times_us.size() % calls.size()], rows);
    times_us.push_back(seconds_since(start) * 1e6);
  } while (seconds_since(begin) < seconds && !stop.stop_requested());
  const auto middle = times_us.begin() + std::ssize(times_us) / 2;
  std::nth_element(times_us.begin(), middle, times_us.end());
  return *middle;
}

// A quantised matrix has whole groups of columns: a model with other widths is measured at the
// next whole ones.
KernelCase with_whole_groups(KernelCase how) {
  const auto round_up = [](int64_t& width) {
    width = (width + kGroupColumns - 1) / kGroupColumns * kGroupColumns;
  };
  round_up(how.config.hidden_size);
  round_up(how.config.moe_intermediate_size);
  return how;
}

}  // namespace

Result<KernelPoint> probe_kernel(const KernelCase& asked, std::stop_token stop) {
  const KernelCase how = with_whole_groups(asked);
  const ProbedExperts experts = PENSTOCK_TRY(make_experts(how));
  const int64_t top_k = how.config.num_experts_per_tok;
  const int64_t rows_each = std::max<int64_t>(1, kPromptTokens * top_k / how.config.num_experts);
  const int64_t rows = std::max(rows_each * kPromptExperts, top_k);
  const int64_t tokens = std::max<int64_t>(rows_each, 1);
  BackendLimits limits =
      backend_limits(how.config, scratch_shape(kPromptTokens, top_k, 1), kPromptTokens, 0);
  limits.top_k = std::max(limits.top_k, kPromptExperts);
  const auto backend =
      PENSTOCK_TRY(CpuBackend::create(how.threads, limits, {.target = how.simd_target}));
  const Activations activations(tokens, rows, experts.hidden, experts.width);
  std::vector<int32_t> numbers(static_cast<size_t>(rows));
  std::iota(numbers.begin(), numbers.end(), 0);
  const std::span<const int32_t> all(numbers);

  // One token: top_k experts with one row each, other experts in every call.
  std::vector<std::vector<ExpertWork>> token_calls;
  for (int64_t first = 0; first + top_k <= experts.count; first += top_k) {
    std::vector<ExpertWork>& works = token_calls.emplace_back();
    for (int64_t i = 0; i < top_k; ++i) {
      works.push_back(
          experts.work(first + i, all.first(1), all.subspan(static_cast<size_t>(i), 1)));
    }
  }
  // A prompt: the same number of rows through each expert.
  std::vector<std::vector<ExpertWork>> prompt_calls;
  const auto each = static_cast<size_t>(rows_each);
  for (int64_t first = 0; first + kPromptExperts <= experts.count; first += kPromptExperts) {
    std::vector<ExpertWork>& works = prompt_calls.emplace_back();
    for (int64_t i = 0; i < kPromptExperts; ++i) {
      works.push_back(experts.work(first + i, all.first(each),
                                   all.subspan(static_cast<size_t>(i) * each, each)));
    }
  }
  KernelPoint point;
  point.dtype = name_of(how.dtype);
  const double token_calls_per_s =
      calls_per_second(*backend, token_calls, activations, how.seconds, stop);
  point.token_gbps =
      token_calls_per_s * static_cast<double>(top_k) * static_cast<double>(experts.bytes) / 1e9;
  const double paused_us = us_after_pause(*backend, token_calls, activations, how.seconds, stop);
  point.pause_us = std::max(0.0, paused_us - 1e6 / token_calls_per_s);
  const double flops_per_row = 2.0 * 3.0 * static_cast<double>(experts.hidden * experts.width);
  point.prompt_gflops = calls_per_second(*backend, prompt_calls, activations, how.seconds, stop) *
                        static_cast<double>(rows_each * kPromptExperts) * flops_per_row / 1e9;
  if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "measuring was stopped"};
  return point;
}

}  // namespace penstock
