#include "gpu/gpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "base/check.h"
#include "compute/rotation.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

// As shaders/attention.comp has them.
struct AttentionArguments {
  uint64_t queries, gates, segments, scores, result, parts, doubts;
  uint32_t tokens, first_position, kv_heads, first_segment, num_segments, num_tiles;
};
constexpr int64_t kTileRows = 64;

// As shaders/attention_join.comp has them.
struct JoinArguments {
  uint64_t parts, gates, result;
  uint32_t num_segments, first_position, heads, unused;
};

// Rows of a wave. A list of commands has so many products of rows, heads and positions at most: some devices are
// given up when one takes seconds.
constexpr int64_t kRowsAtOnce = 512, kWorkAtOnce = int64_t{1} << 28;
// Calls of few rows are cut by segments as well, as long as so few groups of threads would have work.
constexpr int64_t kPartsRows = 8, kGroupsFew = 32;
// With so many positions a single row is worth a call.
constexpr int64_t kLongContext = 8192;

int64_t ceil_of(int64_t count, int64_t each) {
  return (count + each - 1) / each;
}

int64_t width_of(const AttentionShape& shape) {
  return int64_t{shape.heads} * shape.head_dim;
}

int64_t tiles_of(const AttentionShape& shape, int64_t rows) {
  return ceil_of(rows * (shape.heads / shape.kv_heads), kTileRows);
}

int64_t segments_of(int64_t positions) {
  return ceil_of(positions, kKvPagePositions);
}

}  // namespace

bool GpuAttention::can_be_computed(const GpuAttentionLimits& limits) {
  const AttentionShape& shape = limits.shape;
  const bool suits = limits.layers > 0 && limits.context > 0 && shape.kv_heads > 0 &&
                     shape.heads % shape.kv_heads == 0 && shape.head_dim % 4 == 0 &&
                     shape.head_dim >= 4 && shape.head_dim <= 256;
  if (!suits) return false;
  const Layout layout(limits);
  const uint64_t largest = std::max(
      {layout.work_end, layout.inputs_end, layout.results_end, kStaging * limits.segment_bytes()});
  return largest <= kGpuBlockMax - kGpuRounding;
}

uint64_t GpuAttentionLimits::segment_bytes() const {
  return gpu_aligned(gpu_float_bytes(2 * shape.kv_width() * kKvPagePositions));
}

GpuAttention::Layout::Layout(const GpuAttentionLimits& limits) {
  const AttentionShape& shape = limits.shape;
  const auto take = [](uint64_t& end, uint64_t& begin, int64_t floats) {
    begin = end;
    end += gpu_aligned(gpu_float_bytes(floats));
  };
  rows = std::clamp<int64_t>(limits.groups * kTileRows / shape.heads, 1,
                             std::min(limits.rows, kRowsAtOnce));
  const int64_t of_context = segments_of(limits.context);
  groups = std::max(tiles_of(shape, rows) * shape.kv_heads,
                    std::min(limits.groups, shape.kv_heads * of_context));
  take(work_end, scores, groups * kKvPagePositions * kTileRows);
  take(work_end, parts,
       std::min(rows, kPartsRows) * shape.heads * of_context * (shape.head_dim + 4));
  take(inputs_end, queries, rows * width_of(shape));
  take(inputs_end, gates, rows * width_of(shape));
  take(inputs_end, segments, of_context * 4);
  take(results_end, result, rows * width_of(shape));
  take(results_end, doubts, 1);
}

GpuAttention::Bytes GpuAttention::bytes_for(const GpuAttentionLimits& limits) {
  const Layout layout(limits);
  const uint64_t segment = limits.segment_bytes();
  const uint64_t in_block = (kGpuBlockMax - kGpuRounding) / segment;
  const auto count = static_cast<uint64_t>(limits.segments);
  return {.on_device = layout.work_end + count * segment +
                       (2 + (count + in_block - 1) / in_block) * kGpuRounding,
          .on_host = layout.inputs_end + layout.results_end + kStaging * segment +
                     gpu_float_bytes(layout.rows * width_of(limits.shape)) + 3 * kGpuRounding};
}

