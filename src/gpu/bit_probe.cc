#include "gpu/bit_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <span>

#include "base/check.h"
#include "compute/exact_math.h"
#include "compute/panel.h"
#include "compute/reference.h"
#include "gpu/gpu_products.h"
#include "gpu/probe_matrix.h"
#include "quant/codebook_blocks.h"

namespace penstock {
namespace {

float to_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
uint32_t to_bits(float value) {
  return std::bit_cast<uint32_t>(value);
}

// Sizes from 2^first up to 2^(last + 1), of which signs, and what no number may exceed.
struct Domain {
  int first = 0, last = 0;
  bool has_negative = true;
  float largest = std::numeric_limits<float>::infinity();
};

// What is taken for the numbers of a primitive: floats of a domain, or any 32 bits.
struct Primitive {
  const char* name;
  bool takes_any_bits;
  Domain domain;
  uint32_t (*on_cpu)(uint32_t x, uint32_t y, uint32_t z);
};

int32_t byte_of(uint32_t word, int i) {
  return static_cast<int8_t>(word >> (8 * i));
}

// In the order of `op` in shaders/probe.comp. In these domains no result is subnormal, but of whole
// numbers made.
constexpr Primitive kPrimitives[] = {
    {"sum",
     false,
     {-60, 60},
     [](uint32_t x, uint32_t y, uint32_t) { return to_bits(to_float(x) + to_float(y)); }},
    {"difference",
     false,
     {-60, 60},
     [](uint32_t x, uint32_t y, uint32_t) { return to_bits(to_float(x) - to_float(y)); }},
    {"product",
     false,
     {-60, 60},
     [](uint32_t x, uint32_t y, uint32_t) { return to_bits(to_float(x) * to_float(y)); }},
    {"product and sum",
     false,
     {-30, 30},
     [](uint32_t x, uint32_t y, uint32_t z) {
       const float product = to_float(x) * to_float(y);
       return to_bits(product + to_float(z));
     }},
    {"integer to float",
     true,
     {},
     [](uint32_t x, uint32_t, uint32_t) {
       return to_bits(static_cast<float>(static_cast<int32_t>(x)));
     }},
    {"exponential",
     false,
     {-40, 6, true, 88},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_exp(to_float(x))); }},
    {"reciprocal",
     false,
     {-100, 99},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_reciprocal(to_float(x))); }},
    {"reciprocal root",
     false,
     {-100, 126, false},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_rsqrt(to_float(x))); }},
    {"product of experts",
     false,
     {-61, 60},
     [](uint32_t x, uint32_t y, uint32_t) {
       return to_bits(exact_product(to_float(x), to_float(y)));
     }},
    {"sigmoid",
     false,
     {-60, 8},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_sigmoid(to_float(x))); }},
    {"silu",
     false,
     {-60, 8},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_silu(to_float(x))); }},
    {"softplus",
     false,
     {-40, 5},
     [](uint32_t x, uint32_t, uint32_t) { return to_bits(exact_softplus(to_float(x))); }},
    {"packed dot",
     true,
     {},
     [](uint32_t x, uint32_t y, uint32_t) {
       int32_t sum = 0;
       for (int i = 0; i < 4; ++i) sum += byte_of(x, i) * byte_of(y, i);
       return static_cast<uint32_t>(sum);
     }},
    {"half",
     true,
     {},
     [](uint32_t x, uint32_t, uint32_t) {
       return to_bits(f16_to_f32(static_cast<uint16_t>(x & 0xbfffu)));
     }},
    {"power of two",
     true,
     {},
     [](uint32_t x, uint32_t, uint32_t) {
       return to_bits(half_of_e8m0(static_cast<uint8_t>(2 + (x & 0x7fu))));
     }},
    {"fused product and sum",
     false,
     {-127, 126},
     [](uint32_t x, uint32_t y, uint32_t z) {
       return to_bits(exact_fma(to_float(x), to_float(y), to_float(z)));
     }},
};

