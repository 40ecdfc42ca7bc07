#include "gpu/gpu_matmul.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

uint64_t float_bytes(int64_t count) {
  return static_cast<uint64_t>(count) * sizeof(float);
}

int64_t tiles_for(int64_t rows) {
  return (rows + kTileTokens - 1) / kTileTokens;
}

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

}  // namespace

GpuMatmul::Layout::Layout(const GpuMatmulLimits& call) {
  const auto rows = static_cast<uint64_t>(call.rows);
  list = x + gpu_aligned(float_bytes(call.rows * call.columns));
  tiles = list + gpu_aligned(rows * sizeof(GpuRowPair));
  const auto num_tiles = static_cast<uint64_t>(call.pieces * tiles_for(call.rows));
  end = tiles + gpu_aligned(num_tiles * sizeof(GpuTile));
}

GpuMatmul::Bytes GpuMatmul::bytes_for(const GpuMatmulLimits& limits) {
  return {.on_device = fixed_bytes(limits),
          .on_host = Layout(limits).end + float_bytes(limits.results)};
}

GpuMatmul::GpuMatmul(GpuDevice& device, const GpuMatmulLimits& limits)
    : device_(&device), limits_(limits), layout_(limits) {}

Result<GpuMatmul> GpuMatmul::create(GpuDevice& device, const GpuMatmulLimits& limits,
                                    std::span<const GpuCoding> codings) {
  PENSTOCK_CHECK(limits.rows > 0 && limits.columns > 0 && limits.results > 0 && limits.pieces > 0);
  GpuMatmul made(device, limits);
  const auto take = [&](GpuBuffer& buffer, uint64_t bytes, GpuMemoryKind kind) -> Result<void> {
    buffer = PENSTOCK_TRY(device.allocate(bytes, kind, "rows of products"));
    return {};
  };
  const auto own = GpuMemoryKind::kDevice, shared = GpuMemoryKind::kShared;
  PENSTOCK_TRY(take(made.inputs_, made.layout_.end, shared));
  PENSTOCK_TRY(take(made.packed_x_, fixed_bytes(limits), own));
  PENSTOCK_TRY(take(made.results_, float_bytes(limits.results), shared));
  made.products_ = PENSTOCK_TRY(GpuProducts::create(device, product_uses(codings)));
  return made;
}

void GpuMatmul::write_inputs(Rows x, std::span<const GpuProduct> products) {
  int64_t pieces = 0;
  for (const GpuProduct& product : products) pieces += std::ssize(product.pieces);
  PENSTOCK_CHECK(pieces <= limits_.pieces);
  layout_ = Layout({.rows = x.count, .columns = x.width, .results = 0, .pieces = pieces});
  tiles_of_piece_ = tiles_for(x.count);
  list_.clear();
  tiles_.clear();
  for (uint32_t t = 0; t < x.count; ++t) list_.push_back({t, t});
  for (const GpuProduct& product : products) {
    for (const GpuPiece& piece : product.pieces) {
      for (uint32_t first = 0; first < x.count; first += kTileTokens) {
        const auto left = static_cast<uint32_t>(x.count) - first;
        tiles_.push_back(
            {.matrix = piece.planes, .first = first, .count = std::min(left, kTileTokens)});
      }
    }
  }
  std::byte* to = inputs_.host_bytes().data();
  const auto bytes = static_cast<size_t>(float_bytes(x.width));
  const ColumnOrder* order = products[0].projection.weight.coded.order;
  for (int64_t t = 0; t < x.count; ++t) {
    put_row(order, x.row(t), to + layout_.x + static_cast<size_t>(t) * bytes);
  }
  std::memcpy(to + layout_.list, list_.data(), list_.size() * sizeof(GpuRowPair));
  std::memcpy(to + layout_.tiles, tiles_.data(), tiles_.size() * sizeof(GpuTile));
}

// The products with matrices whose codes lie so that x is packed for them alike; that is done first.
void GpuMatmul::record_packed(GpuCommands& commands, const GpuCoding& packed_for, Rows x,
                              std::span<const GpuProduct> products) const {
  const uint64_t inputs = inputs_.address();
  products_.pack(commands, {.coding = packed_for,
                            .x = inputs + layout_.x,
                            .packed = packed_x_.address(),
                            .columns = x.width,
                            .stride = x.width,
                            .rows = x.count});
  commands.barrier();
  uint64_t tiles = inputs + layout_.tiles;
  int64_t floats = 0;
  for (const GpuProduct& product : products) {
    const Matrix& weight = product.projection.weight;
    const GpuCoding coding = gpu_coding_of(weight);
    for (const GpuPiece& piece : product.pieces) {
      if (coding.fours_in_word() == packed_for.fours_in_word()) {
        products_.multiply(commands,
                           {.coding = coding,
                            .tile_tokens = x.count > 1 ? kTileTokens : 1,
                            .tiles = tiles,
                            .list = inputs + layout_.list,
                            .packed = packed_x_.address(),
                            .result = results_.address() + float_bytes(floats + piece.first_row),
                            .columns = x.width,
                            .rows = piece.rows,
                            .stride = weight.rows,
                            .num_tiles = static_cast<uint32_t>(tiles_of_piece_)});
      }
      tiles += static_cast<uint64_t>(tiles_of_piece_) * sizeof(GpuTile);
    }
    floats += x.count * weight.rows;
  }
  commands.barrier();
}

void GpuMatmul::record(GpuCommands& commands, Rows x, std::span<const GpuProduct> products) const {
  for (size_t i = 0; i < products.size(); ++i) {
    const auto coding_of = [&](size_t k) { return gpu_coding_of(products[k].projection.weight); };
    const GpuCoding coding = coding_of(i);
    bool is_first = true;
    for (size_t k = 0; k < i; ++k) {
      is_first = is_first && coding_of(k).fours_in_word() != coding.fours_in_word();
    }
    if (is_first) record_packed(commands, coding, x, products);
  }
}

Result<void> GpuMatmul::begin(Rows x, std::span<const GpuProduct> products) {
  int64_t columns = 0;
  for (const GpuProduct& product : products) {
    const Matrix& weight = product.projection.weight;
    PENSTOCK_CHECK(weight.columns == x.width && !product.pieces.empty());
    PENSTOCK_CHECK(go_together(weight, products[0].projection.weight));
    columns += weight.rows;
  }
  PENSTOCK_CHECK(x.count > 0 && x.count <= rows_at_once(columns) && x.width <= limits_.columns);
  PENSTOCK_TRY(device_->compute().wait(fence_));  // an earlier call that nobody finished
  write_inputs(x, products);
  rows_ = x.count;
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  record(commands, x, products);
  fence_ = PENSTOCK_TRY(device_->compute().submit(commands));
  return {};
}

Result<void> GpuMatmul::finish(std::span<const GpuProduct> products) {
  PENSTOCK_TRY(device_->compute().wait(fence_));
  const auto* from = reinterpret_cast<const float*>(results_.host_bytes().data());
  for (const GpuProduct& product : products) {
    const Projection& projection = product.projection;
    PENSTOCK_CHECK(projection.out.count == rows_);
    for (int64_t t = 0; t < rows_; ++t) {
      const std::span<float> out = projection.out.row(t);
      std::copy_n(from, out.size(), out.begin());
      from += out.size();
      if (projection.bias == nullptr) continue;
      for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] + projection.bias[i];
    }
  }
  return {};
}

}  // namespace penstock
