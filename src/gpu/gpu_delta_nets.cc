#include "gpu/gpu_delta_nets.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

constexpr int64_t kBlockPiecesMax = 32;  // of its matrices

int64_t value_width(const DeltaNetShape& shape) {
  return int64_t{shape.value_heads} * shape.value_dim;
}

int64_t fixed_bytes(int64_t columns) {
  return gpu_fixed_row_bytes((columns + kGroupColumns - 1) / kGroupColumns * kGroupColumns);
}

std::vector<GpuProductUse> uses_of(std::span<const GpuCoding> codings) {
  std::vector<GpuProductUse> uses;
  for (const GpuCoding& coding : codings) uses.push_back({.coding = coding});
  return uses;
}

}  // namespace

// A matrix of a block with its pieces.
struct GpuDeltaNets::BlockMatrix {
  const Matrix* matrix;
  std::span<const GpuPiece> pieces;
  uint64_t result;  // of its product
};

bool GpuDeltaNetLimits::can_be_computed() const {
  return layers > 0 && GpuDeltaNetKernel::suits(shape) && value_width(shape) % kGroupColumns == 0 &&
         hidden_size % kGroupColumns == 0;
}

GpuStatesShape GpuDeltaNetLimits::of_states() const {
  return {.layers = layers,
          .slots = states,
          .history_floats = (shape.conv_kernel - 1) * shape.conv_channels(),
          .memory_floats = value_width(shape) * shape.key_dim};
}

GpuDeltaNets::Layout::Layout(const GpuDeltaNetLimits& limits, int64_t rows, bool is_wave) {
  const DeltaNetShape& shape = limits.shape;
  const auto take = [](uint64_t& so_far, uint64_t& begin, uint64_t bytes) {
    begin = so_far;
    so_far += gpu_aligned(bytes);
  };
  const uint64_t heads = gpu_float_bytes(rows * shape.value_heads);
  const auto mixed_width = value_width(shape);
  take(end, packed_x, static_cast<uint64_t>(rows * fixed_bytes(limits.hidden_size)));
  take(end, qkv, gpu_float_bytes(rows * shape.conv_channels()));
  take(end, z, gpu_float_bytes(rows * mixed_width));
  take(end, b, heads);
  take(end, a, heads);
  take(end, mixed, gpu_float_bytes(rows * mixed_width));
  take(end, lost, heads);
  take(end, packed_mixed, static_cast<uint64_t>(rows * fixed_bytes(mixed_width)));

  take(inputs_end, x, gpu_float_bytes(rows * limits.hidden_size));
  take(inputs_end, host_b, heads);
  take(inputs_end, host_a, heads);
  take(inputs_end, list, static_cast<uint64_t>(rows) * sizeof(GpuRowPair));
  const int64_t tiles_of_piece = (rows + kWideTokens - 1) / kWideTokens;
  take(inputs_end, tiles,
       static_cast<uint64_t>(tiles_of_piece) * kBlockPiecesMax * sizeof(GpuTile));

  take(results_end, y, gpu_float_bytes(rows * limits.hidden_size));
  if (is_wave) {
    take(end, between, gpu_float_bytes(rows * delta_net_between_floats(shape)));
    for (uint64_t& history : histories) {
      take(end, history, gpu_float_bytes(limits.of_states().history_floats));
    }
    return;
  }
  take(end, weights, gpu_float_bytes(limits.layers * delta_net_weight_floats(shape)));
  take(inputs_end, new_weights, gpu_float_bytes(delta_net_weight_floats(shape)));
  take(results_end, journal, gpu_float_bytes(rows * delta_net_journal_floats(shape)));
}

GpuDeltaNets::Bytes GpuDeltaNets::bytes_for(const GpuDeltaNetLimits& limits) {
  const Layout layout(limits, limits.rows, false);
  const GpuStates::Bytes states = GpuStates::bytes_for(limits.of_states());
  const uint64_t journals =
      gpu_float_bytes(limits.layers * kJournalRows * delta_net_journal_floats(limits.shape) +
                      limits.rows * value_width(limits.shape)) +
      static_cast<uint64_t>(limits.layers * kJournalRows) * sizeof(Owed);
  Bytes bytes = {
      .on_device = layout.end + states.on_device,
      .on_host = layout.inputs_end + layout.results_end + kGpuRounding + journals + states.on_host};
  if (limits.wave_rows == 0) return bytes;
  const Layout of_wave(limits, limits.wave_rows, true);
  bytes.on_device += of_wave.end + kGpuRounding;
  bytes.on_host += kWaves * (of_wave.inputs_end + of_wave.results_end + 2 * kGpuRounding);
  return bytes;
}

