// How near are the kernels to what this machine can do?
//
// Ops that stream weights or state are judged by the memory's read bandwidth, products of many rows
// by the fused multiply-adds that one thread can start, those of whole numbers also by the unit that
// they run on (a 16-bit input counts as two bytes). The limits are measured beside every row,
// with the same threads, so that a busy machine blurs the times but not the percentages. Weights
// rotate through more memory than the caches hold. Every row is a median of many short runs.
//
//   kernel_bench --threads 1,2 --json kernels.json
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "base/json.h"
#include "base/memory.h"
#include "compute/cpu/cpu_backend.h"
#include "peaks.h"

namespace penstock {
namespace {

constexpr int64_t kStreamBytes = 512 << 20;  // more than any last-level cache we know
constexpr int64_t kReadSample = 64 << 20;
constexpr int64_t kFloatRounds = 200'000, kIntegerRounds = 100'000;

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

// Half the distance between the quartiles, as a part of the median.
double spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[n * 3 / 4] - values[n / 4]) / (2 * values[n / 2]);
}

struct Options {
  std::vector<int> threads = {1, static_cast<int>(std::thread::hardware_concurrency())};
  std::string filter, target, json;
  double seconds = 0.4;
  Arithmetic arithmetic = Arithmetic::kFixed16;
};

struct Row {
  std::string name;
  int threads;
  double seconds, best_seconds, spread;
  double gbytes_per_s, percent_of_read, gflops, percent_of_peak;
  double percent_of_integer_peak;  // 0: no product of whole numbers
};

// What an op has to move and to calculate, to judge its time by.
struct Work {
  double bytes = 0, flops = 0;
  bool is_integer = false;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        target_(find_target(options.target).value()),
        stream_(AlignedMemory::create(kStreamBytes, "the stream", Prefault::kYes).value()) {
    std::fill(stream_.bytes().begin(), stream_.bytes().end(), std::byte{1});
  }

  // Weights of any type: some values that are no special numbers.
  AlignedMemory weights(int64_t bytes) {
    AlignedMemory memory =
        AlignedMemory::create(static_cast<uint64_t>(bytes), "weights", Prefault::kYes).value();
    const std::span<std::byte> out = memory.bytes();
    for (size_t i = 0; i < out.size(); i += sizeof(uint32_t)) {
      // As bf16 from 2^-15 to 2^-7: numbers that no real scale has would end in subnormal sums.
      const uint32_t word = (static_cast<uint32_t>(i) * 2654435761u & 0x07ff07ffu) | 0x38003800u;
      std::memcpy(out.data() + i, &word, sizeof(word));
    }
    return memory;
  }

  bool wants(const std::string& name) const {
    return options_.filter.empty() || name.find(options_.filter) != std::string::npos;
  }

  // Times op(run), run = 0, 1, ...; op must touch other memory each time if that matters.
  void measure(const std::string& name, int threads, const Work& work,
               const std::function<void(int64_t)>& op) {
    std::vector<double> times, reads, peaks, integer_peaks;
    op(0);
    const double start = now();
    for (int64_t run = 1; times.size() < 15 || now() - start < options_.seconds; ++run) {
      const double before = now();
      op(run);
      times.push_back(now() - before);
      if (run % 4 == 1) {
        reads.push_back(read_speed(threads));
        peaks.push_back(peak_speed(threads, float_operations, kFloatRounds));
        if (!work.is_integer) continue;
        integer_peaks.push_back(peak_speed(threads, integer_operations, kIntegerRounds));
      }
    }
    const double seconds = median(times);
    const double bytes_per_s = work.bytes / seconds, flops_per_s = work.flops / seconds;
    report({name, threads, seconds, *std::min_element(times.begin(), times.end()), spread(times),
            bytes_per_s / 1e9, 100 * bytes_per_s / median(reads), flops_per_s / 1e9,
            100 * flops_per_s / median(peaks),
            work.is_integer ? 100 * flops_per_s / median(integer_peaks) : 0});
  }

