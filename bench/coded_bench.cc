// How fast matrices in coded rows are decoded and multiplied, coding by coding: what running a
// checkpoint in place costs beside a packed model (docs/formats.md, "Run in place").
//
//   coded_bench [--threads N] [--filter Q4_K] [--seconds 0.4]
//
// decode: one thread, rows to panels of f32. experts: one layer of the 35B shape, 8 experts, with 1 and
// 16 tokens each; q4 panels are there to compare with.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/memory.h"
#include "compute/cpu/cpu_backend.h"

namespace penstock {
namespace {

constexpr int64_t kHidden = 2048, kWidth = 512, kTopK = 8;
constexpr int64_t kLayers = 12;  // of different bytes, more than any cache holds

struct Options {
  int threads = 1;
  std::string filter;
  double seconds = 0.4;
};

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Median seconds of a call.
template <class Body>
double measure(double seconds, const Body& body) {
  std::vector<double> times;
  int64_t round = 0;
  body(round++);
  for (const double end = now() + seconds; now() < end || times.size() < 5;) {
    const double start = now();
    body(round++);
    times.push_back(now() - start);
  }
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

struct Kind {
  std::string name;
  bool is_coded = true;
  Coding coding = {};
  DType dtype = DType::kF32;
};

// Bytes of any coding, with scales that are no special numbers.
AlignedMemory weights(uint64_t bytes) {
  AlignedMemory memory = AlignedMemory::create(bytes, "weights", Prefault::kYes).value();
  const std::span<std::byte> out = memory.bytes();
  for (size_t i = 0; i + 4 <= out.size(); i += 4) {
    const uint32_t word = static_cast<uint32_t>(i) * 2654435761u & 0x3fff3fffu;
    std::memcpy(out.data() + i, &word, sizeof(word));
  }
  return memory;
}

uint64_t bytes_of(const Kind& kind, int64_t rows, int64_t columns) {
  return kind.is_coded ? stored_bytes(kind.coding, rows, columns)
                       : static_cast<uint64_t>(panel_bytes(kind.dtype, rows, columns));
}

Matrix matrix_at(const Kind& kind, int64_t rows, int64_t columns, const std::byte* place) {
  if (!kind.is_coded) return {kind.dtype, rows, columns, place};
  const RowBytes planes = plane_bytes(kind.coding, rows, columns);
  return {.rows = rows,
          .columns = columns,
          .coded = {.coding = kind.coding,
                    .codes = place,
                    .scales = place + planes.codes,
                    .biases = place + planes.codes + planes.scales,
                    .scale_rows = rows_of_scales(kind.coding)}};
}

double decode_ns_per_weight(const Options& options, const Kind& kind) {
  const AlignedMemory memory = weights(bytes_of(kind, kWidth, kHidden));
  const Matrix matrix = matrix_at(kind, kWidth, kHidden, memory.bytes().data());
  constexpr int64_t kAtOnce = 4;
  std::vector<float> scratch(static_cast<size_t>(decode_scratch(kHidden)));
  std::vector<std::byte> panels(
      static_cast<size_t>(panel_bytes(DType::kF32, kAtOnce * kPanelRows, kHidden)));
  const double seconds = measure(options.seconds, [&](int64_t) {
    for (int64_t panel = 0; panel < matrix.num_panels(); panel += kAtOnce) {
      decode_panels(matrix, panel, kAtOnce, panels, scratch);
    }
  });
  return seconds * 1e9 / static_cast<double>(kWidth * kHidden);
}

double experts_us(const Options& options, const Kind& kind, int64_t per_expert) {
  const BackendLimits limits{.tokens = per_expert,
                             .hidden_size = kHidden,
                             .width = kHidden,
                             .top_k = kTopK,
                             .expert_width = kWidth,
                             .context = 16,
                             .coded_columns = kHidden};
  const auto ops = CpuBackend::create(options.threads, limits).value();
  const uint64_t part = bytes_of(kind, kWidth, kHidden), down = bytes_of(kind, kHidden, kWidth);
  const uint64_t expert = 2 * part + down;
  const AlignedMemory memory = weights(kLayers * kTopK * expert);
  std::vector<float> x(static_cast<size_t>(per_expert * kHidden), 0.25f);
  std::vector<float> hidden(static_cast<size_t>(per_expert * kTopK * kWidth));
  std::vector<float> out(static_cast<size_t>(per_expert * kTopK * kHidden));
  std::vector<int32_t> tokens(static_cast<size_t>(per_expert));
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<std::vector<int32_t>> places(kTopK, tokens);
  const Rows x_rows = {x.data(), per_expert, kHidden, kHidden};
  const Rows hidden_rows = {hidden.data(), per_expert * kTopK, kWidth, kWidth};
  const Rows out_rows = {out.data(), per_expert * kTopK, kHidden, kHidden};
  return 1e6 * measure(options.seconds, [&](int64_t round) {
           std::vector<ExpertWork> work(kTopK);
           for (size_t e = 0; e < work.size(); ++e) {
             const auto index = static_cast<uint64_t>(round % kLayers * kTopK) + e;
             const std::byte* place = memory.bytes().data() + index * expert;
             for (size_t t = 0; t < tokens.size(); ++t) {
               places[e][t] = static_cast<int32_t>(t * work.size() + e);
             }
             work[e] = {.gate = matrix_at(kind, kWidth, kHidden, place),
                        .up = matrix_at(kind, kWidth, kHidden, place + part),
                        .down = matrix_at(kind, kHidden, kWidth, place + 2 * part),
                        .tokens = tokens,
                        .places = places[e]};
           }
           ops->expert_gate_up(x_rows, work, hidden_rows);
           ops->expert_down(hidden_rows, work, out_rows);
         });
}

std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds = {{.name = "q4 in panels", .is_coded = false, .dtype = DType::kQ4}};
  const auto add = [&](const Coding& coding) {
    kinds.push_back({.name = name_of(coding), .coding = coding});
  };
  using enum BlockType;
  for (const BlockType block :
       {kBF16, kQ8_0, kQ4_0, kQ5_0, kQ4K, kQ5K, kQ6K, kIq4Xs, kIq3Xxs, kMxfp4}) {
    add({.block = block});
  }
  for (const int bits : {4, 8, 6}) {
    add({.kind = Coding::Kind::kAffine, .affine = {.bits = bits}});
  }
  add({.kind = Coding::Kind::kFp8});
  return kinds;
}

void run(const Options& options) {
  std::printf("%-24s %16s %18s %18s\n", "coding", "decode ns/weight", "experts, 1 tok, us",
              "experts, 16 tok, us");
  for (const Kind& kind : all_kinds()) {
    if (kind.name.find(options.filter) == std::string::npos) continue;
    std::printf("%-24s %16.3f %18.0f %18.0f\n", kind.name.c_str(),
                kind.is_coded ? decode_ns_per_weight(options, kind) : 0.0,
                experts_us(options, kind, 1), experts_us(options, kind, 16));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app("What does it cost to decode weights as they are multiplied?");
  app.add_option("--threads", options.threads, "of the experts' products");
  app.add_option("--filter", options.filter, "only codings whose name contains this");
  app.add_option("--seconds", options.seconds, "time for each figure");
  CLI11_PARSE(app, argc, argv);
  penstock::run(options);
  return 0;
}
