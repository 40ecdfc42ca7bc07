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

// Where the next ones go.
template <class T>
std::byte* put(std::byte* to, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(to, values.data(), values.size() * sizeof(T));
  return to + values.size() * sizeof(T);
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

// Calls of so many rows go whole: in two parts they would begin and end twice.
constexpr int64_t kWholeMost = 128;

}  // namespace

int64_t GpuExperts::half_of(int64_t places) {
  return std::max<int64_t>(1, places / 2);
}

// No call has more tiles than rows.
GpuExperts::Layout::Layout(int64_t places) {
  const auto count = static_cast<uint64_t>(places);
  down_list = gate_up_list + gpu_aligned(count * sizeof(GpuRowPair));
  gate_up_tiles = down_list + gpu_aligned(count * sizeof(GpuRowPair));
  down_tiles = gate_up_tiles + gpu_aligned(count * sizeof(GpuTile));
  end = down_tiles + gpu_aligned(count * sizeof(GpuTile));
}

GpuExperts::Bytes GpuExperts::bytes_for(const GpuExpertLimits& limits) {
  const uint64_t lists =
      std::max(Layout(limits.places).end, 2 * Layout(half_of(limits.places)).end);
  return {
      .on_device = Layout(limits.places).end + fixed_bytes(limits.tokens, limits.hidden_size) +
                   float_bytes(limits.places, limits.expert_width) +
                   fixed_bytes(limits.places, limits.expert_width),
      .on_host = lists + float_bytes(limits.tokens, limits.hidden_size) +
                 float_bytes(limits.places, limits.hidden_size),
  };
}

GpuExperts::GpuExperts(GpuDevice& device, const GpuExpertLimits& limits,
                       const GpuProducts& products, HostRows host)
    : device_(&device), limits_(limits), host_(host), products_(products) {
  const int64_t half = half_of(limits.places);
  calls_[1].lists = Layout(half).end;
  calls_[1].results = float_bytes(half, limits.hidden_size);
  tiles_[1].tokens = kTileTokens;
  tiles_[2].tokens = kWideTokens;
}

Result<GpuExperts> GpuExperts::create(GpuDevice& device, const GpuExpertLimits& limits,
                                      std::span<const GpuExpertShape> shapes, HostRows host) {
  PENSTOCK_CHECK(limits.tokens > 0 && limits.places > 0);
  GpuExperts experts(device, limits, PENSTOCK_TRY(GpuProducts::create(device, expert_uses(shapes))),
                     host);
  const auto take = [&](GpuBuffer& buffer, uint64_t bytes, GpuMemoryKind kind) -> Result<void> {
    buffer = PENSTOCK_TRY(device.allocate(bytes, kind, "rows of experts"));
    return {};
  };
  const auto own = GpuMemoryKind::kDevice, inputs = GpuMemoryKind::kInputs;
  const uint64_t x = float_bytes(limits.tokens, limits.hidden_size);
  const uint64_t results = float_bytes(limits.places, limits.hidden_size);
  PENSTOCK_TRY(take(experts.x_, x, inputs));
  PENSTOCK_TRY(take(experts.lists_, bytes_for(limits).on_host - x - results, inputs));
  PENSTOCK_TRY(take(experts.results_, results, GpuMemoryKind::kShared));
  PENSTOCK_TRY(take(experts.own_lists_, Layout(limits.places).end, own));
  PENSTOCK_TRY(take(experts.packed_x_, fixed_bytes(limits.tokens, limits.hidden_size), own));
  PENSTOCK_TRY(take(experts.hidden_, float_bytes(limits.places, limits.expert_width), own));
  PENSTOCK_TRY(take(experts.packed_hidden_, fixed_bytes(limits.places, limits.expert_width), own));
  return experts;
}

int64_t GpuExperts::rows_at_once(int64_t rows) const {
  return rows <= std::min(kWholeMost, limits_.places) ? rows : half_of(limits_.places);
}

// The tiles of one expert, whose rows begin at `first` of the lists, each for the kernel that has so
// many rows.
void GpuExperts::add_tiles(const GpuExpertWork& work, uint32_t first) {
  const auto rows = static_cast<uint32_t>(work.places.size());
  const uint32_t each = tile_tokens_for(rows);
  for (uint32_t begin = 0; begin < rows; begin += each) {
    const uint32_t count = std::min(rows - begin, each);
    Tiles& tiles = tiles_[count == 1 ? 0 : count <= kTileTokens ? 1 : 2];
    GpuTile tile = {.matrix = work.gate,
                    .up = work.up,
                    .first = first + begin,
                    .count = count,
                    .up_first_row = static_cast<uint32_t>(work.up_first_row)};
    tiles.gate_up.push_back(tile);
    tile.matrix = work.down;
    tiles.down.push_back(tile);
  }
}

void GpuExperts::write_lists(Call& call, std::span<const GpuExpertWork> works) {
  for (Tiles& tiles : tiles_) {
    tiles.gate_up.clear();
    tiles.down.clear();
  }
  std::vector<GpuRowPair>& pairs = call.pairs;
  pairs.clear();
  for (const GpuExpertWork& work : works) {
    add_tiles(work, static_cast<uint32_t>(pairs.size()));
    for (const int32_t token : work.tokens) {
      pairs.push_back({static_cast<uint32_t>(token), static_cast<uint32_t>(pairs.size())});
    }
  }
  std::byte* lists = lists_.host_bytes().data() + call.lists;
  put(lists + call.layout.gate_up_list, pairs);
  for (GpuRowPair& pair : pairs) pair.x = pair.result;
  put(lists + call.layout.down_list, pairs);
  std::byte* gate_up = lists + call.layout.gate_up_tiles;
  std::byte* down = lists + call.layout.down_tiles;
  for (const Tiles& tiles : tiles_) {
    gate_up = put(gate_up, tiles.gate_up);
    down = put(down, tiles.down);
  }
  // From here on: where the caller wants each row of the results.
  size_t row = 0;
  for (const GpuExpertWork& work : works) {
    for (const int32_t place : work.places) pairs[row++].result = static_cast<uint32_t>(place);
  }
}

