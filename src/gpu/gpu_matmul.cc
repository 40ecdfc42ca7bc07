#include "gpu/gpu_matmul.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

std::vector<GpuProductUse> product_uses(std::span<const GpuCoding> codings) {
  std::vector<GpuProductUse> uses;
  for (const GpuCoding& coding : codings) uses.push_back({.coding = coding});
  return uses;
}

// A row with its columns as a matrix has them stored.
void put_row(const ColumnOrder* order, std::span<const float> row, std::byte* to) {
  if (order == nullptr) {
    std::memcpy(to, row.data(), row.size_bytes());
    return;
  }
  const auto bytes = static_cast<size_t>(order->width) * sizeof(float);
  for (size_t b = 0; b < order->stored.size(); ++b) {
    std::memcpy(to + static_cast<size_t>(order->stored[b]) * bytes,
                row.data() + static_cast<int64_t>(b) * order->width, bytes);
  }
}

// Limits need not be whole blocks.
uint64_t fixed_bytes(const GpuMatmulLimits& limits) {
  const int64_t blocks = (limits.columns + kGroupColumns - 1) / kGroupColumns;
  return static_cast<uint64_t>(limits.rows * gpu_fixed_row_bytes(blocks * kGroupColumns));
}

// Of one of two calls that are under way; the second one's results begin where those of the first end.
GpuMatmulLimits half_of(GpuMatmulLimits limits) {
  constexpr int64_t kFloats = kGpuAlignment / sizeof(float);
  limits.rows = std::max<int64_t>(1, limits.rows / 2);
  limits.results = limits.results / 2 / kFloats * kFloats;
  return limits;
}

}  // namespace

// Fewer rows never make more tiles.
GpuMatmul::Layout::Layout(const GpuMatmulLimits& call) {
  const auto rows = static_cast<uint64_t>(call.rows);
  list = x + gpu_aligned(gpu_float_bytes(call.rows * call.columns));
  tiles = list + gpu_aligned(rows * sizeof(GpuRowPair));
  const auto num_tiles = static_cast<uint64_t>(call.pieces * tiles_for(call.rows));
  end = tiles + gpu_aligned(num_tiles * sizeof(GpuTile));
}

GpuMatmul::Bytes GpuMatmul::bytes_for(const GpuMatmulLimits& limits) {
  const uint64_t inputs = std::max(Layout(limits).end, 2 * Layout(half_of(limits)).end);
  return {.on_device = fixed_bytes(limits), .on_host = inputs + gpu_float_bytes(limits.results)};
}

GpuMatmul::GpuMatmul(GpuDevice& device, const GpuMatmulLimits& limits, HostRows host)
    : device_(&device), limits_(limits), half_(half_of(limits)), host_(host) {
  calls_[1].inputs = Layout(half_).end;
  calls_[1].results = gpu_float_bytes(half_.results);
}

Result<GpuMatmul> GpuMatmul::create(GpuDevice& device, const GpuMatmulLimits& limits,
                                    std::span<const GpuCoding> codings, HostRows host) {
  PENSTOCK_CHECK(limits.rows > 0 && limits.columns > 0 && limits.results > 0 && limits.pieces > 0);
  GpuMatmul made(device, limits, host);
  const auto take = [&](GpuBuffer& buffer, uint64_t bytes, GpuMemoryKind kind) -> Result<void> {
    buffer = PENSTOCK_TRY(device.allocate(bytes, kind, "rows of products"));
    return {};
  };
  const uint64_t results = gpu_float_bytes(limits.results);
  PENSTOCK_TRY(take(made.inputs_, bytes_for(limits).on_host - results, GpuMemoryKind::kInputs));
  PENSTOCK_TRY(take(made.packed_x_, fixed_bytes(limits), GpuMemoryKind::kDevice));
  PENSTOCK_TRY(take(made.results_, results, GpuMemoryKind::kShared));
  made.products_ = PENSTOCK_TRY(GpuProducts::create(device, product_uses(codings)));
  return made;
}

int64_t GpuMatmul::rows_at_once(int64_t rows, int64_t columns) const {
  const int64_t whole = std::min(limits_.rows, limits_.results / columns);
  if (rows <= kTileTokens && rows <= whole) return rows;
  return std::min(half_.rows, half_.results / columns);
}

void GpuMatmul::write_inputs(const Call& call, Rows x, std::span<const GpuProduct> products) {
  const auto rows = static_cast<uint32_t>(x.count);
  const uint32_t each = tile_tokens_for(rows);
  list_.clear();
  tiles_.clear();
  for (uint32_t t = 0; t < rows; ++t) list_.push_back({t, t});
  for (const GpuProduct& product : products) {
    for (const GpuPiece& piece : product.pieces) {
      for (uint32_t first = 0; first < rows; first += each) {
        tiles_.push_back(
            {.matrix = piece.planes, .first = first, .count = std::min(rows - first, each)});
      }
    }
  }
  std::byte* to = inputs_.host_bytes().data() + call.inputs;
  const auto bytes = static_cast<size_t>(gpu_float_bytes(x.width));
  const ColumnOrder* order = products[0].projection.weight.coded.order;
  host_.each(x.count, bytes, [&](int64_t t) {
    put_row(order, x.row(t), to + call.layout.x + static_cast<size_t>(t) * bytes);
  });
  std::memcpy(to + call.layout.list, list_.data(), list_.size() * sizeof(GpuRowPair));
  std::memcpy(to + call.layout.tiles, tiles_.data(), tiles_.size() * sizeof(GpuTile));
}

