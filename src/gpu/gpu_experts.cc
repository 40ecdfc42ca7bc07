#include "gpu/gpu_experts.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

uint64_t float_bytes(int64_t rows, int64_t columns) {
  return static_cast<uint64_t>(rows * columns) * sizeof(float);
}

// Bytes of rows in fixed point; limits need not be whole blocks.
uint64_t fixed_bytes(int64_t rows, int64_t columns) {
  const int64_t whole = (columns + kGroupColumns - 1) / kGroupColumns * kGroupColumns;
  return static_cast<uint64_t>(rows * gpu_fixed_row_bytes(whole));
}

template <class T>
void put(const GpuBuffer& to, uint64_t offset, const std::vector<T>& values) {
  if (values.empty()) return;
  std::memcpy(to.host_bytes().data() + offset, values.data(), values.size() * sizeof(T));
}

std::vector<GpuProductUse> expert_uses(std::span<const GpuExpertShape> shapes) {
  std::vector<GpuProductUse> uses;
  for (const GpuExpertShape& shape : shapes) {
    uses.push_back({.coding = shape.gate_up, .is_gated = true});
    uses.push_back({.coding = shape.down});
  }
  return uses;
}

// Of more rows lists are copied.
constexpr int64_t kListsReadThere = 64;

}  // namespace

// No call has more tiles than rows.
GpuExperts::Layout::Layout(const GpuExpertLimits& call) {
  const auto places = static_cast<uint64_t>(call.places);
  gate_up_list = x + gpu_aligned(float_bytes(call.tokens, call.hidden_size));
  down_list = gate_up_list + gpu_aligned(places * sizeof(GpuRowPair));
  gate_up_tiles = down_list + gpu_aligned(places * sizeof(GpuRowPair));
  down_tiles = gate_up_tiles + gpu_aligned(places * sizeof(GpuTile));
  end = down_tiles + gpu_aligned(places * sizeof(GpuTile));
}

GpuExperts::Bytes GpuExperts::bytes_for(const GpuExpertLimits& limits) {
  return {
      .on_device = Layout(limits).list_bytes() + fixed_bytes(limits.tokens, limits.hidden_size) +
                   float_bytes(limits.places, limits.expert_width) +
                   fixed_bytes(limits.places, limits.expert_width),
      .on_host = Layout(limits).end + float_bytes(limits.places, limits.hidden_size),
  };
}

GpuExperts::GpuExperts(GpuDevice& device, const GpuExpertLimits& limits,
                       const GpuProducts& products)
    : device_(&device), limits_(limits), layout_(limits), products_(products) {}

Result<GpuExperts> GpuExperts::create(GpuDevice& device, const GpuExpertLimits& limits,
                                      std::span<const GpuExpertShape> shapes) {
  PENSTOCK_CHECK(limits.tokens > 0 && limits.places > 0);
  GpuExperts experts(device, limits,
                     PENSTOCK_TRY(GpuProducts::create(device, expert_uses(shapes))));
  const auto take = [&](GpuBuffer& buffer, uint64_t bytes, GpuMemoryKind kind) -> Result<void> {
    buffer = PENSTOCK_TRY(device.allocate(bytes, kind, "rows of experts"));
    return {};
  };
  const auto own = GpuMemoryKind::kDevice, shared = GpuMemoryKind::kShared;
  PENSTOCK_TRY(take(experts.inputs_, experts.layout_.end, shared));
  PENSTOCK_TRY(take(experts.lists_, experts.layout_.list_bytes(), own));
  PENSTOCK_TRY(take(experts.packed_x_, fixed_bytes(limits.tokens, limits.hidden_size), own));
  PENSTOCK_TRY(take(experts.hidden_, float_bytes(limits.places, limits.expert_width), own));
  PENSTOCK_TRY(take(experts.packed_hidden_, fixed_bytes(limits.places, limits.expert_width), own));
  PENSTOCK_TRY(take(experts.results_, float_bytes(limits.places, limits.hidden_size), shared));
  return experts;
}

void GpuExperts::write_x(Rows x) {
  const auto bytes = static_cast<size_t>(x.width) * sizeof(float);
  for (int64_t t = 0; t < x.count; ++t) {
    std::memcpy(inputs_.host_bytes().data() + layout_.x + static_cast<size_t>(t) * bytes,
                x.row(t).data(), bytes);
  }
}

// The tiles of one expert, whose rows begin at `first` of the lists; those of one row are apart, for
// the kernel that has a row alone.
void GpuExperts::add_tiles(const GpuExpertWork& work, uint32_t first, bool alone) {
  const auto rows = static_cast<uint32_t>(work.places.size());
  for (uint32_t begin = 0; begin < rows; begin += kTileTokens) {
    const uint32_t count = std::min(rows - begin, kTileTokens);
    if ((count == 1) != alone) continue;
    GpuTile tile = {.matrix = work.gate,
                    .up = work.up,
                    .first = first + begin,
                    .count = count,
                    .up_first_row = static_cast<uint32_t>(work.up_first_row)};
    gate_up_tiles_.push_back(tile);
    tile.matrix = work.down;
    down_tiles_.push_back(tile);
  }
}