GpuDeltaNets::GpuDeltaNets(GpuDevice& device, const GpuDeltaNetLimits& limits, HostRows host)
    : device_(&device),
      limits_(limits),
      host_(host),
      layout_(limits, limits.rows, false),
      journals_(static_cast<size_t>(limits.layers * kJournalRows *
                                    delta_net_journal_floats(limits.shape))),
      rows_in_use_(static_cast<size_t>(limits.layers)),
      answers_(static_cast<size_t>(limits.rows * value_width(limits.shape))) {}

Result<GpuDeltaNets> GpuDeltaNets::create(GpuDevice& device, const GpuDeltaNetLimits& limits,
                                          std::span<const GpuCoding> codings, HostRows host) {
  const DeltaNetShape& shape = limits.shape;
  PENSTOCK_CHECK(limits.rows >= 1 && limits.rows <= kTileTokens && limits.can_be_computed());
  GpuDeltaNets nets(device, limits, host);
  nets.owed_.reserve(static_cast<size_t>(limits.layers * kJournalRows));
  nets.states_ = PENSTOCK_TRY(GpuStates::create(device, limits.of_states(), host));
  const auto allocate = [&](uint64_t bytes, GpuMemoryKind kind) {
    return device.allocate(bytes, kind, "rows of delta-nets");
  };
  nets.work_ = PENSTOCK_TRY(allocate(nets.layout_.end, GpuMemoryKind::kDevice));
  nets.inputs_ = PENSTOCK_TRY(allocate(nets.layout_.inputs_end, GpuMemoryKind::kInputs));
  nets.results_ = PENSTOCK_TRY(allocate(nets.layout_.results_end, GpuMemoryKind::kShared));
  nets.products_ = PENSTOCK_TRY(GpuProducts::create(device, uses_of(codings)));
  nets.kernel_ =
      PENSTOCK_TRY(GpuDeltaNetKernel::create(device, shape, limits.sums, limits.wave_rows > 0));
  if (limits.wave_rows > 0 && nets.kernel_.has_many()) PENSTOCK_TRY(nets.make_waves());
  return nets;
}

float* GpuDeltaNets::journal_of(int64_t layer, int64_t row) {
  return journals_.data() + (layer * kJournalRows + row) * delta_net_journal_floats(limits_.shape);
}