  std::unique_ptr<CpuBackend> backend(int threads, const BackendLimits& limits) const {
    return CpuBackend::create(threads, limits,
                              {.target = options_.target, .arithmetic = options_.arithmetic})
        .value();
  }

  const Options& options() const { return options_; }
  // Products of whole numbers for which the unit is there: of few rows another one may take them.
  bool is_integer(DType dtype, int64_t rows) const {
    constexpr int64_t kManyRows = 16;
    return options_.arithmetic == Arithmetic::kFixed16 && is_quantised(dtype) && rows >= kManyRows;
  }

  void write_json() const {
    if (options_.json.empty()) return;
    Json rows = Json::array();
    for (const Row& row : rows_) {
      rows.push_back({{"name", row.name},
                      {"threads", row.threads},
                      {"seconds", row.seconds},
                      {"best_seconds", row.best_seconds},
                      {"spread", row.spread},
                      {"gbytes_per_s", row.gbytes_per_s},
                      {"percent_of_read", row.percent_of_read},
                      {"gflops", row.gflops},
                      {"percent_of_peak", row.percent_of_peak},
                      {"percent_of_integer_peak", row.percent_of_integer_peak}});
    }
    std::ofstream(options_.json) << to_text({{"target", name_of(target_)}, {"rows", rows}}, 1)
                                 << '\n';
  }

 private:
  double read_speed(int threads) {
    const auto* values = reinterpret_cast<const float*>(stream_.bytes().data() + read_at_);
    read_at_ = (read_at_ + kReadSample) % kStreamBytes;
    const int64_t share = kReadSample / 4 / threads / 64 * 64;
    const double start = now();
    run_on(threads, [&](int i) { sink_ = read_all(target_, values + i * share, share); });
    return static_cast<double>(share * 4 * threads) / (now() - start);
  }

  // Operations a second of `operations`, which does so many rounds of them.
  double peak_speed(int threads, double (*operations)(const InstructionSet&, int64_t, float*),
                    int64_t rounds) {
    std::vector<double> done(static_cast<size_t>(threads));
    const double start = now();
    run_on(threads, [&](int i) {
      float sum = 0;
      done[static_cast<size_t>(i)] = operations(target_, rounds, &sum);
      sink_ = sum;
    });
    return std::accumulate(done.begin(), done.end(), 0.0) / (now() - start);
  }

  template <class Body>
  void run_on(int threads, const Body& body) {
    if (pool_ == nullptr || pool_->num_threads() != threads) {
      pool_ = std::make_unique<ThreadPool>(threads);
    }
    pool_->run(threads, [&](int64_t task, int) { body(static_cast<int>(task)); });
  }

  void report(const Row& row) {
    if (rows_.empty()) {
      std::printf(
          "%s; %% of read: of the memory's bandwidth, %% of peak: of float multiply-adds, %% of "
          "int: of the unit for whole numbers\n",
          name_of(target_).c_str());
      std::printf("%-44s %7s %10s %10s %7s %7s %7s %9s %7s %7s\n", "op", "threads", "median us",
                  "best us", "+-", "GB/s", "% read", "GFLOP/s", "% peak", "% int");
    }
    std::printf("%-44s %7d %10.1f %10.1f %6.1f%% %7.2f %6.1f%% %9.1f %6.1f%%", row.name.c_str(),
                row.threads, row.seconds * 1e6, row.best_seconds * 1e6, row.spread * 100,
                row.gbytes_per_s, row.percent_of_read, row.gflops, row.percent_of_peak);
    if (row.percent_of_integer_peak > 0) std::printf(" %6.1f%%", row.percent_of_integer_peak);
    std::printf("\n");
    std::fflush(stdout);
    rows_.push_back(row);
  }

  Options options_;
  InstructionSet target_;
  AlignedMemory stream_;
  int64_t read_at_ = 0;
  volatile float sink_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<Row> rows_;
};

struct OwnedRows {
  std::vector<float> values;
  Rows rows;

  OwnedRows(int64_t count, int64_t width)
      : values(static_cast<size_t>(count * width)), rows{values.data(), count, width, width} {
    std::mt19937 engine(1);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(engine);
  }
};

