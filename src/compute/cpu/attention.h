// Attention over the KV cache on the team of threads (backend.h: AttentionCall).
//
// The query rows that share a kv head (tokens times heads per kv head) are taken sixteen at a time,
// one per lane: a score is a chain of fmas over the head's components, so no sum crosses lanes. The
// positions are cut into segments of kSegmentPositions, counted from position 0. Each segment
// gives a row a maximum m, a sum l of exp(score - m) and the values mixed with these weights, o;
// segments are joined in order:
// (o in the order 0, 63, 126, ..., 1, 64, ...: see kStreams)
//   M' = max(M, m),  L = L exp(M - M') + l exp(m - M'),  O = O exp(M - M') + o exp(m - M')
// exp and the division by the sum are those of exact_math.h, joining is without fma. So that a device gives the same
// bits (gpu/gpu_attention.h), weights below e^-27 are zero, and products of joining and of the gate below 2^-100.
// The cuts depend on positions alone: a row has the same bits in any chunk of a prompt. Long
// contexts at decode are shared among the threads by segments; short ones, with fewer segments than
// threads, by positions while scores are made and by components while values are mixed (caches of floats,
// up to four tokens; each thread then makes the queries and weights that it needs by itself).
//
// Keys and values in codes (kv_codes.h) become floats again segment by segment, and from there on all is
// the same.
//
// Moves  8 bytes (in codes: 2.1) per cached component of each kv head, once per sixteen query rows
// Costs  two fmas per component, position and query row, and an exponential per position and row
#pragma once

#include "base/thread_pool.h"
#include "compute/backend.h"
#include "compute/cpu/elementwise.h"
#include "compute/cpu/scratch.h"

namespace penstock {

inline constexpr int kQueryLanes = 16;
// A segment is read as eight streams of neighbouring positions, which the prefetcher can follow.
// Not 64 each: addresses a multiple of 4 KiB apart would share one set of the nearest cache.
inline constexpr int64_t kStreams = 8;
inline constexpr int64_t kStreamPositions = 63;
inline constexpr int64_t kSegmentPositions = kStreams * kStreamPositions;
static_assert(kSegmentPositions == kKvPagePositions);  // a segment lies in one page

// Sixteen (or eight) query rows against one segment of one kv head.
struct AttentionSegment {
  int lanes;  // 8 or 16
  int64_t head_dim, positions;
  // What is mixed: of every row the components from the first to before the end.
  int64_t first_component, end_component;
  const float* queries;   // [head_dim, lanes], scaled
  const float* keys;      // [positions, head_dim]; in codes: [positions, row]
  const float* values;    // likewise
  float* decoded;         // [positions, head_dim]: scratch; nullptr: they are not in codes
  const int32_t* limits;  // [lanes]: positions of the segment that the row may see
  float* scores;          // [positions, lanes]: scratch
  float* weights;         // likewise; may be the scores
  float* maxima;          // [lanes] out
  float* sums;            // [lanes] out
  float* mixed;           // [lanes, head_dim] out
};

struct AttentionKernels {
  void (*segment)(const AttentionSegment& segment);
  // Its two halves, not of codes: queries and keys to scores; these to weights, and values mixed with them.
  void (*scores)(const AttentionSegment& segment);
  void (*mix)(const AttentionSegment& segment);
  // Joins a segment's (m, l, o) to a row's running (M, L, O).
  void (*join)(float m, float l, const float* o, int64_t head_dim, float* maximum, float* sum,
               float* mixed);
  // out = mixed / sum .* sigmoid(gate); without the gate where it is nullptr
  void (*finish)(const float* mixed, float sum, const float* gate, int64_t head_dim, float* out);
};

const AttentionKernels& attention_kernels(int64_t target);

// A row that has seen nothing. Finite, so that differences of maxima are numbers.
inline constexpr float kNothingSeen = -3e38f;

struct AttentionScratch {
  AttentionScratch(int threads, const BackendLimits& limits, ScratchCursor& cursor);

  int64_t max_tokens, max_context;
  int64_t worker_floats;
  bool decodes;     // there is room for keys or values of a segment
  float* workers;   // [threads, worker_floats]
  float* partials;  // [tokens * heads, segments, head_dim + 2]: m, l, o
};

class Attention {
 public:
  Attention(ThreadPool& pool, int64_t target, const AttentionScratch& scratch);
  void run(const AttentionCall& call);

 private:
  struct Tile;
  struct Slice;

  void append(const AttentionCall& call, int64_t token, int64_t kv_head, int worker) const;
  void rotated_norm(const AttentionCall& call, const float* x, const float* weight,
                    int64_t position, float* out) const;
  Tile make_tile(const AttentionCall& call, int64_t kv_head, int64_t first_row, int worker) const;
  void take_queries(const AttentionCall& call, Tile& tile) const;
  AttentionSegment segment_of(const AttentionCall& call, Tile& tile, int64_t segment) const;
  void run_slices(const AttentionCall& call, int64_t tiles, int64_t segments, int64_t slices) const;
  void score_slice(const AttentionCall& call, const Slice& slice, int worker) const;
  void mix_slice(const AttentionCall& call, const Slice& slice, int worker) const;
  void run_tile(const AttentionCall& call, int64_t kv_head, int64_t first_row, int worker) const;
  void run_part(const AttentionCall& call, int64_t kv_head, int64_t first_row, int64_t segment,
                int worker) const;
  void finish(const AttentionCall& call, int64_t token, int64_t head, const float* mixed, float sum,
              int64_t first_component, int64_t end_component) const;
  float* part_of(const AttentionCall& call, int64_t token, int64_t head, int64_t segment) const;
  void join_parts(const AttentionCall& call, int64_t token, int64_t head, int worker) const;

  ThreadPool& pool_;
  const ElementwiseKernels& elementwise_;
  const AttentionKernels& kernels_;
  AttentionScratch scratch_;
};

}  // namespace penstock