bool GpuDeltaNets::takes(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const {
  return block.x.count >= 1 && block.x.count <= limits_.rows && suits(block, pieces);
}

// Whatever its number of rows.
bool GpuDeltaNets::suits(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const {
  if (block.x.width != limits_.hidden_size || block.output.out.width > limits_.hidden_size) {
    return false;
  }
  if (pieces.qkv.empty() || pieces.z.empty() || pieces.output.empty()) return false;
  const int64_t all = std::ssize(pieces.qkv) + std::ssize(pieces.z) + std::ssize(pieces.b) +
                      std::ssize(pieces.a) + std::ssize(pieces.output);
  if (all > kBlockPiecesMax) return false;
  for (const Projection* projection : {&block.qkv, &block.z, &block.b, &block.a, &block.output}) {
    if (projection->bias != nullptr || projection->weight.coded.order != nullptr) return false;
  }
  const DeltaNetShape& shape = block.calls[0].shape;
  PENSTOCK_CHECK(shape.conv_channels() == limits_.shape.conv_channels() &&
                 shape.value_dim == limits_.shape.value_dim);
  int64_t states = 0;
  for (const DeltaNetCall& call : block.calls) {
    PENSTOCK_CHECK(call.qkv.count >= 1);
    const bool is_on_trial = call.ahead.memory != nullptr;
    states += is_on_trial ? 3 : 2;
    // What is read stays as it is: it may be read twice.
    const auto is_read = [&](const DeltaNetCall& other) {
      return other.before.memory == call.after.memory || other.before.memory == call.ahead.memory;
    };
    if (std::ranges::any_of(block.calls, is_read) || (is_on_trial && call.qkv.count < 2)) {
      return false;
    }
  }
  const bool has_room =
      layers_.contains(block.calls[0].weights.conv) || std::ssize(layers_) < limits_.layers;
  return has_room && states <= limits_.states;
}

// Its weights are copied over when it is seen first.
int64_t GpuDeltaNets::layer_of(GpuCommands& commands, const DeltaNetWeights& weights) {
  const auto [place, is_new] = layers_.try_emplace(weights.conv, std::ssize(layers_));
  if (!is_new) return place->second;
  const DeltaNetShape& shape = limits_.shape;
  std::byte* to = few().input(layout_.new_weights);
  const auto append = [&](const float* data, int64_t count) {
    std::memcpy(to, data, static_cast<size_t>(gpu_float_bytes(count)));
    to += gpu_float_bytes(count);
  };
  append(weights.conv, shape.conv_channels() * shape.conv_kernel);
  append(weights.decay, shape.value_heads);
  append(weights.dt_bias, shape.value_heads);
  append(weights.norm, shape.value_dim);
  commands.copy(inputs_, layout_.new_weights, work_, weights_at(place->second),
                gpu_float_bytes(delta_net_weight_floats(shape)));
  return place->second;
}

uint64_t GpuDeltaNets::weights_at(int64_t layer) const {
  return layout_.weights + gpu_float_bytes(layer * delta_net_weight_floats(limits_.shape));
}

void GpuDeltaNets::write_inputs(const Place& at, const DeltaNetBlock& block,
                                const GpuBlockPieces& pieces) const {
  const auto rows = static_cast<uint32_t>(block.x.count);
  const auto copy = [&](Rows from, uint64_t to) {
    const size_t bytes = static_cast<size_t>(gpu_float_bytes(from.width));
    host_.each(from.count, bytes, [&](int64_t t) {
      std::memcpy(at.input(to) + static_cast<size_t>(t) * bytes, from.row(t).data(), bytes);
    });
  };
  copy(block.x, at.layout.x);
  if (pieces.b.empty()) copy(block.b.out, at.layout.host_b);
  if (pieces.a.empty()) copy(block.a.out, at.layout.host_a);
  std::byte* to = at.input(at.layout.list);
  for (uint32_t t = 0; t < rows; ++t, to += sizeof(GpuRowPair)) {
    const GpuRowPair pair = {t, t};
    std::memcpy(to, &pair, sizeof(pair));
  }
  to = at.input(at.layout.tiles);
  const uint32_t tokens = tile_tokens_for(rows);
  for (const auto& of_matrix : {pieces.qkv, pieces.z, pieces.b, pieces.a, pieces.output}) {
    for (const GpuPiece& piece : of_matrix) {
      for (uint32_t first = 0; first < rows; first += tokens, to += sizeof(GpuTile)) {
        const GpuTile tile = {
            .matrix = piece.planes, .first = first, .count = std::min(tokens, rows - first)};
        std::memcpy(to, &tile, sizeof(tile));
      }
    }
  }
}

// Products of packed rows, tiles for each piece from `tile` on.
void GpuDeltaNets::multiply(GpuCommands& commands, const Place& at, int64_t rows,
                            const BlockMatrix& matrix, uint64_t packed, uint64_t tile) const {
  const auto tiles = static_cast<uint32_t>(tiles_for(rows));
  for (const GpuPiece& piece : matrix.pieces) {
    products_.multiply(commands,
                       {.coding = gpu_coding_of(*matrix.matrix),
                        .tile_tokens = rows > 1 ? tile_tokens_for(static_cast<uint32_t>(rows)) : 1,
                        .tiles = tile,
                        .list = at.inputs.address() + at.layout.list,
                        .packed = packed,
                        .result = matrix.result + gpu_float_bytes(piece.first_row),
                        .columns = matrix.matrix->columns,
                        .rows = piece.rows,
                        .stride = matrix.matrix->rows,
                        .num_tiles = tiles});
    tile += tiles * sizeof(GpuTile);
  }
}

void GpuDeltaNets::record_inputs(GpuCommands& commands, const Place& at, const DeltaNetBlock& block,
                                 const GpuBlockPieces& pieces) const {
  const Layout& layout = at.layout;
  const uint64_t work = at.work, inputs = at.inputs.address();
  const BlockMatrix matrices[] = {{&block.qkv.weight, pieces.qkv, work + layout.qkv},
                                  {&block.z.weight, pieces.z, work + layout.z},
                                  {&block.b.weight, pieces.b, work + layout.b},
                                  {&block.a.weight, pieces.a, work + layout.a}};
  const auto tiles = static_cast<uint64_t>(tiles_for(block.x.count));
  // Those whose codes lie so that x is packed for them alike go together.
  std::array<uint32_t, std::size(matrices)> packed = {};
  size_t num_packed = 0;
  for (const BlockMatrix& first : matrices) {
    const GpuCoding packed_for = gpu_coding_of(*first.matrix);
    const bool is_done =
        first.pieces.empty() || std::ranges::count(packed, packed_for.fours_in_word()) > 0;
    if (is_done) continue;
    if (num_packed > 0) commands.barrier();
    packed[num_packed++] = packed_for.fours_in_word();
    products_.pack(commands, {.coding = packed_for,
                              .x = inputs + layout.x,
                              .packed = work + layout.packed_x,
                              .columns = block.x.width,
                              .stride = block.x.width,
                              .rows = block.x.count});
    commands.barrier();
    uint64_t tile = inputs + layout.tiles;
    for (const BlockMatrix& each : matrices) {
      const bool is_alike = !each.pieces.empty() && gpu_coding_of(*each.matrix).fours_in_word() ==
                                                        packed_for.fours_in_word();
      if (is_alike) multiply(commands, at, block.x.count, each, work + layout.packed_x, tile);
      tile += each.pieces.size() * tiles * sizeof(GpuTile);
    }
  }
  commands.barrier();
}

void GpuDeltaNets::record_op(GpuCommands& commands, const DeltaNetBlock& block,
                             const GpuBlockPieces& pieces, int64_t layer) {
  const DeltaNetShape& shape = limits_.shape;
  const uint64_t work = work_.address();
  const int64_t heads = shape.value_heads, width = value_width(shape);
  const uint64_t b = few().b(pieces), a = few().a(pieces);
  calls_.clear();
  states_->begin(layer);
  int64_t first = 0;
  for (const DeltaNetCall& call : block.calls) {
    calls_.push_back({.qkv = work + layout_.qkv + gpu_float_bytes(first * shape.conv_channels()),
                      .z = work + layout_.z + gpu_float_bytes(first * width),
                      .b = b + gpu_float_bytes(first * heads),
                      .a = a + gpu_float_bytes(first * heads),
                      .result = work + layout_.mixed + gpu_float_bytes(first * width),
                      .weights = work + weights_at(layer),
                      .before = states_->read(commands, call.before),
                      .after = states_->write(call.after),
                      .ahead = call.ahead.memory == nullptr ? 0 : states_->write(call.ahead),
                      .journal = results_.address() + layout_.journal +
                                 gpu_float_bytes(first * delta_net_journal_floats(shape)),
                      .lost = work + layout_.lost + gpu_float_bytes(first * heads),
                      .rows = call.qkv.count,
                      .memory_at = limits_.of_states().memory_at()});
    first += call.qkv.count;
  }
  commands.barrier();
  kernel_.run(commands, calls_);
  commands.barrier();
}

void GpuDeltaNets::record_output(GpuCommands& commands, const Place& at, const DeltaNetBlock& block,
                                 const GpuBlockPieces& pieces) const {
  const Matrix& weight = block.output.weight;
  const GpuCoding coding = gpu_coding_of(weight);
  products_.pack(commands, {.coding = coding,
                            .x = at.work + at.layout.mixed,
                            .packed = at.work + at.layout.packed_mixed,
                            .columns = weight.columns,
                            .stride = weight.columns,
                            .rows = block.x.count});
  commands.barrier();
  const int64_t before = tiles_for(block.x.count) * (std::ssize(pieces.qkv) + std::ssize(pieces.z) +
                                                     std::ssize(pieces.b) + std::ssize(pieces.a));
  multiply(commands, at, block.x.count,
           {&weight, pieces.output, at.results.address() + at.layout.y},
           at.work + at.layout.packed_mixed,
           at.inputs.address() + at.layout.tiles + static_cast<uint64_t>(before) * sizeof(GpuTile));
}

void GpuDeltaNets::take_results(const Place& at, Rows y) const {
  const size_t bytes = static_cast<size_t>(gpu_float_bytes(y.width));
  host_.each(y.count, bytes, [&](int64_t t) {
    std::memcpy(y.row(t).data(), at.result(at.layout.y) + static_cast<size_t>(t) * bytes, bytes);
  });
}

Result<void> GpuDeltaNets::begin(const DeltaNetBlock& block, const GpuBlockPieces& pieces) {
  PENSTOCK_DCHECK(takes(block, pieces));
  PENSTOCK_TRY(device_->compute().wait(fence_));  // of a call that nobody finished
  const auto known = layers_.find(block.calls[0].weights.conv);
  if (known != layers_.end() && !has_room(known->second, block)) {
    PENSTOCK_TRY(settle(known->second));
  }
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  layer_ = layer_of(commands, block.calls[0].weights);
  write_inputs(few(), block, pieces);
  record_inputs(commands, few(), block, pieces);
  record_op(commands, block, pieces, layer_);
  record_output(commands, few(), block, pieces);
  fence_ = PENSTOCK_TRY(device_->compute().submit(commands));
  return {};
}

void GpuDeltaNets::note(const DeltaNetState& state) {
  const bool is_known = std::ranges::any_of(
      noted_, [&](const DeltaNetState& other) { return other.memory == state.memory; });
  if (state.memory != nullptr && !is_known) noted_.push_back(state);
}

// States of a layer that lie there alone.
void GpuDeltaNets::note_written(int64_t layer) {
  for (const Owed& owed : owed_) {
    if (owed.layer != layer) continue;
    note(owed.after);
    note(owed.ahead);
  }
}

// Whether the layer's journal takes the rows, and its slots the states beside those that lie there alone.
bool GpuDeltaNets::has_room(int64_t layer, const DeltaNetBlock& block) {
  if (rows_in_use_[static_cast<size_t>(layer)] + block.x.count > kJournalRows) return false;
  noted_.clear();
  note_written(layer);
  for (const DeltaNetCall& call : block.calls) {
    for (const DeltaNetState& state : {call.before, call.after, call.ahead}) note(state);
  }
  return std::ssize(noted_) <= limits_.states;
}

bool GpuDeltaNets::is_awaited(const float* begin, int64_t floats) const {
  const GpuStatesShape shape = limits_.of_states();
  return std::ranges::any_of(owed_, [&](const Owed& owed) {
    return shape.meets(owed.after, begin, floats) || shape.meets(owed.ahead, begin, floats);
  });
}

bool GpuDeltaNets::needs(const float* begin, int64_t floats) const {
  const GpuStatesShape shape = limits_.of_states();
  return is_awaited(begin, floats) || std::ranges::any_of(owed_, [&](const Owed& owed) {
           return shape.meets(owed.before, begin, floats);
         });
}

Result<void> GpuDeltaNets::finish(const DeltaNetBlock& block) {
  PENSTOCK_TRY(device_->compute().wait(fence_));
  const Rows& y = block.output.out;
  take_results(few(), y);
  int64_t& first = rows_in_use_[static_cast<size_t>(layer_)];
  std::memcpy(
      journal_of(layer_, first), few().result(layout_.journal),
      static_cast<size_t>(gpu_float_bytes(y.count * delta_net_journal_floats(limits_.shape))));
  for (const DeltaNetCall& call : block.calls) {
    owed_.push_back({.layer = layer_,
                     .weights = call.weights,
                     .before = call.before,
                     .after = call.after,
                     .ahead = call.ahead,
                     .first = first,
                     .rows = call.qkv.count});
    first += call.qkv.count;
  }
  return {};
}

Result<void> GpuDeltaNets::settle(int64_t layer) {
  noted_.clear();
  note_written(layer);
  if (noted_.empty()) return {};
  PENSTOCK_TRY(states_->bring_back(layer, noted_));
  std::erase_if(owed_, [layer](const Owed& owed) { return owed.layer == layer; });
  rows_in_use_[static_cast<size_t>(layer)] = 0;
  return {};
}

Result<void> GpuDeltaNets::settle() {
  while (!owed_.empty()) PENSTOCK_TRY(settle(owed_.front().layer));
  return {};
}

void GpuDeltaNets::recover(Backend& cpu) {
  const DeltaNetShape& shape = limits_.shape;
  const int64_t channels = shape.conv_channels(), heads = shape.value_heads;
  const int64_t floats = delta_net_journal_floats(shape), width = value_width(shape);
  states_->forget_all();
  for (const Owed& owed : std::exchange(owed_, {})) {
    const Rows inputs = {journal_of(owed.layer, owed.first), owed.rows, floats, floats};
    cpu.delta_net({.shape = shape,
                   .weights = owed.weights,
                   .before = owed.before,
                   .after = owed.after,
                   .ahead = owed.ahead,
                   .qkv = inputs.columns(0, channels),
                   .z = inputs.columns(0, width),  // of answers that nobody wants
                   .b = inputs.columns(channels, heads),
                   .a = inputs.columns(channels + heads, heads),
                   .out = {answers_.data(), owed.rows, width, width}});
  }
}

}  // namespace penstock