// The products with matrices whose codes lie so that x is packed for them alike; that is done first.
void GpuMatmul::record_packed(GpuCommands& commands, const Call& call, const GpuCoding& packed_for,
                              Rows x, std::span<const GpuProduct> products) const {
  const uint64_t inputs = inputs_.address() + call.inputs;
  products_.pack(commands, {.coding = packed_for,
                            .x = inputs + call.layout.x,
                            .packed = packed_x_.address(),
                            .columns = x.width,
                            .stride = x.width,
                            .rows = x.count});
  commands.barrier();
  uint64_t tiles = inputs + call.layout.tiles;
  const uint64_t results = results_.address() + call.results;
  int64_t floats = 0;
  for (const GpuProduct& product : products) {
    const Matrix& weight = product.projection.weight;
    const GpuCoding coding = gpu_coding_of(weight);
    for (const GpuPiece& piece : product.pieces) {
      if (coding.fours_in_word() == packed_for.fours_in_word()) {
        products_.multiply(
            commands,
            {.coding = coding,
             .tile_tokens = x.count > 1 ? tile_tokens_for(static_cast<uint32_t>(x.count)) : 1,
             .tiles = tiles,
             .list = inputs + call.layout.list,
             .packed = packed_x_.address(),
             .result = results + gpu_float_bytes(floats + piece.first_row),
             .columns = x.width,
             .rows = piece.rows,
             .stride = weight.rows,
             .num_tiles = static_cast<uint32_t>(call.tiles_of_piece)});
      }
      tiles += static_cast<uint64_t>(call.tiles_of_piece) * sizeof(GpuTile);
    }
    floats += x.count * weight.rows;
  }
  commands.barrier();
}

void GpuMatmul::record(GpuCommands& commands, const Call& call, Rows x,
                       std::span<const GpuProduct> products) const {
  for (size_t i = 0; i < products.size(); ++i) {
    const auto coding_of = [&](size_t k) { return gpu_coding_of(products[k].projection.weight); };
    const GpuCoding coding = coding_of(i);
    bool is_first = true;
    for (size_t k = 0; k < i; ++k) {
      is_first = is_first && coding_of(k).fours_in_word() != coding.fours_in_word();
    }
    if (is_first) record_packed(commands, call, coding, x, products);
  }
}

Result<void> GpuMatmul::begin(Rows x, std::span<const GpuProduct> products) {
  int64_t columns = 0, pieces = 0;
  for (const GpuProduct& product : products) {
    const Matrix& weight = product.projection.weight;
    PENSTOCK_CHECK(weight.columns == x.width && !product.pieces.empty());
    PENSTOCK_CHECK(go_together(weight, products[0].projection.weight));
    columns += weight.rows;
    pieces += std::ssize(product.pieces);
  }
  PENSTOCK_CHECK(x.count > 0 && x.count <= rows_at_once(x.count, columns));
  PENSTOCK_CHECK(x.width <= limits_.columns && pieces <= limits_.pieces && under_way_ < kCalls);
  if (under_way_ == 0) {
    next_ = 0;
    PENSTOCK_TRY(device_->compute().wait(last_));  // what nobody finished
  }
  const bool is_half = x.count <= half_.rows && x.count * columns <= half_.results;
  PENSTOCK_CHECK(under_way_ == 0 || (is_half && !is_alone_));
  is_alone_ = !is_half;
  Call& call = calls_[static_cast<size_t>(next_)];
  call.rows = x.count;
  call.tiles_of_piece = tiles_for(x.count);
  call.layout = Layout({.rows = x.count, .columns = x.width, .results = 0, .pieces = pieces});
  write_inputs(call, x, products);
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  record(commands, call, x, products);
  last_ = call.fence = PENSTOCK_TRY(device_->compute().submit(commands));
  next_ = (next_ + 1) % kCalls;
  ++under_way_;
  return {};
}

Result<void> GpuMatmul::finish(std::span<const GpuProduct> products) {
  PENSTOCK_CHECK(under_way_ > 0);
  const Call& call = calls_[static_cast<size_t>((next_ + kCalls - under_way_) % kCalls)];
  PENSTOCK_TRY(device_->compute().wait(call.fence));
  --under_way_;
  const auto* from = reinterpret_cast<const float*>(results_.host_bytes().data() + call.results);
  for (const GpuProduct& product : products) {
    const Projection& projection = product.projection;
    PENSTOCK_CHECK(projection.out.count == call.rows);
    const int64_t width = projection.out.width;
    host_.each(call.rows, gpu_float_bytes(width), [&](int64_t t) {
      const std::span<float> out = projection.out.row(t);
      std::copy_n(from + t * width, out.size(), out.begin());
      if (projection.bias == nullptr) return;
      for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] + projection.bias[i];
    });
    from += call.rows * width;
  }
  return {};
}

}  // namespace penstock
