#include "compute/cpu/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "compute/rotation.h"

namespace penstock {
namespace {

// Decode steps of up to this many tokens are cut by segments as well.
constexpr int64_t kSplitTokens = 4;
// Of components that are mixed, so many stay together.
constexpr int64_t kComponentsTogether = 16;
// Contexts of fewer positions are not cut: a thread is done with them before a team has met.
constexpr int64_t kSlicedPositions = 64;

}  // namespace

// The query rows [first, first + count) of a kv head; row = token * heads per kv head + head.
struct Attention::Tile {
  int64_t kv_head, group, first, count;
  int lanes;
  int64_t positions;  // that the last row may see
  float* queries;     // [head_dim, lanes]
  float* scores;      // [kSegmentPositions, lanes]
  float* weights;     // likewise
  float* mixed;       // [lanes, head_dim], of a segment
  float* running;     // [lanes, head_dim], of all segments so far
  float* head;        // [head_dim]
  float* decoded;     // [kSegmentPositions, head_dim]; nullptr: the cache is not in codes
  std::array<int32_t, kQueryLanes> limits;
  std::array<float, kQueryLanes> maxima, sums;

  int64_t token(int64_t r) const { return (first + r) / group; }
  int64_t head_of(int64_t r) const { return kv_head * group + (first + r) % group; }
};

// One of `count` slices of a segment of a tile.
struct Attention::Slice {
  int64_t kv_head, first_row, segment, segments, index, count;
  float* scores;  // of all slices of the segment

