// How near are the kernels to what a GPU can do, and does it compute the bits of the CPU?
//
// Compares every primitive and every product with the CPU on 2^20 inputs first; then reads, copies,
// round trips; then one token's experts, at the shapes of two models, in every type, for one row and
// for several, as time of a layer and as share of the bandwidth that a kernel which only reads has
// on the same device; then what a prompt asks for: matrices that every token needs with 32, 128 and
// 512 rows, and all experts of a layer, as products a second. Every number is a median of many lists of
// commands.
//
//   gpu_bench                          # the GPU that `auto` would take
//   gpu_bench --gpu 0 --json gpu.json
//
// bench/carry takes it to a machine that has nothing but a driver.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <vector>

#include "base/byte_text.h"
#include "base/json.h"
#include "gpu/bit_probe.h"
#include "gpu/gpu_rates.h"
#include "gpu/gpu_system.h"

namespace penstock {
namespace {

struct Options {
  std::string gpu, json;
  double seconds = 0.15;
  uint64_t buffer_mib = 1024;
  int64_t inputs = kProbeInputsMax;
};

struct Shape {
  const char* name;
  int64_t hidden_size, expert_width;
  int experts;
};
constexpr Shape kShapes[] = {{"397b", 4096, 1024, 10}, {"35b", 2048, 512, 8}};

// Of the 35B shape's matrices that every token needs.
struct MatrixShape {
  int64_t rows, columns;
};
constexpr MatrixShape kMatrices[] = {{12288, 2048}, {2048, 4096}};

std::string describe(const GpuFacts& gpu) {
  return fmt::format("{} {} ({}), {}, {}, Vulkan {}{}{}", gpu.index, gpu.name, name_of(gpu.kind),
                     format_bytes(gpu.memory_bytes), gpu.driver, gpu.api,
                     gpu.is_usable() ? "" : "; not to be used: ", gpu.refusal);
}

Result<bool> compare_bits(GpuDevice& device, int64_t inputs, Json& json) {
  const BitProbe probe = PENSTOCK_TRY(probe_bits(device, inputs));
  Json rows = Json::array();
  for (const BitProbeRow& row : probe.rows) {
    fmt::print("  {:<22} {:>9} inputs {:>9} wrong  {}\n", row.name, row.inputs, row.wrong,
               row.example);
    Json line = {{"name", row.name}, {"inputs", row.inputs}, {"wrong", row.wrong}};
    rows.push_back(std::move(line));
  }
  json["bits"] = std::move(rows);
  return probe.is_right();
}

Result<void> measure_device(GpuDevice& device, const GpuRatesOptions& options, Json& json) {
  const GpuRates rates = PENSTOCK_TRY(measure_gpu(device, options, {}));
  fmt::print(
      "read {:.0f} GB/s, to the device {:.1f}, back {:.1f}; round trip {:.1f} us (p99 {:.1f}), "
      "dispatch {:.2f} us\n",
      rates.read_gbps, rates.to_device_gbps, rates.from_device_gbps, rates.round_trip_us,
      rates.round_trip_p99_us, rates.dispatch_us);
  json.update(to_json(rates));
  return {};
}

Result<void> measure_experts(GpuDevice& device, const GpuRatesOptions& options, Json& json) {
  Json rows = Json::array();
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kQ4, DType::kQ8, DType::kQ3, DType::kQ2}) {
      for (const int row_count : {1, 2, 8, 32}) {
        const GpuExpertCase what = {.dtype = dtype,
                                    .hidden_size = shape.hidden_size,
                                    .expert_width = shape.expert_width,
                                    .experts = shape.experts,
                                    .rows = row_count};
        const GpuExpertRate rate = PENSTOCK_TRY(measure_gpu_experts(device, what, options, {}));
        fmt::print(
            "{:<5} {:<3} {:>2} rows: {:>8.1f} us a layer ({:.1f} gate and up, {:.1f} down), "
            "{:>6.0f} "
            "GB/s, {:>4.0f} % of reading\n",
            shape.name, name_of(dtype), row_count, rate.layer_us, rate.gate_up_us, rate.down_us,
            rate.gbps, 100 * rate.share_of_read);
        std::fflush(stdout);
        Json line = {{"shape", shape.name},
                     {"dtype", name_of(dtype)},
                     {"rows", row_count},
                     {"layer_us", rate.layer_us},
                     {"gate_up_us", rate.gate_up_us},
                     {"down_us", rate.down_us},
                     {"gbps", rate.gbps},
                     {"share_of_read", rate.share_of_read}};
        rows.push_back(std::move(line));
      }
    }
  }
  json["experts"] = std::move(rows);
  return {};
}