void GpuExperts::write_tiles(std::span<const GpuExpertWork> works) {
  pairs_.clear();
  gate_up_tiles_.clear();
  down_tiles_.clear();
  for (const bool alone : {true, false}) {
    uint32_t first = 0;
    for (const GpuExpertWork& work : works) {
      add_tiles(work, first, alone);
      first += static_cast<uint32_t>(work.places.size());
    }
    if (alone) lone_tiles_ = static_cast<uint32_t>(gate_up_tiles_.size());
  }
  std::vector<GpuRowPair>& pairs = pairs_;
  for (const GpuExpertWork& work : works) {
    for (size_t j = 0; j < work.places.size(); ++j) {
      pairs.push_back({static_cast<uint32_t>(work.tokens[j]), static_cast<uint32_t>(pairs.size())});
    }
  }
  put(inputs_, layout_.gate_up_list, pairs);
  for (GpuRowPair& pair : pairs) pair.x = pair.result;
  put(inputs_, layout_.down_list, pairs);
  put(inputs_, layout_.gate_up_tiles, gate_up_tiles_);
  put(inputs_, layout_.down_tiles, down_tiles_);
  // From here on: where the caller wants each row of the results.
  size_t row = 0;
  for (const GpuExpertWork& work : works) {
    for (const int32_t place : work.places) pairs[row++].result = static_cast<uint32_t>(place);
  }
}

void GpuExperts::record_product(GpuCommands& commands, GpuProducts::Multiply call,
                                uint64_t tiles) const {
  const auto all = static_cast<uint32_t>(gate_up_tiles_.size());
  call.tiles = tiles;
  call.num_tiles = lone_tiles_;
  call.tile_tokens = 1;
  products_.multiply(commands, call);
  call.tiles = tiles + lone_tiles_ * sizeof(GpuTile);
  call.num_tiles = all - lone_tiles_;
  call.tile_tokens = kTileTokens;
  products_.multiply(commands, call);
}

void GpuExperts::record(GpuCommands& commands, const GpuExpertShape& shape, int64_t tokens) const {
  const int64_t hidden_size = shape.hidden_size, width = shape.expert_width;
  const uint64_t inputs = inputs_.address();
  uint64_t lists = inputs;
  if (rows_ > kListsReadThere) {
    commands.copy(inputs_, layout_.gate_up_list, lists_, 0, layout_.list_bytes());
    commands.barrier();
    lists = lists_.address() - layout_.gate_up_list;
  }
  products_.pack(commands, {.coding = shape.gate_up,
                            .x = inputs + layout_.x,
                            .packed = packed_x_.address(),
                            .columns = hidden_size,
                            .stride = hidden_size,
                            .rows = tokens});
  commands.barrier();
  record_product(commands,
                 {.coding = shape.gate_up,
                  .is_gated = true,
                  .list = lists + layout_.gate_up_list,
                  .packed = packed_x_.address(),
                  .result = hidden_.address(),
                  .columns = hidden_size,
                  .rows = width,
                  .stride = width},
                 lists + layout_.gate_up_tiles);
  commands.barrier();
  products_.pack(commands, {.coding = shape.down,
                            .x = hidden_.address(),
                            .packed = packed_hidden_.address(),
                            .columns = width,
                            .stride = width,
                            .rows = rows_});
  commands.barrier();
  record_product(commands,
                 {.coding = shape.down,
                  .list = lists + layout_.down_list,
                  .packed = packed_hidden_.address(),
                  .result = results_.address(),
                  .columns = width,
                  .rows = hidden_size,
                  .stride = hidden_size},
                 lists + layout_.down_tiles);
}

Result<Fence> GpuExperts::begin(const GpuExpertShape& shape, Rows x,
                                std::span<const GpuExpertWork> works) {
  PENSTOCK_CHECK(shape.can_be_computed() && x.width == shape.hidden_size);
  PENSTOCK_CHECK(shape.hidden_size <= limits_.hidden_size &&
                 shape.expert_width <= limits_.expert_width && x.count <= limits_.tokens);
  PENSTOCK_TRY(device_->compute().wait(fence_));  // an earlier call that nobody finished
  rows_ = 0;
  for (const GpuExpertWork& work : works) {
    PENSTOCK_CHECK(work.tokens.size() == work.places.size());
    rows_ += std::ssize(work.places);
  }
  PENSTOCK_CHECK(rows_ <= limits_.places);
  layout_ = Layout({.tokens = x.count, .places = rows_, .hidden_size = shape.hidden_size});
  write_x(x);
  write_tiles(works);
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  record(commands, shape, x.count);
  results_width_ = shape.hidden_size;
  fence_ = PENSTOCK_TRY(device_->compute().submit(commands));
  return fence_;
}

Result<void> GpuExperts::finish(Rows out) {
  PENSTOCK_TRY(device_->compute().wait(fence_));
  PENSTOCK_CHECK(out.width == results_width_);
  const auto bytes = static_cast<size_t>(out.width) * sizeof(float);
  for (size_t row = 0; row < pairs_.size(); ++row) {
    std::memcpy(out.row(pairs_[row].result).data(), results_.host_bytes().data() + row * bytes,
                bytes);
  }
  return {};
}

}  // namespace penstock