// Of any size in the domain, with any bits; every few with none, all or the outer ones set.
std::vector<uint32_t> inputs_of(const Primitive& primitive, size_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<uint32_t> inputs(count);
  const Domain& domain = primitive.domain;
  std::uniform_int_distribution<int> exponents(domain.first + 127, domain.last + 127);
  for (size_t i = 0; i < count; ++i) {
    const auto random = static_cast<uint32_t>(engine());
    if (primitive.takes_any_bits) {
      inputs[i] = random >> (i % 4 == 0 ? random % 31 : 0);
      if (i % 64 == 0) inputs[i] = i % 128 == 0 ? 0x80808080u : 0x7fffffffu;
      continue;
    }
    uint32_t mantissa = random & 0x7fffffu;
    if (i % 16 == 0) mantissa = i % 32 == 0 ? 0 : 0x7fffffu;
    if (i % 16 == 1) mantissa &= 0x400001u;
    const uint32_t sign = domain.has_negative ? random & 0x80000000u : 0;
    inputs[i] = sign | static_cast<uint32_t>(exponents(engine)) << 23 | mantissa;
    if (i < 4) inputs[i] = to_bits(i % 2 == 0 ? 1.0f : 1.0f + 0x1p-23f);
    if (to_float(inputs[i]) > domain.largest) inputs[i] |= 0x80000000u;
  }
  return inputs;
}

struct ProbeArguments {
  uint64_t a, b, c, result;
  uint32_t count, op;
};

class Prober {
 public:
  Prober(GpuDevice& device, int64_t inputs) : device_(device), inputs_(inputs) {}

  Result<BitProbe> run(std::span<const GpuCoding> codings) {
    BitProbe probe;
    kernel_ = PENSTOCK_TRY(device_.kernel(Shader::kProbe, {}));
    const auto bytes = static_cast<uint64_t>(4 * inputs_);
    for (GpuBuffer* buffer : {&a_, &b_, &c_, &result_}) {
      *buffer = PENSTOCK_TRY(device_.allocate(bytes, GpuMemoryKind::kShared, "the bit probe"));
    }
    for (size_t op = 0; op < std::size(kPrimitives); ++op) {
      probe.rows.push_back(PENSTOCK_TRY(run_primitive(op)));
    }
    std::vector<GpuProductUse> uses;
    for (const GpuCoding& coding : codings) {
      for (const bool is_gated : {false, true}) uses.push_back({coding, is_gated});
    }
    const GpuProducts products = PENSTOCK_TRY(GpuProducts::create(device_, uses));
    for (const GpuProductUse& use : uses) {
      for (const uint32_t tokens : {1u, kTileTokens, kWideTokens - 3}) {
        probe.rows.push_back(PENSTOCK_TRY(run_product(products, use, tokens, kLongColumns)));
      }
      if (use.is_gated) continue;
      probe.rows.push_back(PENSTOCK_TRY(run_product(products, use, 1, kShortColumns)));
    }
    return probe;
  }

 private:
  Result<BitProbeRow> run_primitive(size_t op);
  // One for each kernel that a coding has: rows of both lengths, gated or not.
  static constexpr int64_t kLongColumns = 20 * kGroupColumns, kShortColumns = 8 * kGroupColumns;
  Result<BitProbeRow> run_product(const GpuProducts& products, const GpuProductUse& use,
                                  uint32_t tokens, int64_t columns);
  struct Planes {
    std::array<GpuBuffer, 3> buffers;
    GpuPlanes at() const {
      return {buffers[0].address(), buffers[1].address(), buffers[2].address()};
    }
  };
  Result<Planes> copy(const ProbeMatrix& weights);
  Result<GpuBuffer> shared(int64_t bytes) {
    return device_.allocate(static_cast<uint64_t>(bytes), GpuMemoryKind::kShared, "the bit probe");
  }