Result<void> measure_prompts(GpuDevice& device, const GpuRatesOptions& options, Json& json) {
  Json matrices = Json::array(), experts = Json::array();
  for (const DType dtype : {DType::kQ4, DType::kQ8}) {
    for (const MatrixShape& shape : kMatrices) {
      for (const int64_t tokens : {8, 32, 128, 512}) {
        const GpuMatmulCase what = {
            .dtype = dtype, .rows = shape.rows, .columns = shape.columns, .tokens = tokens};
        const GpuMatmulRate rate = PENSTOCK_TRY(measure_gpu_matmul(device, what, options, {}));
        fmt::print(
            "{:>5} x {:<5} {:<3} {:>3} rows: {:>8.1f} us, {:>7.1f} with rows over the link; "
            "{:>6.0f} "
            "10^9 products/s\n",
            shape.rows, shape.columns, name_of(dtype), tokens, rate.own_us, rate.linked_us,
            rate.gproducts);
        std::fflush(stdout);
        Json line = {{"rows", shape.rows},         {"columns", shape.columns},
                     {"dtype", name_of(dtype)},    {"tokens", tokens},
                     {"own_us", rate.own_us},      {"linked_us", rate.linked_us},
                     {"gproducts", rate.gproducts}};
        matrices.push_back(std::move(line));
      }
    }
    // Of the 35B shape's 256 experts each has 2, 16 or 32 of the rows of 64, 512 and 1,024 tokens.
    for (const int rows : {2, 16, 32}) {
      const GpuExpertCase what = {
          .dtype = dtype, .hidden_size = 2048, .expert_width = 512, .experts = 256, .rows = rows};
      const GpuExpertRate rate = PENSTOCK_TRY(measure_gpu_experts(device, what, options, {}));
      fmt::print(
          "35b {:<3} 256 experts of {:>2} rows: {:>8.1f} us a layer ({:.1f} gate and up, {:.1f} "
          "down), "
          "{:>6.0f} 10^9 products/s\n",
          name_of(dtype), rows, rate.layer_us, rate.gate_up_us, rate.down_us, rate.gproducts);
      std::fflush(stdout);
      Json line = {{"dtype", name_of(dtype)},   {"rows", rows},
                   {"layer_us", rate.layer_us}, {"gate_up_us", rate.gate_up_us},
                   {"down_us", rate.down_us},   {"gproducts", rate.gproducts}};
      experts.push_back(std::move(line));
    }
  }
  json["matrices"] = std::move(matrices);
  json["prompt_experts"] = std::move(experts);
  return {};
}

Result<bool> run(const Options& options) {
  const std::unique_ptr<GpuSystem> system = PENSTOCK_TRY(GpuSystem::open());
  for (const GpuFacts& gpu : system->devices()) fmt::print("{}\n", describe(gpu));
  const int index =
      PENSTOCK_TRY(options.gpu.empty() ? system->choose() : system->find(options.gpu));
  const std::unique_ptr<GpuDevice> device = PENSTOCK_TRY(GpuDevice::create(*system, index));
  fmt::print("measuring {}\n", device->facts().name);
  Json json = {{"gpu", device->facts().name}, {"driver", device->facts().driver}};
  const bool is_right = PENSTOCK_TRY(compare_bits(*device, options.inputs, json));
  const GpuRatesOptions rates = {.buffer_bytes = options.buffer_mib << 20,
                                 .seconds = options.seconds};
  PENSTOCK_TRY(measure_device(*device, rates, json));
  PENSTOCK_TRY(measure_experts(*device, rates, json));
  PENSTOCK_TRY(measure_prompts(*device, rates, json));
  if (!options.json.empty()) std::ofstream(options.json) << json.dump(2) << "\n";
  return is_right;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app(
      "How near are the kernels to what a GPU can do, and does it compute the CPU's bits?");
  app.add_option("--gpu", options.gpu, "a part of its name, or its number");
  app.add_option("--seconds", options.seconds, "time for each measurement");
  app.add_option("--buffer", options.buffer_mib, "MiB of weights to go through")
      ->check(CLI::Range(1, 1024));
  int64_t thousands = penstock::kProbeInputsMax >> 10;
  app.add_option("--inputs", thousands, "thousands (1024) of inputs for each primitive")
      ->check(CLI::Range(int64_t{1}, penstock::kProbeInputsMax >> 10));
  app.add_option("--json", options.json, "file to write the numbers to");
  CLI11_PARSE(app, argc, argv);
  options.inputs = thousands << 10;
  const penstock::Result<bool> done = penstock::run(options);
  if (!done) std::fprintf(stderr, "error: %s\n", done.error().message.c_str());
  if (done && !*done) std::fprintf(stderr, "error: the bits differ from the CPU's\n");
  return done && *done ? 0 : 1;
}
