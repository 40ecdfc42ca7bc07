#include "gpu/gpu_rates.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/check.h"
#include "compute/panel.h"
#include "gpu/gpu_clock.h"
#include "gpu/gpu_products.h"

namespace penstock {
namespace {

constexpr uint64_t kCopyBytes = uint64_t{8} << 20;
constexpr uint64_t kCopyBuffer = uint64_t{64} << 20;
constexpr uint32_t kReadGroups = 4096, kReadThreads = 256;

// As shaders/read.comp has them.
struct ReadArguments {
  uint64_t from, result;
  uint32_t vectors, unused;
};

double quantile(std::vector<double> values, double part) {
  const auto at = static_cast<size_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

Result<void> check_stop(const std::stop_token& stop) {
  if (!stop.stop_requested()) return {};
  return Error{ErrorCode::kCancelled, "stopped while a GPU was measured"};
}

// The median time of `work` in a list of its own, which is begun, recorded by `record`, and waited for.
class Stopwatch {
 public:
  Stopwatch(GpuQueue& queue, double seconds, const std::stop_token& stop)
      : queue_(queue), seconds_(seconds), stop_(stop) {}

  Result<double> median(const std::function<void(GpuCommands&)>& record) {
    times_.clear();
    PENSTOCK_TRY(once(record));  // what is made at the first use
    times_.clear();
    const double start = now_in_seconds();
    while (times_.size() < 5 || now_in_seconds() - start < seconds_) {
      PENSTOCK_TRY(check_stop(stop_));
      PENSTOCK_TRY(once(record));
    }
    return quantile(times_, 0.5);
  }
  double p99() const { return quantile(times_, 0.99); }

 private:
  Result<void> once(const std::function<void(GpuCommands&)>& record) {
    GpuCommands commands = PENSTOCK_TRY(queue_.begin());
    record(commands);
    const double start = now_in_seconds();
    PENSTOCK_TRY(queue_.finish(commands));
    times_.push_back(now_in_seconds() - start);
    return {};
  }

  GpuQueue& queue_;
  const double seconds_;
  const std::stop_token& stop_;
  std::vector<double> times_;
};

Result<GpuBuffer> own_buffer(GpuDevice& device, uint64_t bytes) {
  return device.allocate(bytes, GpuMemoryKind::kDevice, "measuring a GPU");
}

// Of all of `from`, in GB/s.
Result<double> read_rate(GpuDevice& device, const GpuBuffer& from, Stopwatch& watch) {
  const GpuKernel kernel = PENSTOCK_TRY(device.kernel(Shader::kRead, {}));
  const GpuBuffer result =
      PENSTOCK_TRY(own_buffer(device, uint64_t{4} * kReadGroups * kReadThreads));
  const uint64_t vectors = from.size() / 16;
  const ReadArguments arguments = {from.address(), result.address(), static_cast<uint32_t>(vectors),
                                   0};
  constexpr int kTimes = 4;
  const double seconds = PENSTOCK_TRY(watch.median([&](GpuCommands& commands) {
    for (int i = 0; i < kTimes; ++i) {
      commands.dispatch(kernel, arguments, {kReadGroups, 1});
      commands.barrier();
    }
  }));
  return static_cast<double>(kTimes * 16 * vectors) / seconds / 1e9;
}

}  // namespace

Json to_json(const GpuRates& rates) {
  return Json{{"read_gbps", rates.read_gbps},
              {"to_device_gbps", rates.to_device_gbps},
              {"from_device_gbps", rates.from_device_gbps},
              {"round_trip_us", rates.round_trip_us},
              {"round_trip_p99_us", rates.round_trip_p99_us},
              {"dispatch_us", rates.dispatch_us}};
}

Result<GpuRates> measure_gpu(GpuDevice& device, const GpuRatesOptions& options,
                             const std::stop_token& stop) {
  GpuRates rates;
  Stopwatch work(device.compute(), options.seconds, stop);
  Stopwatch copies(device.transfer(), options.seconds, stop);
  const GpuBuffer buffer = PENSTOCK_TRY(own_buffer(device, options.buffer_bytes));
  {
    GpuCommands commands = PENSTOCK_TRY(device.compute().begin());
    commands.clear(buffer);
    PENSTOCK_TRY(device.compute().finish(commands));
  }
  rates.read_gbps = PENSTOCK_TRY(read_rate(device, buffer, work));

  const uint64_t bytes = std::min(kCopyBuffer, options.buffer_bytes);
  const GpuBuffer host =
      PENSTOCK_TRY(device.allocate(bytes, GpuMemoryKind::kShared, "measuring copies"));
  std::fill(host.host_bytes().begin(), host.host_bytes().end(), std::byte{1});
  const auto copy_rate = [&](const GpuBuffer& from, const GpuBuffer& to) -> Result<double> {
    const double seconds = PENSTOCK_TRY(copies.median([&](GpuCommands& commands) {
      for (uint64_t at = 0; at < bytes; at += kCopyBytes) {
        commands.copy(from, at, to, at, std::min(kCopyBytes, bytes - at));
      }
    }));
    return static_cast<double>(bytes) / seconds / 1e9;
  };
  rates.to_device_gbps = PENSTOCK_TRY(copy_rate(host, buffer));
  rates.from_device_gbps = PENSTOCK_TRY(copy_rate(buffer, host));

  const GpuKernel kernel = PENSTOCK_TRY(device.kernel(Shader::kRead, {}));
  const ReadArguments least = {buffer.address(), host.address(), 1, 0};
  const auto dispatches = [&](int count) {
    return [&, count](GpuCommands& commands) {
      for (int i = 0; i < count; ++i) {
        if (i > 0) commands.barrier();
        commands.dispatch(kernel, least, {1, 1});
      }
    };
  };
  const double one = PENSTOCK_TRY(work.median(dispatches(1)));
  rates.round_trip_us = 1e6 * one;
  rates.round_trip_p99_us = 1e6 * work.p99();
  constexpr int kMany = 1000;
  const double many = PENSTOCK_TRY(work.median(dispatches(kMany)));
  rates.dispatch_us = 1e6 * (many - one) / (kMany - 1);
  return rates;
}

namespace {

// The buffers of a case and what its lists say.
class ExpertBench {
 public:
  ExpertBench(GpuDevice& device, const GpuExpertCase& what) : device_(device), what_(what) {}