struct ModelShape {
  const char* name;
  int64_t hidden, expert_width, top_k;
  AttentionShape attention;
  DeltaNetShape delta_net;
};

const ModelShape kModels[] = {
    {"35B", 2048, 512, 8, {16, 2, 256, 64, 1e-6f}, {16, 32, 128, 128, 4, 1e-6f}},
    {"397B", 4096, 1024, 10, {32, 2, 256, 64, 1e-6f}, {16, 64, 128, 128, 4, 1e-6f}},
};

constexpr DType kTypes[] = {DType::kQ4, DType::kQ3,   DType::kQ2,
                            DType::kQ8, DType::kBF16, DType::kF32};

BackendLimits limits_of(const ModelShape& model, int64_t tokens, int64_t context) {
  return {.tokens = tokens,
          .hidden_size = model.hidden,
          .width = 12288,
          .top_k = model.top_k,
          .expert_width = model.expert_width,
          .context = context,
          .attention = model.attention,
          .delta_net = model.delta_net};
}

// One layer's routed experts: `per_expert` tokens through each of top_k experts.
void bench_experts(Bench& bench, const ModelShape& model, DType dtype, int64_t per_expert,
                   int threads) {
  const std::string name = std::string(model.name) + " experts " + std::string(name_of(dtype)) +
                           ", tokens each: " + std::to_string(per_expert);
  if (!bench.wants(name)) return;
  const int64_t hidden = model.hidden, width = model.expert_width;
  const int64_t gate_up_bytes = panel_bytes(dtype, 2 * width, hidden);
  const int64_t expert_bytes = gate_up_bytes + panel_bytes(dtype, hidden, width);
  const int64_t layers = std::max<int64_t>(2, kStreamBytes / (expert_bytes * model.top_k));
  const AlignedMemory memory = bench.weights(layers * model.top_k * expert_bytes);

  const auto ops = bench.backend(threads, limits_of(model, per_expert, 0));
  const OwnedRows x(per_expert, hidden), gated(per_expert * model.top_k, width),
      out(per_expert * model.top_k, hidden);
  std::vector<int32_t> tokens(static_cast<size_t>(per_expert));
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<std::vector<int32_t>> places(static_cast<size_t>(model.top_k), tokens);
  std::vector<ExpertWork> work(static_cast<size_t>(model.top_k));
  const auto run = [&](int64_t layer) {
    for (size_t e = 0; e < work.size(); ++e) {
      const std::byte* place =
          memory.bytes().data() +
          (layer % layers * model.top_k + static_cast<int64_t>(e)) * expert_bytes;
      for (size_t t = 0; t < tokens.size(); ++t) {
        places[e][t] = static_cast<int32_t>(t * work.size() + e);
      }
      work[e] = work_of_gate_up({dtype, 2 * width, hidden, place},
                                {dtype, hidden, width, place + gate_up_bytes}, tokens, places[e]);
    }
    ops->expert_gate_up(x.rows, work, gated.rows);
    ops->expert_down(gated.rows, work, out.rows);
  };
  const double weights = 3.0 * static_cast<double>(hidden * width * model.top_k);
  bench.measure(name, threads,
                {.bytes = static_cast<double>(expert_bytes * model.top_k),
                 .flops = 2 * weights * static_cast<double>(per_expert),
                 .is_integer = bench.is_integer(dtype, per_expert)},
                run);
}

// A square matrix of the hidden size times the rows of a chunk.
void bench_matmul(Bench& bench, const ModelShape& model, DType dtype, int64_t tokens, int threads) {
  const std::string name = std::string(model.name) + " matmul " + std::string(name_of(dtype)) +
                           ", tokens: " + std::to_string(tokens);
  if (!bench.wants(name)) return;
  const int64_t size = model.hidden;
  const int64_t bytes = panel_bytes(dtype, size, size);
  const AlignedMemory memory = bench.weights(bytes);
  const auto ops = bench.backend(threads, limits_of(model, tokens, 0));
  const OwnedRows x(tokens, size), out(tokens, size);
  const Projection projection[] = {{{dtype, size, size, memory.bytes().data()}, nullptr, out.rows}};
  bench.measure(name, threads,
                {.bytes = static_cast<double>(bytes),
                 .flops = 2.0 * static_cast<double>(size * size * tokens),
                 .is_integer = bench.is_integer(dtype, tokens)},
                [&](int64_t) { ops->matmul(x.rows, projection); });
}