  static std::span<uint32_t> words(const GpuBuffer& buffer) {
    const std::span<std::byte> bytes = buffer.host_bytes();
    return {reinterpret_cast<uint32_t*>(bytes.data()), bytes.size() / 4};
  }

  GpuDevice& device_;
  const int64_t inputs_;
  GpuKernel kernel_;
  GpuBuffer a_, b_, c_, result_;
};

Result<BitProbeRow> Prober::run_primitive(size_t op) {
  const Primitive& primitive = kPrimitives[op];
  const auto count = static_cast<size_t>(inputs_);
  BitProbeRow row = {primitive.name, inputs_, 0, {}};
  const std::vector<uint32_t> x = inputs_of(primitive, count, 1),
                              y = inputs_of(primitive, count, 2),
                              z = inputs_of(primitive, count, 3);
  std::vector<uint32_t> second = y, third = z;
  for (size_t i = 0; i < count && !primitive.takes_any_bits; ++i) {
    // Every eighth pair nearly cancels, where what was fused or kept too long shows.
    if (i % 8 == 3) second[i] = x[i] ^ 0x80000000u ^ (y[i] & 3u);
    const float product = to_float(x[i]) * to_float(y[i]);
    if (i % 8 == 5) third[i] = to_bits(-product);
    // And every eighth third is up to 2^32 times as large or small as a product.
    if (i % 8 == 7)
      third[i] = to_bits(std::ldexp(product * 1.37f, static_cast<int>(i / 8 % 65) - 32));
  }
  std::copy(x.begin(), x.end(), words(a_).begin());
  std::copy(second.begin(), second.end(), words(b_).begin());
  std::copy(third.begin(), third.end(), words(c_).begin());
  GpuCommands commands = PENSTOCK_TRY(device_.compute().begin());
  commands.dispatch(kernel_,
                    ProbeArguments{a_.address(), b_.address(), c_.address(), result_.address(),
                                   static_cast<uint32_t>(count), static_cast<uint32_t>(op)},
                    {static_cast<uint32_t>(count / 64), 1});
  PENSTOCK_TRY(device_.compute().finish(commands));
  const std::span<const uint32_t> results = words(result_);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t expected = primitive.on_cpu(x[i], second[i], third[i]);
    if (results[i] == expected) continue;
    if (row.wrong++ == 0) {
      row.example = fmt::format("of {:08x}, {:08x}, {:08x}: {:08x} instead of {:08x}", x[i],
                                second[i], third[i], results[i], expected);
    }
  }
  return row;
}

Result<Prober::Planes> Prober::copy(const ProbeMatrix& weights) {
  Planes copied;
  for (size_t i = 0; i < copied.buffers.size(); ++i) {
    const std::span<const std::byte> bytes = weights.planes[i];
    if (bytes.empty()) continue;
    copied.buffers[i] = PENSTOCK_TRY(shared(std::ssize(bytes)));
    PENSTOCK_TRY(device_.write(copied.buffers[i], 0, bytes));
  }
  return copied;
}