GpuAttention::GpuAttention(GpuDevice& device, const GpuAttentionLimits& limits, HostRows host)
    : device_(&device),
      limits_(limits),
      host_(host),
      layout_(limits),
      segments_in_block_(
          static_cast<int64_t>((kGpuBlockMax - kGpuRounding) / limits.segment_bytes())),
      segments_(static_cast<size_t>(limits.segments)),
      normed_(static_cast<size_t>(layout_.rows * width_of(limits.shape))) {}

Result<GpuAttention> GpuAttention::create(GpuDevice& device, const GpuAttentionLimits& limits,
                                          HostRows host) {
  PENSTOCK_CHECK(can_be_computed(limits) && limits.segments > 0 && limits.rows >= 1);
  GpuAttention made(device, limits, host);
  const bool is_own = limits.sums == DeltaNetSums::kOwn;
  if (is_own && !PENSTOCK_TRY(has_right_fused(device, int64_t{1} << 14))) return made;
  const auto allocate = [&](uint64_t bytes, GpuMemoryKind kind, const char* purpose) {
    return device.allocate(bytes, kind, purpose);
  };
  const Layout& layout = made.layout_;
  made.work_ = PENSTOCK_TRY(allocate(layout.work_end, GpuMemoryKind::kDevice, "attention"));
  made.inputs_ = PENSTOCK_TRY(allocate(layout.inputs_end, GpuMemoryKind::kInputs, "attention"));
  made.results_ = PENSTOCK_TRY(allocate(layout.results_end, GpuMemoryKind::kShared, "attention"));
  made.staging_ = PENSTOCK_TRY(
      allocate(kStaging * limits.segment_bytes(), GpuMemoryKind::kShared, "keys and values"));
  for (int64_t left = limits.segments; left > 0; left -= made.segments_in_block_) {
    const auto count = static_cast<uint64_t>(std::min(left, made.segments_in_block_));
    made.blocks_.push_back(PENSTOCK_TRY(
        allocate(count * limits.segment_bytes(), GpuMemoryKind::kDevice, "keys and values")));
  }
  PENSTOCK_TRY(made.compile(limits.sums));
  made.sums_ = limits.sums;
  if (is_own && !PENSTOCK_TRY(made.agrees())) made.sums_ = DeltaNetSums::kWhole;
  return made;
}

Result<void> GpuAttention::compile(DeltaNetSums sums) {
  const AttentionShape& shape = limits_.shape;
  const auto dim = static_cast<uint32_t>(shape.head_dim);
  const uint32_t constants[] = {dim, static_cast<uint32_t>(shape.heads / shape.kv_heads),
                                static_cast<uint32_t>(sums)};
  kernel_ = PENSTOCK_TRY(device_->kernel(Shader::kAttention, constants));
  join_ = PENSTOCK_TRY(device_->kernel(Shader::kAttentionJoin, std::span(&dim, 1)));
  return {};
}

int64_t GpuAttention::cached_floats() const {
  return limits_.shape.kv_width() * kKvPagePositions;
}

uint64_t GpuAttention::address_of(size_t segment) const {
  const auto in_block = static_cast<size_t>(segments_in_block_);
  return blocks_[segment / in_block].address() + segment % in_block * limits_.segment_bytes();
}

void GpuAttention::note_written(const AttentionCall& call) {
  int64_t page = call.first_position / kKvPagePositions;
  const int64_t end = segments_of(call.first_position + call.k.count);
  for (; page < end; ++page) {
    const auto found = by_keys_.find(call.cache.pages[static_cast<size_t>(page)] + call.cache.keys);
    if (found == by_keys_.end()) continue;
    int64_t& positions = segments_[found->second].positions;
    const int64_t first = call.first_position - page * kKvPagePositions;
    positions = std::min(positions, std::max<int64_t>(0, first));
  }
}

void GpuAttention::forget(const float* begin, int64_t floats) {
  if (begin >= highest_ || begin + floats <= lowest_) return;
  const auto overlap = [&](const float* data) {
    return data < begin + floats && begin < data + cached_floats();
  };
  for (Segment& segment : segments_) {
    if (segment.keys == nullptr) continue;
    if (overlap(segment.keys) || overlap(segment.values)) segment.positions = 0;
  }
}

