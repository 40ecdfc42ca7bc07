// How fast matrices in a file's own coding are laid out and multiplied, coding by coding: what running
// a checkpoint in place costs beside a packed model (docs/formats.md, "Run in place").
//
//   coded_bench [--threads N] [--filter Q4_K] [--seconds 0.4]
//
// lay out: one thread, what happens to a matrix when it has come from disk. experts: one layer of the
// 35B shape, 8 experts, with 1 and 16 tokens each, in fixed16; "decoded" the same from rows, by way of
// f32. q8 and q4 in panels of ours are there to compare with, by bytes and by weights.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/memory.h"
#include "compute/coded_panels.h"
#include "compute/cpu/cpu_backend.h"
#include "source/row_panel_form.h"

namespace penstock {
namespace {

constexpr int64_t kHidden = 2048, kWidth = 512, kTopK = 8;
constexpr int64_t kLayers = 12;  // of different bytes, more than any cache holds

struct Options {
  int threads = 1;
  std::string filter, target;
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
  bool in_panels = false;  // of a coded one
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
  if (!kind.is_coded) return static_cast<uint64_t>(panel_bytes(kind.dtype, rows, columns));
  if (!kind.in_panels) return stored_bytes(kind.coding, rows, columns);
  const RowBytes panel = row_panel_bytes(kind.coding, columns);
  return static_cast<uint64_t>(rows / kPanelRows) * (panel.codes + panel.scales + panel.biases);
}

Matrix matrix_at(const Kind& kind, int64_t rows, int64_t columns, const std::byte* place) {
  if (!kind.is_coded) return {kind.dtype, rows, columns, place};
  RowBytes planes = plane_bytes(kind.coding, rows, columns);
  if (kind.in_panels) {
    const auto panels = static_cast<uint64_t>(rows / kPanelRows);
    planes = row_panel_bytes(kind.coding, columns);
    planes = {panels * planes.codes, panels * planes.scales, panels * planes.biases};
  }
  return {.rows = rows,
          .columns = columns,
          .coded = {.coding = kind.coding,
                    .codes = place,
                    .scales = place + planes.codes,
                    .biases = place + planes.codes + planes.scales,
                    .scale_rows = kind.in_panels ? 0 : rows_of_scales(kind.coding)}};
}

// Bytes a nanosecond, of the codes.
double lay_out_speed(const Options& options, const Kind& kind) {
  const RowPanelForm form(kind.coding, CodedPlane::kCodes, kWidth, kHidden);
  AlignedMemory memory = weights(form.bytes() + 4096);
  const double seconds = measure(options.seconds, [&](int64_t) {
    form.lay_out(memory.bytes().subspan(1000, form.bytes()), memory.bytes().first(form.bytes()));
  });
  return static_cast<double>(form.bytes()) / seconds * 1e-9;
}

double experts_us(const Options& options, const Kind& kind, int64_t per_expert) {
  const BackendLimits limits{.tokens = per_expert,
                             .hidden_size = kHidden,
                             .width = kHidden,
                             .top_k = kTopK,
                             .expert_width = kWidth,
                             .context = 16,
                             .coded_columns = kHidden};
  const auto ops = CpuBackend::create(options.threads, limits, {.target = options.target}).value();
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
  std::vector<Kind> kinds = {{.name = "q8 in panels", .is_coded = false, .dtype = DType::kQ8},
                             {.name = "q4 in panels", .is_coded = false, .dtype = DType::kQ4},
                             {.name = "bf16 in panels", .is_coded = false, .dtype = DType::kBF16}};
  const auto add = [&](const Coding& coding) {
    kinds.push_back(
        {.name = name_of(coding), .coding = coding, .in_panels = has_row_panels(coding, kHidden)});
  };
  using enum BlockType;
  for (const BlockType block :
       {kQ8_0,  kQ4_0,  kQ4_1,  kQ5_0,  kQ5_1,   kQ2K,   kQ3K,  kQ4K,    kQ5K,  kQ6K,
        kIq4Nl, kIq4Xs, kMxfp4, kTq2_0, kIq2Xxs, kIq2Xs, kIq2S, kIq3Xxs, kIq3S, kIq1S}) {
    add({.block = block});
  }
  for (const int bits : {8, 6, 5, 4, 3, 2}) {
    add({.kind = Coding::Kind::kAffine, .affine = {.bits = bits}});
  }
  add({.kind = Coding::Kind::kMlxMxfp4});
  add({.kind = Coding::Kind::kFp8});
  return kinds;
}

void run(const Options& options) {
  std::printf("%-24s %10s %12s %16s %16s %16s\n", "coding", "bits", "lay out GB/s", "1 token, us",
              "16 tokens, us", "decoded, 1, us");
  for (const Kind& kind : all_kinds()) {
    if (kind.name.find(options.filter) == std::string::npos) continue;
    Kind rows = kind;
    rows.in_panels = false;
    std::printf("%-24s %10.2f %12.2f %16.0f %16.0f %16.0f\n", kind.name.c_str(),
                8.0 * static_cast<double>(bytes_of(kind, kWidth, kHidden)) / (kWidth * kHidden),
                kind.in_panels ? lay_out_speed(options, kind) : 0.0, experts_us(options, kind, 1),
                experts_us(options, kind, 16), kind.is_coded ? experts_us(options, rows, 1) : 0.0);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app("What does it cost to run weights in a file's own coding?");
  app.add_option("--threads", options.threads, "of the experts' products");
  app.add_option("--filter", options.filter, "only codings whose name contains this");
  app.add_option("--target", options.target, "instruction set (default: the best)");
  app.add_option("--seconds", options.seconds, "time for each figure");
  CLI11_PARSE(app, argc, argv);
  penstock::run(options);
  return 0;
}