// Rows that are neither whole panels nor whole tiles, blocks whose largest numbers lie far apart.
Result<BitProbeRow> Prober::run_product(const GpuProducts& products, const GpuProductUse& use,
                                        uint32_t tokens, int64_t columns) {
  constexpr int64_t kRows = ProbeMatrix::kRows;
  const GpuCoding& coding = use.coding;
  const auto width = static_cast<size_t>(columns);
  std::mt19937 engine(7 + tokens);
  std::normal_distribution<float> normal;
  const ProbeMatrix weights(coding, columns, engine), up(coding, columns, engine);
  std::vector<float> x(tokens * width);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = std::ldexp(normal(engine), static_cast<int>(i / kGroupColumns % 5) * 10 - 20);
  }
  const Planes planes = PENSTOCK_TRY(copy(weights)), up_planes = PENSTOCK_TRY(copy(up));
  const GpuBuffer inputs = PENSTOCK_TRY(shared(std::ssize(x) * 4));
  const GpuBuffer packed = PENSTOCK_TRY(shared(tokens * gpu_fixed_row_bytes(columns)));
  const GpuBuffer result = PENSTOCK_TRY(shared(tokens * kRows * 4));
  const GpuBuffer tile = PENSTOCK_TRY(shared(sizeof(GpuTile)));
  const GpuBuffer list = PENSTOCK_TRY(shared(tokens * static_cast<int64_t>(sizeof(GpuRowPair))));
  PENSTOCK_TRY(device_.write(inputs, 0, std::as_bytes(std::span(x))));
  const GpuTile one = {.matrix = planes.at(), .up = up_planes.at(), .count = tokens};
  PENSTOCK_TRY(device_.write(tile, 0, std::as_bytes(std::span(&one, 1))));
  std::vector<GpuRowPair> pairs;
  for (uint32_t t = 0; t < tokens; ++t) pairs.push_back({t, t});
  PENSTOCK_TRY(device_.write(list, 0, std::as_bytes(std::span(pairs))));

  GpuCommands commands = PENSTOCK_TRY(device_.compute().begin());
  products.pack(commands, {.coding = coding,
                           .x = inputs.address(),
                           .packed = packed.address(),
                           .columns = columns,
                           .stride = columns,
                           .rows = tokens});
  commands.barrier();
  products.multiply(commands, {.coding = coding,
                               .is_gated = use.is_gated,
                               .tile_tokens = tokens,
                               .tiles = tile.address(),
                               .list = list.address(),
                               .packed = packed.address(),
                               .result = result.address(),
                               .columns = columns,
                               .rows = kRows,
                               .stride = kRows,
                               .num_tiles = 1});
  PENSTOCK_TRY(device_.compute().finish(commands));

  BitProbeRow row = {fmt::format("{}product {}, {} rows of {}", use.is_gated ? "gated " : "",
                                 name_of(coding), tokens, columns),
                     tokens * kRows,
                     0,
                     {}};
  std::vector<float> expected(kRows), of_up(kRows);
  for (uint32_t t = 0; t < tokens; ++t) {
    const auto row_of_x = std::span(x).subspan(t * width, width);
    panel_product(weights.matrix(), row_of_x, Arithmetic::kFixed16, expected);
    if (use.is_gated) {
      panel_product(up.matrix(), row_of_x, Arithmetic::kFixed16, of_up);
      for (size_t r = 0; r < kRows; ++r) {
        expected[r] = exact_product(exact_silu(expected[r]), of_up[r]);
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      const uint32_t got = words(result)[t * kRows + r];
      if (got == to_bits(expected[r])) continue;
      if (row.wrong++ == 0) {
        row.example =
            fmt::format("row {} of {}: {:08x} instead of {:08x}", r, t, got, to_bits(expected[r]));
      }
    }
  }
  return row;
}

}  // namespace

int64_t BitProbe::inputs() const {
  int64_t count = 0;
  for (const BitProbeRow& row : rows) count += row.inputs;
  return count;
}

bool BitProbe::is_right() const {
  return std::all_of(rows.begin(), rows.end(), [](const auto& row) { return row.wrong == 0; });
}

std::string BitProbe::refusal() const {
  for (const BitProbeRow& row : rows) {
    if (row.wrong == 0) continue;
    return fmt::format("it computes wrong: {} of {} results of \"{}\" differ from the CPU's ({})",
                       row.wrong, row.inputs, row.name, row.example);
  }
  return {};
}

Result<BitProbe> probe_bits(GpuDevice& device, int64_t inputs, std::span<const GpuCoding> codings) {
  PENSTOCK_CHECK(inputs > 0 && inputs % 64 == 0 && inputs <= kProbeInputsMax);
  return Prober(device, inputs).run(codings);
}

Result<BitProbe> probe_bits(GpuDevice& device, int64_t inputs) {
  return probe_bits(device, inputs, common_gpu_codings());
}

}  // namespace penstock