void GpuExperts::record_product(GpuCommands& commands, GpuProducts::Multiply call,
                                uint64_t tiles) const {
  call.tiles = tiles;
  for (const Tiles& of_kernel : tiles_) {
    call.num_tiles = static_cast<uint32_t>(of_kernel.down.size());
    call.tile_tokens = of_kernel.tokens;
    products_.multiply(commands, call);
    call.tiles += call.num_tiles * sizeof(GpuTile);
  }
}

void GpuExperts::record(GpuCommands& commands, const Call& call) {
  const int64_t hidden_size = shape_.hidden_size, width = shape_.expert_width;
  const auto rows = std::ssize(call.pairs);
  const Layout& layout = call.layout;
  uint64_t lists = lists_.address() + call.lists;
  if (rows > kListsReadThere) {
    commands.copy(lists_, call.lists, own_lists_, 0, layout.end);
    lists = own_lists_.address();
  }
  if (!is_packed_) {
    products_.pack(commands, {.coding = shape_.gate_up,
                              .x = x_.address(),
                              .packed = packed_x_.address(),
                              .columns = hidden_size,
                              .stride = hidden_size,
                              .rows = tokens_});
    is_packed_ = true;
  }
  commands.barrier();
  record_product(commands,
                 {.coding = shape_.gate_up,
                  .is_gated = true,
                  .list = lists + layout.gate_up_list,
                  .packed = packed_x_.address(),
                  .result = hidden_.address(),
                  .columns = hidden_size,
                  .rows = width,
                  .stride = width},
                 lists + layout.gate_up_tiles);
  commands.barrier();
  products_.pack(commands, {.coding = shape_.down,
                            .x = hidden_.address(),
                            .packed = packed_hidden_.address(),
                            .columns = width,
                            .stride = width,
                            .rows = rows});
  commands.barrier();
  record_product(commands,
                 {.coding = shape_.down,
                  .list = lists + layout.down_list,
                  .packed = packed_hidden_.address(),
                  .result = results_.address() + call.results,
                  .columns = width,
                  .rows = hidden_size,
                  .stride = hidden_size},
                 lists + layout.down_tiles);
}

Result<void> GpuExperts::take(const GpuExpertShape& shape, Rows x) {
  PENSTOCK_CHECK(shape.can_be_computed() && x.width == shape.hidden_size);
  PENSTOCK_CHECK(shape.hidden_size <= limits_.hidden_size &&
                 shape.expert_width <= limits_.expert_width && x.count <= limits_.tokens);
  PENSTOCK_TRY(drop());  // earlier calls that nobody finished
  shape_ = shape;
  tokens_ = x.count;
  is_packed_ = false;
  const auto bytes = static_cast<size_t>(float_bytes(1, x.width));
  std::byte* to = x_.host_bytes().data();
  host_.each(x.count, bytes, [&](int64_t t) {
    std::memcpy(to + static_cast<size_t>(t) * bytes, x.row(t).data(), bytes);
  });
  return {};
}

Result<void> GpuExperts::begin(std::span<const GpuExpertWork> works) {
  int64_t rows = 0;
  for (const GpuExpertWork& work : works) {
    PENSTOCK_CHECK(work.tokens.size() == work.places.size());
    rows += std::ssize(work.places);
  }
  const bool is_half = rows <= half_of(limits_.places);
  PENSTOCK_CHECK(rows <= limits_.places && has_room(rows));
  if (under_way_ == 0) next_ = 0;
  is_alone_ = !is_half;
  Call& call = calls_[static_cast<size_t>(next_)];
  call.layout = Layout(rows);
  write_lists(call, works);
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  record(commands, call);
  last_ = call.fence = PENSTOCK_TRY(device_->compute().submit(commands));
  next_ = (next_ + 1) % kCalls;
  ++under_way_;
  return {};
}

Result<void> GpuExperts::drop() {
  under_way_ = 0;
  return device_->compute().wait(last_);
}

const GpuExperts::Call& GpuExperts::oldest() const {
  return calls_[static_cast<size_t>((next_ + kCalls - under_way_) % kCalls)];
}

Result<bool> GpuExperts::has_ended() const {
  PENSTOCK_CHECK(under_way_ > 0);
  return device_->compute().has_passed(oldest().fence);
}

Result<void> GpuExperts::finish(Rows out) {
  PENSTOCK_CHECK(under_way_ > 0 && out.width == shape_.hidden_size);
  const Call& call = oldest();
  PENSTOCK_TRY(device_->compute().wait(call.fence));
  --under_way_;
  const auto bytes = static_cast<size_t>(float_bytes(1, out.width));
  const std::byte* from = results_.host_bytes().data() + call.results;
  host_.each(std::ssize(call.pairs), bytes, [&](int64_t row) {
    const auto r = static_cast<size_t>(row);
    std::memcpy(out.row(call.pairs[r].result).data(), from + r * bytes, bytes);
  });
  return {};
}

}  // namespace penstock