  int64_t begin_of(int64_t all) const { return all * index / count; }
  int64_t end_of(int64_t all) const { return all * (index + 1) / count; }
};

AttentionScratch::AttentionScratch(int threads, const BackendLimits& limits,
                                   ScratchCursor& cursor) {
  const AttentionShape& shape = limits.attention;
  max_tokens = limits.tokens;
  max_context = limits.context;
  worker_floats = kQueryLanes * (3LL * shape.head_dim + 2 * kSegmentPositions) +
                  ceil_div(shape.head_dim, 16) * 16;
  decodes = limits.kv_form != KvForm::kFloat32;
  if (decodes) worker_floats += ceil_div(kSegmentPositions * shape.head_dim, 16) * 16;
  workers = cursor.take<float>(shape.heads == 0 ? 0 : threads * worker_floats);
  partials = cursor.take<float>(std::min(limits.tokens, kSplitTokens) * shape.heads *
                                ceil_div(limits.context, kSegmentPositions) * (shape.head_dim + 2));
}

Attention::Attention(ThreadPool& pool, int64_t target, const AttentionScratch& scratch)
    : pool_(pool),
      elementwise_(elementwise_kernels(target)),
      kernels_(attention_kernels(target)),
      scratch_(scratch) {}

void Attention::run(const AttentionCall& call) {
  const AttentionShape& shape = call.shape;
  const int64_t tokens = call.k.count;
  const int64_t context = call.first_position + tokens;
  PENSTOCK_CHECK(tokens <= scratch_.max_tokens && context <= scratch_.max_context);
  PENSTOCK_CHECK(context <= call.cache.capacity());
  PENSTOCK_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  PENSTOCK_CHECK(call.cache.form == KvForm::kFloat32 || scratch_.decodes);

  pool_.run(tokens, [&](int64_t token, int worker) {
    for (int64_t head = 0; head < shape.kv_heads; ++head) append(call, token, head, worker);
  });
  if (call.out.count == 0) return;
  PENSTOCK_CHECK(call.q.width == shape.query_width());
  const int64_t rows = tokens * (shape.heads / shape.kv_heads);
  const int64_t tiles = ceil_div(rows, kQueryLanes);
  const int64_t segments = ceil_div(context, kSegmentPositions);
  const bool is_sliced =
      tokens <= kSplitTokens && context >= kSlicedPositions && call.cache.form == KvForm::kFloat32;
  const int64_t slices = pool_.num_threads() / (shape.kv_heads * tiles * segments);
  if (is_sliced && slices > 1) return run_slices(call, tiles, segments, slices);
  const bool enough_tiles = tiles * shape.kv_heads >= 4 * pool_.num_threads();
  if (segments == 1 || tokens > kSplitTokens || enough_tiles) {
    pool_.run(shape.kv_heads * tiles, [&](int64_t task, int worker) {
      run_tile(call, task / tiles, task % tiles * kQueryLanes, worker);
    });
    return;
  }
  pool_.run(shape.kv_heads * tiles * segments, [&](int64_t task, int worker) {
    const int64_t tile = task / segments;
    run_part(call, tile / tiles, tile % tiles * kQueryLanes, task % segments, worker);
  });
  pool_.run(tokens * shape.heads, [&](int64_t task, int worker) {
    join_parts(call, task / shape.heads, task % shape.heads, worker);
  });
}

void Attention::rotated_norm(const AttentionCall& call, const float* x, const float* weight,
                             int64_t position, float* out) const {
  elementwise_.rms_norm(x, weight, call.shape.rms_norm_eps, call.shape.head_dim, out);
  const int64_t half = call.shape.rotary_dim / 2;
  rotate_pairs(out, call.rope.cos + position * half, call.rope.sin + position * half, half);
}

void Attention::append(const AttentionCall& call, int64_t token, int64_t kv_head,
                       int worker) const {
  const int64_t dim = call.shape.head_dim;
  const int64_t position = call.first_position + token;
  float* page = call.cache.pages[static_cast<size_t>(position / kKvPagePositions)];
  const int64_t place = (kv_head * kKvPagePositions + position % kKvPagePositions) *
                        kv_row_floats(call.cache.form, dim);
  float* key_place = page + call.cache.keys + place;
  float* value_place = page + call.cache.values + place;
  const float* k = call.k.data + token * call.k.stride + kv_head * dim;
  const float* v = call.v.data + token * call.v.stride + kv_head * dim;
  if (call.cache.form == KvForm::kFloat32) {
    rotated_norm(call, k, call.weights.k_norm, position, key_place);
    std::copy_n(v, dim, value_place);
    return;
  }
  float* key = scratch_.workers + worker * scratch_.worker_floats;
  rotated_norm(call, k, call.weights.k_norm, position, key);
  encode_kv(key, dim, key_place);
  encode_kv(v, dim, value_place);
}

Attention::Tile Attention::make_tile(const AttentionCall& call, int64_t kv_head, int64_t first_row,
                                     int worker) const {
  const AttentionShape& shape = call.shape;
  const int64_t dim = shape.head_dim;
  Tile tile;
  tile.kv_head = kv_head;
  tile.group = shape.heads / shape.kv_heads;
  tile.first = first_row;
  tile.count = std::min<int64_t>(kQueryLanes, call.k.count * tile.group - first_row);
  tile.lanes = tile.count <= 8 ? 8 : 16;
  tile.queries = scratch_.workers + worker * scratch_.worker_floats;
  tile.mixed = tile.queries + kQueryLanes * dim;
  tile.running = tile.mixed + kQueryLanes * dim;
  tile.scores = tile.running + kQueryLanes * dim;
  tile.weights = tile.scores + kQueryLanes * kSegmentPositions;
  tile.head = tile.weights + kQueryLanes * kSegmentPositions;
  const bool decodes = call.cache.form != KvForm::kFloat32;
  tile.decoded = decodes ? tile.head + ceil_div(dim, 16) * 16 : nullptr;
  tile.positions = call.first_position + tile.token(tile.count - 1) + 1;
  return tile;
}

void Attention::take_queries(const AttentionCall& call, Tile& tile) const {
  const AttentionShape& shape = call.shape;
  const int64_t dim = shape.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::fill_n(tile.queries, tile.lanes * dim, 0.0f);
  for (int64_t r = 0; r < tile.count; ++r) {
    const int64_t token = tile.token(r);
    const float* query =
        call.q.data + token * call.q.stride + tile.head_of(r) * (shape.output_gate ? 2 : 1) * dim;
    rotated_norm(call, query, call.weights.q_norm, call.first_position + token, tile.head);
    for (int64_t i = 0; i < dim; ++i) tile.queries[i * tile.lanes + r] = tile.head[i] * scale;
  }
}

// Its limits go into the tile.
AttentionSegment Attention::segment_of(const AttentionCall& call, Tile& tile,
                                       int64_t segment) const {
  const int64_t dim = call.shape.head_dim;
  const int64_t start = segment * kSegmentPositions;
  const int64_t positions = std::clamp<int64_t>(tile.positions - start, 0, kSegmentPositions);
  tile.limits.fill(0);
  for (int64_t r = 0; r < tile.count; ++r) {
    const int64_t seen = call.first_position + tile.token(r) + 1 - start;
    tile.limits[static_cast<size_t>(r)] =
        static_cast<int32_t>(std::clamp<int64_t>(seen, 0, positions));
  }
  const float* page = call.cache.pages[static_cast<size_t>(segment)];
  const int64_t place = tile.kv_head * kKvPagePositions * kv_row_floats(call.cache.form, dim);
  return {.lanes = tile.lanes,
          .head_dim = dim,
          .positions = positions,
          .first_component = 0,
          .end_component = dim,
          .queries = tile.queries,
          .keys = page + call.cache.keys + place,
          .values = page + call.cache.values + place,
          .decoded = tile.decoded,
          .limits = tile.limits.data(),
          .scores = tile.scores,
          .weights = tile.scores,
          .maxima = tile.maxima.data(),
          .sums = tile.sums.data(),
          .mixed = tile.mixed};
}

// All segments of a tile, one after the other.
void Attention::run_tile(const AttentionCall& call, int64_t kv_head, int64_t first_row,
                         int worker) const {
  const int64_t dim = call.shape.head_dim;
  Tile tile = make_tile(call, kv_head, first_row, worker);
  take_queries(call, tile);
  std::array<float, kQueryLanes> maxima, sums;
  maxima.fill(kNothingSeen);
  sums.fill(0);
  std::fill_n(tile.running, tile.count * dim, 0.0f);
  for (int64_t segment = 0; segment * kSegmentPositions < tile.positions; ++segment) {
    kernels_.segment(segment_of(call, tile, segment));
    for (size_t r = 0; r < static_cast<size_t>(tile.count); ++r) {
      if (tile.limits[r] == 0) continue;
      const auto row = static_cast<int64_t>(r);
      kernels_.join(tile.maxima[r], tile.sums[r], tile.mixed + row * dim, dim, &maxima[r], &sums[r],
                    tile.running + row * dim);
    }
  }
  for (int64_t r = 0; r < tile.count; ++r) {
    finish(call, tile.token(r), tile.head_of(r), tile.running + r * dim,
           sums[static_cast<size_t>(r)], 0, dim);
  }
}

// One segment of a tile, kept for join_parts.
void Attention::run_part(const AttentionCall& call, int64_t kv_head, int64_t first_row,
                         int64_t segment, int worker) const {
  const int64_t dim = call.shape.head_dim;
  Tile tile = make_tile(call, kv_head, first_row, worker);
  if (segment * kSegmentPositions >= tile.positions) return;
  take_queries(call, tile);
  kernels_.segment(segment_of(call, tile, segment));
  for (int64_t r = 0; r < tile.count; ++r) {
    float* part = part_of(call, tile.token(r), tile.head_of(r), segment);
    part[0] = tile.maxima[static_cast<size_t>(r)];
    part[1] = tile.sums[static_cast<size_t>(r)];
    std::copy_n(tile.mixed + r * dim, dim, part + 2);
  }
}

// Few segments for many threads: slices of their positions, then of their components. A segment's scores lie
// where the worker of its number has its own, whom nothing else needs there.
void Attention::run_slices(const AttentionCall& call, int64_t tiles, int64_t segments,
                           int64_t slices) const {
  const AttentionShape& shape = call.shape;
  const int64_t count = shape.kv_heads * tiles * segments;
  const auto slice_of = [&](int64_t task) {
    const int64_t number = task / slices, tile = number / segments;
    return Slice{
        .kv_head = tile / tiles,
        .first_row = tile % tiles * kQueryLanes,
        .segment = number % segments,
        .segments = segments,
        .index = task % slices,
        .count = slices,
        .scores = make_tile(call, 0, 0, static_cast<int>(number)).scores,
    };
  };
  pool_.run(count * slices,
            [&](int64_t task, int worker) { score_slice(call, slice_of(task), worker); });
  pool_.run(count * slices,
            [&](int64_t task, int worker) { mix_slice(call, slice_of(task), worker); });
  if (segments == 1) return;
  pool_.run(call.k.count * shape.heads, [&](int64_t task, int worker) {
    join_parts(call, task / shape.heads, task % shape.heads, worker);
  });
}

void Attention::score_slice(const AttentionCall& call, const Slice& slice, int worker) const {
  Tile tile = make_tile(call, slice.kv_head, slice.first_row, worker);
  AttentionSegment part = segment_of(call, tile, slice.segment);
  const int64_t first = slice.begin_of(part.positions), end = slice.end_of(part.positions);
  if (first == end) return;
  take_queries(call, tile);
  part.keys += first * part.head_dim;
  part.scores = slice.scores + first * part.lanes;
  part.positions = end - first;
  kernels_.scores(part);
}

void Attention::mix_slice(const AttentionCall& call, const Slice& slice, int worker) const {
  Tile tile = make_tile(call, slice.kv_head, slice.first_row, worker);
  AttentionSegment part = segment_of(call, tile, slice.segment);
  if (part.positions == 0) return;
  const int64_t dim = part.head_dim;
  // Whole vectors. Where there are more slices than these, the last slice has some.
  const int64_t vectors = ceil_div(dim, kComponentsTogether);
  const int64_t first = std::min(slice.begin_of(vectors) * kComponentsTogether, dim);
  const int64_t end = std::min(slice.end_of(vectors) * kComponentsTogether, dim);
  if (first == end) return;
  part.scores = slice.scores;
  part.weights = tile.weights;
  part.first_component = first;
  part.end_component = end;
  kernels_.mix(part);
  for (int64_t r = 0; r < tile.count; ++r) {
    const auto row = static_cast<size_t>(r);
    const int64_t token = tile.token(r), head = tile.head_of(r);
    const float* mixed = tile.mixed + r * dim;
    if (slice.segments > 1) {
      float* to = part_of(call, token, head, slice.segment);
      if (end == dim) {
        to[0] = tile.maxima[row];
        to[1] = tile.sums[row];
      }
      std::copy(mixed + first, mixed + end, to + 2 + first);
      continue;
    }
    float maximum = kNothingSeen, sum = 0;
    float* running = tile.running + r * dim;
    std::fill(running + first, running + end, 0.0f);
    kernels_.join(tile.maxima[row], tile.sums[row], mixed + first, end - first, &maximum, &sum,
                  running + first);
    finish(call, token, head, running, sum, first, end);
  }
}

float* Attention::part_of(const AttentionCall& call, int64_t token, int64_t head,
                          int64_t segment) const {
  const int64_t segments = ceil_div(call.first_position + call.k.count, kSegmentPositions);
  const int64_t row = token * call.shape.heads + head;
  return scratch_.partials + (row * segments + segment) * (call.shape.head_dim + 2);
}

void Attention::join_parts(const AttentionCall& call, int64_t token, int64_t head,
                           int worker) const {
  const int64_t dim = call.shape.head_dim;
  float* running = scratch_.workers + worker * scratch_.worker_floats;
  float maximum = kNothingSeen;
  float sum = 0;
  std::fill_n(running, dim, 0.0f);
  const int64_t positions = call.first_position + token + 1;
  for (int64_t segment = 0; segment * kSegmentPositions < positions; ++segment) {
    const float* part = part_of(call, token, head, segment);
    kernels_.join(part[0], part[1], part + 2, dim, &maximum, &sum, running);
  }
  finish(call, token, head, running, sum, 0, dim);
}

void Attention::finish(const AttentionCall& call, int64_t token, int64_t head, const float* mixed,
                       float sum, int64_t first_component, int64_t end_component) const {
  const int64_t dim = call.shape.head_dim;
  const float* gate = nullptr;
  if (call.shape.output_gate) {
    gate = call.q.data + token * call.q.stride + (2 * head + 1) * dim + first_component;
  }
  float* out = call.out.data + token * call.out.stride + head * dim + first_component;
  kernels_.finish(mixed + first_component, sum, gate, end_component - first_component, out);
}

}  // namespace penstock