bool GpuAttention::takes(const AttentionCall& call) const {
  const int64_t context = call.first_position + call.k.count;
  const bool is_long = call.k.count * context >= limits_.work_least || context >= kLongContext;
  return is_long && call.cache.form == KvForm::kFloat32 && call.out.count == call.k.count &&
         call.k.count >= 1 && call.shape == limits_.shape && context <= limits_.context &&
         segments_of(context) <= limits_.segments;
}

// Where the copy of a segment is, or will be: the one that nobody asked for longest goes.
size_t GpuAttention::find_or_claim(const float* keys, const float* values) {
  const auto [place, is_new] = by_keys_.try_emplace(keys, 0);
  if (!is_new) return place->second;
  const auto oldest = std::ranges::min_element(segments_, {}, &Segment::last_use);
  const auto index = static_cast<size_t>(oldest - segments_.begin());
  place->second = index;
  if (oldest->keys != nullptr) by_keys_.erase(oldest->keys);
  *oldest = {.keys = keys, .values = values};
  for (const float* part : {keys, values}) {
    const float* end = part + cached_floats();
    lowest_ = lowest_ == nullptr ? part : std::min(lowest_, part);
    highest_ = highest_ == nullptr ? end : std::max(highest_, end);
  }
  return index;
}

// What the device lacks of the call's keys and values, as many segments at a time as there is staging memory for.
Result<void> GpuAttention::bring(const AttentionCall& call) {
  const AttentionShape& shape = limits_.shape;
  const int64_t context = call.first_position + call.k.count, dim = shape.head_dim;
  const uint64_t values_at = gpu_float_bytes(cached_floats());
  auto* table = reinterpret_cast<uint64_t*>(inputs_.host_bytes().data() + layout_.segments);
  brought_ = 0;
  ++uses_;
  int64_t page = 0;
  const int64_t pages = segments_of(context);
  while (page < pages) {
    GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
    int64_t staged = 0;
    for (; page < pages && staged < kStaging; ++page) {
      const float* begin = call.cache.pages[static_cast<size_t>(page)];
      const float* parts[] = {begin + call.cache.keys, begin + call.cache.values};
      const size_t index = find_or_claim(parts[0], parts[1]);
      Segment& segment = segments_[index];
      segment.last_use = uses_;
      table[2 * page] = address_of(index);
      table[2 * page + 1] = address_of(index) + values_at;
      const int64_t wanted = std::min(context - page * kKvPagePositions, kKvPagePositions);
      const int64_t count = wanted - segment.positions;
      if (count <= 0) continue;
      const uint64_t staging = static_cast<uint64_t>(staged++) * limits_.segment_bytes();
      const auto in_block = static_cast<size_t>(segments_in_block_);
      for (int64_t head = 0; head < 2 * shape.kv_heads; ++head) {
        // Keys of all heads, then values.
        const int64_t of_part = head % shape.kv_heads * kKvPagePositions + segment.positions;
        const float* from = parts[head / shape.kv_heads] + of_part * dim;
        const uint64_t offset =
            gpu_float_bytes((head * kKvPagePositions + segment.positions) * dim);
        const uint64_t bytes = gpu_float_bytes(count * dim);
        host_.copy(std::as_bytes(std::span(from, static_cast<size_t>(count * dim))),
                   staging_.host_bytes().data() + staging + offset);
        commands.copy(staging_, staging + offset, blocks_[index / in_block],
                      index % in_block * limits_.segment_bytes() + offset, bytes);
      }
      segment.positions = wanted;
      brought_ += count;
    }
    if (staged == 0) continue;
    // The last list is in order with what follows; staging memory is written again only behind it.
    const Fence fence = PENSTOCK_TRY(device_->compute().submit(commands));
    if (page < pages) PENSTOCK_TRY(device_->compute().wait(fence));
  }
  return {};
}