void bench_attention(Bench& bench, const ModelShape& model, int64_t tokens, int64_t context,
                     int threads) {
  const std::string name = std::string(model.name) +
                           " attention, context: " + std::to_string(context) +
                           ", tokens: " + std::to_string(tokens);
  if (!bench.wants(name)) return;
  const AttentionShape& shape = model.attention;
  const int64_t dim = shape.head_dim;
  const int64_t pages_per_layer = (context + kKvPagePositions - 1) / kKvPagePositions;
  const int64_t part_floats = shape.kv_width() * kKvPagePositions;
  const int64_t layer_floats = pages_per_layer * part_floats;
  const int64_t layers = std::max<int64_t>(1, kStreamBytes / (8 * layer_floats));
  const OwnedRows cache(1, 2 * layers * layer_floats);
  std::vector<float*> pages;
  for (int64_t page = 0; page < layers * pages_per_layer; ++page) {
    pages.push_back(cache.rows.data + page * 2 * part_floats);
  }
  const OwnedRows q(tokens, shape.query_width()), k(tokens, shape.kv_heads * dim),
      v(tokens, shape.kv_heads * dim), out(tokens, shape.heads * dim), norm(1, dim),
      rope(context, shape.rotary_dim / 2);
  const auto ops = bench.backend(threads, limits_of(model, tokens, context));
  const double seen = static_cast<double>(tokens) *
                      (static_cast<double>(context) - 0.5 * static_cast<double>(tokens - 1));
  bench.measure(name, threads,
                {.bytes = 8.0 * static_cast<double>(shape.kv_width() * context),
                 .flops = 4.0 * static_cast<double>(shape.heads * dim) * seen},
                [&](int64_t run) {
                  const auto first = static_cast<size_t>(run % layers * pages_per_layer);
                  ops->attention({.shape = shape,
                                  .weights = {norm.rows.data, norm.rows.data},
                                  .rope = {rope.rows.data, rope.rows.data},
                                  .cache = {std::span(pages).subspan(
                                                first, static_cast<size_t>(pages_per_layer)),
                                            0, part_floats},
                                  .first_position = context - tokens,
                                  .q = q.rows,
                                  .k = k.rows,
                                  .v = v.rows,
                                  .out = out.rows});
                });
}

void bench_delta_net(Bench& bench, const ModelShape& model, int64_t tokens, int threads) {
  const std::string name =
      std::string(model.name) + " delta-net, tokens: " + std::to_string(tokens);
  if (!bench.wants(name)) return;
  const DeltaNetShape& shape = model.delta_net;
  const int64_t channels = shape.conv_channels();
  const int64_t memory_floats = int64_t{shape.value_heads} * shape.key_dim * shape.value_dim;
  // Read from one set, written to another, as a pass does it.
  const int64_t layers = std::max<int64_t>(2, kStreamBytes / (8 * memory_floats));
  const OwnedRows memory(2 * layers, memory_floats), history(3, channels), conv(4, channels),
      head(1, 256), norm(1, shape.value_dim);
  const std::vector<float> decay(static_cast<size_t>(shape.value_heads), -0.1f);
  const OwnedRows qkv(tokens, channels), z(tokens, shape.value_heads * shape.value_dim),
      b(tokens, shape.value_heads), a(tokens, shape.value_heads),
      out(tokens, shape.value_heads * shape.value_dim);
  const auto ops = bench.backend(threads, limits_of(model, tokens, 0));
  bench.measure(
      name, threads,
      {.bytes = 8.0 * static_cast<double>(memory_floats),
       .flops = 7.0 * static_cast<double>(memory_floats * tokens)},
      [&](int64_t run) {
        float* before = memory.rows.data + run % layers * 2 * memory_floats;
        ops->delta_net({.shape = shape,
                        .weights = {conv.rows.data, decay.data(), head.rows.data, norm.rows.data},
                        .before = {history.rows.data, before},
                        .after = {history.rows.data, before + memory_floats},
                        .ahead = {},
                        .qkv = qkv.rows,
                        .z = z.rows,
                        .b = b.rows,
                        .a = a.rows,
                        .out = out.rows});
      });
}