  uint64_t gate_up_bytes() const {
    return static_cast<uint64_t>(
        panel_bytes(what_.dtype, 2 * what_.expert_width, what_.hidden_size));
  }
  uint64_t down_bytes() const {
    return static_cast<uint64_t>(panel_bytes(what_.dtype, what_.hidden_size, what_.expert_width));
  }
  double layer_bytes() const {
    return static_cast<double>(what_.experts) * static_cast<double>(gate_up_bytes() + down_bytes());
  }
  int64_t layers() const { return layers_; }

  Result<void> prepare(uint64_t buffer_bytes);
  void layer(GpuCommands& commands, int64_t index, bool packs, bool gate_up, bool down) const;
  const GpuBuffer& weights() const { return weights_; }

 private:
  Result<void> write_tables();
  int64_t tiles_of_layer() const {
    const auto each = static_cast<int>(tile_tokens_for(static_cast<uint32_t>(what_.rows)));
    return what_.experts * ((what_.rows + each - 1) / each);
  }

  GpuDevice& device_;
  const GpuExpertCase what_;
  int64_t layers_ = 0;
  std::optional<GpuProducts> products_;
  GpuBuffer weights_, x_, packed_x_, hidden_, packed_hidden_, results_;
  GpuBuffer gate_up_tiles_, down_tiles_, gate_up_list_, down_list_;
};

Result<void> ExpertBench::prepare(uint64_t buffer_bytes) {
  const GpuProductUse uses[] = {{.coding = what_.dtype, .is_gated = true}, {.coding = what_.dtype}};
  products_ = PENSTOCK_TRY(GpuProducts::create(device_, uses));
  layers_ = static_cast<int64_t>(static_cast<double>(buffer_bytes) / layer_bytes());
  if (layers_ < 1) {
    return Error{ErrorCode::kOutOfMemory, "no room for the experts of one token"};
  }
  const int64_t rows = what_.experts * what_.rows;
  const auto floats = [](int64_t count, int64_t width) {
    return static_cast<uint64_t>(count * width) * sizeof(float);
  };
  const auto packed = [](int64_t count, int64_t width) {
    return static_cast<uint64_t>(count * gpu_fixed_row_bytes(width));
  };
  weights_ = PENSTOCK_TRY(own_buffer(device_, buffer_bytes));
  x_ = PENSTOCK_TRY(own_buffer(device_, floats(what_.rows, what_.hidden_size)));
  packed_x_ = PENSTOCK_TRY(own_buffer(device_, packed(what_.rows, what_.hidden_size)));
  hidden_ = PENSTOCK_TRY(own_buffer(device_, floats(rows, what_.expert_width)));
  packed_hidden_ = PENSTOCK_TRY(own_buffer(device_, packed(rows, what_.expert_width)));
  results_ = PENSTOCK_TRY(own_buffer(device_, floats(rows, what_.hidden_size)));
  // Codes of any kind, with scales and biases that are small numbers; rows of x of many sizes.
  std::vector<uint32_t> pattern(1 << 18);
  uint32_t word = 1;
  for (uint32_t& each : pattern) {
    word = word * 1664525u + 1013904223u;
    each = word & 0xbfffbfffu;
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(pattern));
  for (uint64_t at = 0; at < buffer_bytes; at += bytes.size()) {
    const auto part = static_cast<size_t>(std::min<uint64_t>(bytes.size(), buffer_bytes - at));
    PENSTOCK_TRY(device_.write(weights_, at, bytes.first(part)));
  }
  std::vector<float> x(static_cast<size_t>(what_.rows * what_.hidden_size));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(pattern[i] % 2001) / 1000 - 1;
  PENSTOCK_TRY(device_.write(x_, 0, std::as_bytes(std::span(x))));
  return write_tables();
}

Result<void> ExpertBench::write_tables() {
  std::vector<GpuTile> gate_up, down;
  std::vector<GpuRowPair> gate_up_list, down_list;
  const auto rows = static_cast<uint32_t>(what_.rows);
  const uint32_t each = tile_tokens_for(rows);
  for (int e = 0; e < what_.experts; ++e) {
    for (uint32_t row = 0; row < rows; ++row) {
      const auto at = static_cast<uint32_t>(gate_up_list.size());
      gate_up_list.push_back({row, at});
      down_list.push_back({at, at});
    }
  }
  uint64_t at = weights_.address();
  for (int64_t index = 0; index < layers_; ++index) {
    for (uint32_t e = 0; e < static_cast<uint32_t>(what_.experts); ++e) {
      for (uint32_t row = 0; row < rows; row += each) {
        GpuTile tile = {.matrix = {.codes = at},
                        .up = {.codes = at},
                        .first = e * rows + row,
                        .count = std::min(rows - row, each),
                        .up_first_row = static_cast<uint32_t>(what_.expert_width)};
        gate_up.push_back(tile);
        tile.matrix.codes = at + gate_up_bytes();
        down.push_back(tile);
      }
      at += gate_up_bytes() + down_bytes();
    }
  }
  const auto put = [&](GpuBuffer& buffer, std::span<const std::byte> bytes) -> Result<void> {
    buffer = PENSTOCK_TRY(own_buffer(device_, bytes.size()));
    return device_.write(buffer, 0, bytes);
  };
  PENSTOCK_TRY(put(gate_up_tiles_, std::as_bytes(std::span(gate_up))));
  PENSTOCK_TRY(put(down_tiles_, std::as_bytes(std::span(down))));
  PENSTOCK_TRY(put(gate_up_list_, std::as_bytes(std::span(gate_up_list))));
  return put(down_list_, std::as_bytes(std::span(down_list)));
}

void ExpertBench::layer(GpuCommands& commands, int64_t index, bool packs, bool gate_up,
                        bool down) const {
  const int64_t hidden_size = what_.hidden_size, width = what_.expert_width;
  const int64_t tiles = tiles_of_layer();
  const uint64_t offset = static_cast<uint64_t>(index % layers_ * tiles) * sizeof(GpuTile);
  const auto rows = static_cast<uint32_t>(what_.rows);
  const uint32_t tile_tokens = std::min(rows, tile_tokens_for(rows));
  if (packs) {
    products_->pack(commands, {.coding = what_.dtype,
                               .x = x_.address(),
                               .packed = packed_x_.address(),
                               .columns = hidden_size,
                               .stride = hidden_size,
                               .rows = what_.rows});
    commands.barrier();
  }
  if (gate_up) {
    products_->multiply(commands, {.coding = what_.dtype,
                                   .is_gated = true,
                                   .tile_tokens = tile_tokens,
                                   .tiles = gate_up_tiles_.address() + offset,
                                   .list = gate_up_list_.address(),
                                   .packed = packed_x_.address(),
                                   .result = hidden_.address(),
                                   .columns = hidden_size,
                                   .rows = width,
                                   .stride = width,
                                   .num_tiles = static_cast<uint32_t>(tiles)});
    commands.barrier();
  }
  if (packs) {
    products_->pack(commands, {.coding = what_.dtype,
                               .x = hidden_.address(),
                               .packed = packed_hidden_.address(),
                               .columns = width,
                               .stride = width,
                               .rows = what_.experts * what_.rows});
    commands.barrier();
  }
  if (!down) return;
  products_->multiply(commands, {.coding = what_.dtype,
                                 .tile_tokens = tile_tokens,
                                 .tiles = down_tiles_.address() + offset,
                                 .list = down_list_.address(),
                                 .packed = packed_hidden_.address(),
                                 .result = results_.address(),
                                 .columns = width,
                                 .rows = hidden_size,
                                 .stride = hidden_size,
                                 .num_tiles = static_cast<uint32_t>(tiles)});
  commands.barrier();
}

}  // namespace

Result<GpuExpertRate> measure_gpu_experts(GpuDevice& device, const GpuExpertCase& what,
                                          const GpuRatesOptions& options,
                                          const std::stop_token& stop) {
  PENSTOCK_CHECK(is_quantised(what.dtype) && what.experts > 0 && what.rows > 0);
  PENSTOCK_CHECK(what.hidden_size % kGroupColumns == 0 && what.expert_width % kGroupColumns == 0);
  ExpertBench bench(device, what);
  PENSTOCK_TRY(bench.prepare(options.buffer_bytes));
  Stopwatch watch(device.compute(), options.seconds, stop);
  const double read_gbps = PENSTOCK_TRY(read_rate(device, bench.weights(), watch));
  // Enough layers that handing over and waiting do not count, and each list goes on where the last
  // one ended.
  const int64_t layers = what.experts * what.rows > 1000 ? 4 : 40;
  int64_t next = 0;
  const auto layer_us = [&](bool packs, bool gate_up, bool down) -> Result<double> {
    const double seconds = PENSTOCK_TRY(watch.median([&](GpuCommands& commands) {
      for (int64_t i = 0; i < layers; ++i) {
        bench.layer(commands, next++, packs, gate_up, down);
      }
    }));
    return 1e6 * seconds / static_cast<double>(layers);
  };
  GpuExpertRate rate;
  rate.layer_us = PENSTOCK_TRY(layer_us(true, true, true));
  rate.gate_up_us = PENSTOCK_TRY(layer_us(false, true, false));
  rate.down_us = PENSTOCK_TRY(layer_us(false, false, true));
  rate.gbps = bench.layer_bytes() / rate.layer_us / 1e3;
  rate.share_of_read = rate.gbps / read_gbps;
  const int64_t weights = what.experts * 3 * what.hidden_size * what.expert_width;
  rate.gproducts = static_cast<double>(weights * what.rows) / rate.layer_us / 1e3;
  return rate;
}

Result<GpuMatmulRate> measure_gpu_matmul(GpuDevice& device, const GpuMatmulCase& what,
                                         const GpuRatesOptions& options,
                                         const std::stop_token& stop) {
  PENSTOCK_CHECK(is_quantised(what.dtype) && what.columns % kGroupColumns == 0);
  const GpuProductUse uses[] = {{.coding = what.dtype}};
  const GpuProducts products = PENSTOCK_TRY(GpuProducts::create(device, uses));
  const auto bytes_of = [](int64_t count, size_t each) {
    return static_cast<uint64_t>(count) * each;
  };
  const uint64_t x_bytes = bytes_of(what.tokens * what.columns, sizeof(float));
  const uint64_t result_bytes = bytes_of(what.tokens * what.rows, sizeof(float));
  const GpuBuffer weights = PENSTOCK_TRY(
      own_buffer(device, bytes_of(panel_bytes(what.dtype, what.rows, what.columns), 1)));
  const GpuBuffer packed = PENSTOCK_TRY(
      own_buffer(device, bytes_of(what.tokens * gpu_fixed_row_bytes(what.columns), 1)));
  const uint32_t tokens = static_cast<uint32_t>(what.tokens), each = tile_tokens_for(tokens);
  std::vector<GpuTile> tiles;
  std::vector<GpuRowPair> list;
  for (uint32_t t = 0; t < tokens; ++t) list.push_back({t, t});
  for (uint32_t first = 0; first < tokens; first += each) {
    tiles.push_back({.matrix = {.codes = weights.address()},
                     .first = first,
                     .count = std::min(tokens - first, each)});
  }
  const GpuBuffer tile_buffer = PENSTOCK_TRY(own_buffer(device, tiles.size() * sizeof(GpuTile)));
  const GpuBuffer list_buffer = PENSTOCK_TRY(own_buffer(device, list.size() * sizeof(GpuRowPair)));
  PENSTOCK_TRY(device.write(tile_buffer, 0, std::as_bytes(std::span(tiles))));
  PENSTOCK_TRY(device.write(list_buffer, 0, std::as_bytes(std::span(list))));
  Stopwatch watch(device.compute(), options.seconds, stop);
  const auto call_us = [&](GpuMemoryKind of_x, GpuMemoryKind of_result) -> Result<double> {
    const GpuBuffer x = PENSTOCK_TRY(device.allocate(x_bytes, of_x, "measuring a GPU"));
    const GpuBuffer result =
        PENSTOCK_TRY(device.allocate(result_bytes, of_result, "measuring a GPU"));
    GpuCommands zeros = PENSTOCK_TRY(device.compute().begin());
    zeros.clear(x);
    zeros.clear(weights);
    PENSTOCK_TRY(device.compute().finish(zeros));
    constexpr int kTimes = 4;
    const double seconds = PENSTOCK_TRY(watch.median([&](GpuCommands& commands) {
      for (int i = 0; i < kTimes; ++i) {
        products.pack(commands, {.coding = what.dtype,
                                 .x = x.address(),
                                 .packed = packed.address(),
                                 .columns = what.columns,
                                 .stride = what.columns,
                                 .rows = what.tokens});
        commands.barrier();
        products.multiply(commands, {.coding = what.dtype,
                                     .tile_tokens = std::min(tokens, each),
                                     .tiles = tile_buffer.address(),
                                     .list = list_buffer.address(),
                                     .packed = packed.address(),
                                     .result = result.address(),
                                     .columns = what.columns,
                                     .rows = what.rows,
                                     .stride = what.rows,
                                     .num_tiles = static_cast<uint32_t>(tiles.size())});
        commands.barrier();
      }
    }));
    return 1e6 * seconds / kTimes;
  };
  GpuMatmulRate rate;
  rate.own_us = PENSTOCK_TRY(call_us(GpuMemoryKind::kDevice, GpuMemoryKind::kDevice));
  rate.linked_us = PENSTOCK_TRY(call_us(GpuMemoryKind::kInputs, GpuMemoryKind::kShared));
  rate.gproducts = static_cast<double>(what.rows * what.columns * what.tokens) / rate.own_us / 1e3;
  return rate;
}

}  // namespace penstock