// Queries, normed, rotated and scaled, and gates.
void GpuAttention::write_inputs(const AttentionCall& part, Backend& cpu) {
  const AttentionShape& shape = limits_.shape;
  const int64_t dim = shape.head_dim, width = width_of(shape), rows = part.k.count;
  const int64_t apart = (shape.output_gate ? 2 : 1) * dim;
  const Rows normed = {normed_.data(), rows, width, width};
  const std::span<const float> weight(part.weights.q_norm, static_cast<size_t>(dim));
  if (part.q.stride == shape.heads * apart) {
    cpu.rms_norm({part.q.data, rows * shape.heads, dim, apart}, weight, shape.rms_norm_eps,
                 {normed_.data(), rows * shape.heads, dim, dim});
  } else {
    for (int64_t head = 0; head < shape.heads; ++head) {
      cpu.rms_norm(part.q.columns(head * apart, dim), weight, shape.rms_norm_eps,
                   normed.columns(head * dim, dim));
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const int64_t half = shape.rotary_dim / 2;
  std::byte* inputs = inputs_.host_bytes().data();
  const auto bytes = static_cast<size_t>(gpu_float_bytes(dim));
  host_.each(rows, gpu_float_bytes(2 * width), [&](int64_t t) {
    const int64_t position = part.first_position + t;
    for (int64_t head = 0; head < shape.heads; ++head) {
      float* query = normed.row(t).data() + head * dim;
      rotate_pairs(query, part.rope.cos + position * half, part.rope.sin + position * half, half);
      for (int64_t i = 0; i < dim; ++i) query[i] *= scale;
      const uint64_t at = gpu_float_bytes(t * width + head * dim);
      std::memcpy(inputs + layout_.queries + at, query, bytes);
      if (!shape.output_gate) continue;
      std::memcpy(inputs + layout_.gates + at, part.q.row(t).data() + head * apart + dim, bytes);
    }
  });
}

void GpuAttention::record(GpuCommands& commands, const AttentionCall& part) const {
  const AttentionShape& shape = limits_.shape;
  const int64_t rows = part.k.count, segments = segments_of(part.first_position + rows);
  const int64_t tiles = tiles_of(shape, rows), groups = tiles * shape.kv_heads;
  const bool in_parts = rows <= kPartsRows && groups < kGroupsFew && segments > 1;
  AttentionArguments arguments = {
      .queries = inputs_.address() + layout_.queries,
      .gates = shape.output_gate ? inputs_.address() + layout_.gates : 0,
      .segments = inputs_.address() + layout_.segments,
      .scores = work_.address() + layout_.scores,
      .result = results_.address() + layout_.result,
      .parts = in_parts ? work_.address() + layout_.parts : 0,
      .doubts = results_.address() + layout_.doubts,
      .tokens = static_cast<uint32_t>(rows),
      .first_position = static_cast<uint32_t>(part.first_position),
      .kv_heads = static_cast<uint32_t>(shape.kv_heads),
      .first_segment = 0,
      .num_segments = static_cast<uint32_t>(segments),
      .num_tiles = static_cast<uint32_t>(tiles)};
  const auto x = static_cast<uint32_t>(groups);
  if (!in_parts) return commands.dispatch(kernel_, arguments, {x, 1});
  const int64_t at_once = layout_.groups / groups;
  for (int64_t first = 0; first < segments; first += at_once) {
    if (first > 0) commands.barrier();  // they share scratch memory
    arguments.first_segment = static_cast<uint32_t>(first);
    commands.dispatch(kernel_, arguments,
                      {x, static_cast<uint32_t>(std::min(at_once, segments - first))});
  }
  commands.barrier();
  commands.dispatch(join_,
                    JoinArguments{.parts = arguments.parts,
                                  .gates = arguments.gates,
                                  .result = arguments.result,
                                  .num_segments = arguments.num_segments,
                                  .first_position = arguments.first_position,
                                  .heads = static_cast<uint32_t>(shape.heads),
                                  .unused = 0},
                    {static_cast<uint32_t>(rows * shape.heads), 1});
}

Result<bool> GpuAttention::run(const AttentionCall& call, Backend& cpu,
                               const std::function<void()>& meanwhile) {
  PENSTOCK_TRY(bring(call));
  const auto bytes = static_cast<size_t>(gpu_float_bytes(width_of(limits_.shape)));
  std::byte* results = results_.host_bytes().data();
  const int64_t context = call.first_position + call.k.count;
  const int64_t at_once =
      std::clamp<int64_t>(kWorkAtOnce / (limits_.shape.heads * context), 1, layout_.rows);
  for (int64_t first = 0; first < call.k.count; first += at_once) {
    const int64_t rows = std::min(at_once, call.k.count - first);
    AttentionCall part = call;
    part.first_position += first;
    part.q = call.q.slice(first, rows);
    part.k = call.k.slice(first, rows);
    part.out = call.out.slice(first, rows);
    write_inputs(part, cpu);
    std::memset(results + layout_.doubts, 0, sizeof(uint32_t));
    GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
    record(commands, part);
    const Fence fence = PENSTOCK_TRY(device_->compute().submit(commands));
    if (meanwhile) meanwhile();
    PENSTOCK_TRY(device_->compute().wait(fence));
    uint32_t doubts = 0;
    std::memcpy(&doubts, results + layout_.doubts, sizeof(doubts));
    if (doubts != 0) return false;
    host_.each(rows, bytes, [&](int64_t t) {
      std::memcpy(part.out.row(t).data(), results + layout_.result + static_cast<size_t>(t) * bytes,
                  bytes);
    });
  }
  return true;
}

// Whether the device's own sums give what whole numbers give: a driver may do in one kernel what it does not do in
// another. Of two segments, the second of which is short, by a row alone and by some.
Result<bool> GpuAttention::agrees() {
  constexpr int64_t kMore = 9;
  const int64_t context =
      std::min({kKvPagePositions + kMore, limits_.context, limits_.segments * kKvPagePositions});
  const int64_t rows = std::min(kMore, layout_.rows), width = width_of(limits_.shape);
  std::mt19937 engine(3);
  std::normal_distribution<float> normal;
  const auto fill = [&](float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = normal(engine);
  };
  std::vector<std::vector<float>> pages;
  std::vector<float*> begins;
  for (int64_t page = 0; page < segments_of(context); ++page) {
    pages.emplace_back(static_cast<size_t>(2 * cached_floats()));
    fill(pages.back().data(), 2 * cached_floats());
    begins.push_back(pages.back().data());
  }
  std::vector<float> inputs(static_cast<size_t>(rows * width));
  for (const uint64_t to : {layout_.queries, layout_.gates}) {
    fill(inputs.data(), rows * width);
    std::memcpy(inputs_.host_bytes().data() + to, inputs.data(), inputs.size() * sizeof(float));
  }
  bool is_right = true;
  for (const int64_t count : {int64_t{1}, rows}) {
    const Rows some = {nullptr, count, 0, 0};
    const AttentionCall call = {.shape = limits_.shape,
                                .weights = {},
                                .rope = {},
                                .cache = {.pages = begins, .keys = 0, .values = cached_floats()},
                                .first_position = std::max<int64_t>(context - count, 0),
                                .q = some,
                                .k = some,
                                .v = some,
                                .out = some};
    const std::vector<float> own = PENSTOCK_TRY(look_at(call));
    const GpuKernel kernel = kernel_;
    PENSTOCK_TRY(compile(DeltaNetSums::kWhole));
    const std::vector<float> whole = PENSTOCK_TRY(look_at(call));
    kernel_ = kernel;
    is_right = is_right && std::memcmp(own.data(), whole.data(), own.size() * sizeof(float)) == 0;
  }
  by_keys_.clear();
  std::ranges::fill(segments_, Segment());
  return is_right;
}

Result<std::vector<float>> GpuAttention::look_at(const AttentionCall& call) {
  PENSTOCK_TRY(bring(call));
  GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
  record(commands, call);
  PENSTOCK_TRY(device_->compute().finish(commands));
  std::vector<float> found(static_cast<size_t>(call.k.count * width_of(limits_.shape)));
  std::memcpy(found.data(), results_.host_bytes().data() + layout_.result,
              found.size() * sizeof(float));
  return found;
}

}  // namespace penstock