void bench_row_ops(Bench& bench, const ModelShape& model, int64_t tokens, int threads) {
  const std::string suffix = ", tokens: " + std::to_string(tokens);
  const auto ops = bench.backend(threads, limits_of(model, tokens, 0));
  const int64_t hidden = model.hidden, num_experts = 512;
  const OwnedRows x(tokens, hidden), y(tokens, hidden), rows(tokens * model.top_k, hidden),
      gate(tokens, 1), logits(tokens, num_experts);
  const auto floats = static_cast<double>(tokens * hidden);
  const auto run = [&](const std::string& op, double bytes,
                       const std::function<void(int64_t)>& body) {
    const std::string name = std::string(model.name) + " " + op + suffix;
    if (bench.wants(name)) bench.measure(name, threads, {.bytes = bytes}, body);
  };
  run("rms_norm", 8 * floats, [&](int64_t) {
    ops->rms_norm(x.rows, {x.values.data(), static_cast<size_t>(hidden)}, 1e-6f, y.rows);
  });
  Routing routing;
  routing.experts.resize(static_cast<size_t>(tokens * model.top_k));
  routing.weights.resize(routing.experts.size());
  run("route_top_k", 4.0 * static_cast<double>(tokens * num_experts), [&](int64_t) {
    PENSTOCK_CHECK(ops->route_top_k(logits.rows, static_cast<int>(model.top_k), routing));
  });
  PENSTOCK_CHECK(ops->route_top_k(logits.rows, static_cast<int>(model.top_k), routing));
  run("combine", 4 * floats * static_cast<double>(model.top_k + 2),
      [&](int64_t) { ops->combine(rows.rows, routing, x.rows, gate.rows, y.rows); });
  const AlignedMemory table = bench.weights(panel_bytes(DType::kQ8, 4096, hidden));
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<int32_t>(t * 1031 % 4096);
  run("embed q8", 5 * floats, [&](int64_t) {
    ops->embed({DType::kQ8, 4096, hidden, table.bytes().data()}, ids, x.rows);
  });
}

void run_all(Bench& bench) {
  for (const ModelShape& model : kModels) {
    for (const int threads : bench.options().threads) {
      for (const DType dtype : kTypes) {
        for (const int64_t per_expert : {1, 2, 16}) {
          bench_experts(bench, model, dtype, per_expert, threads);
        }
      }
      for (const DType dtype : kTypes) {
        for (const int64_t tokens : {1, 512}) bench_matmul(bench, model, dtype, tokens, threads);
      }
      for (const int64_t context : {4096, 32768, 131072}) {
        bench_attention(bench, model, 1, context, threads);
        bench_attention(bench, model, 256, context, threads);
      }
      for (const int64_t tokens : {1, 256}) {
        bench_delta_net(bench, model, tokens, threads);
        bench_row_ops(bench, model, tokens, threads);
      }
    }
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app("How near are the kernels to what this machine can do?");
  app.add_option("--threads", options.threads, "numbers of threads to try")->delimiter(',');
  app.add_option("--filter", options.filter, "only rows whose name contains this");
  app.add_option("--target", options.target, "instruction set (default: the best)");
  bool is_float32 = false;
  app.add_flag("--float32", is_float32, "products of quantised matrices in float32");
  app.add_option("--seconds", options.seconds, "time for each row");
  app.add_option("--json", options.json, "file to write the rows to");
  CLI11_PARSE(app, argc, argv);
  if (is_float32) options.arithmetic = penstock::Arithmetic::kFloat32;
  penstock::Bench bench(options);
  penstock::run_all(bench);
  bench.write_json();
  return 0;
}
