#include "model/sequence_memory.h"

#include <algorithm>
#include <thread>

#include "base/check.h"

namespace penstock {
namespace {

// Each layer's part starts on a cache line.
int64_t padded(int64_t floats) {
  return (floats + 15) / 16 * 16;
}

void append_pieces(float* begin, int64_t floats, std::vector<SequenceMemory::Piece>& pieces) {
  for (int64_t done = 0; done < floats; done += SequenceMemory::kPieceFloatsMax) {
    pieces.push_back({begin + done, std::min(floats - done, SequenceMemory::kPieceFloatsMax)});
  }
}

struct Sizes {
  int64_t row = 0;                 // of a kv head at a position
  int64_t part = 0, page = 0;      // keys or values of a layer in a page; the whole page
  int64_t history = 0, state = 0;  // of one delta-net layer
  int64_t layers = 0, hidden = 0;  // of a set: all delta-net layers; what drafts start from
  int64_t attention_layers = 0;
  int64_t pages = 0, sets = 0;
  bool drafts = false;

  int64_t set() const { return layers + hidden; }
};

Sizes sizes_of(const ModelConfig& config, const SequenceLimits& limits) {
  Sizes sizes;
  sizes.attention_layers =
      std::count(config.layer_types.begin(), config.layer_types.end(), LayerType::kFullAttention);
  const int64_t delta_layers = config.num_hidden_layers - sizes.attention_layers;
  sizes.drafts = config.mtp_num_hidden_layers > 0;
  sizes.row = kv_row_floats(limits.kv_form, config.head_dim);
  sizes.part = padded(config.num_key_value_heads * kKvPagePositions * sizes.row);
  sizes.page = (sizes.attention_layers + (sizes.drafts ? 1 : 0)) * 2 * sizes.part;
  sizes.history = padded((config.linear_conv_kernel_dim - 1) * config.conv_channels());
  sizes.state = sizes.history + padded(config.linear_num_value_heads * config.linear_key_head_dim *
                                       config.linear_value_head_dim);
  sizes.layers = delta_layers * sizes.state;
  sizes.hidden = sizes.drafts ? padded(config.hidden_size) : 0;
  const int64_t pages_each = (limits.context + kKvPagePositions - 1) / kKvPagePositions;
  sizes.pages = limits.sequences * pages_each;
  // A pass reads one set of a sequence, writes another, and a third where a draft is on trial.
  sizes.sets = limits.sequences * (sizes.drafts ? 3 : 2) + limits.marks;
  return sizes;
}

}  // namespace

uint64_t SequenceMemory::bytes_needed(const ModelConfig& config, const SequenceLimits& limits) {
  const Sizes sizes = sizes_of(config, limits);
  return static_cast<uint64_t>(sizes.pages * sizes.page + sizes.sets * sizes.set()) * sizeof(float);
}

uint64_t SequenceMemory::bytes_per_position(const ModelConfig& config, KvForm form) {
  const Sizes sizes = sizes_of(config, {.kv_form = form});
  const int64_t layers = sizes.attention_layers + (sizes.drafts ? 1 : 0);
  return static_cast<uint64_t>(layers * 2 * config.num_key_value_heads * sizes.row) * sizeof(float);
}

Result<SequenceMemory> SequenceMemory::create(const ModelConfig& config,
                                              const SequenceLimits& limits, Backend& backend) {
  const Sizes sizes = sizes_of(config, limits);
  SequenceMemory result;
  result.backend_ = &backend;
  // Present from the start, so that nobody else takes it for free, unless that would take seconds.
  constexpr uint64_t kPresentBytesMax = 512ull << 20;
  const uint64_t bytes = bytes_needed(config, limits);
  const Prefault prefault = bytes <= kPresentBytesMax ? Prefault::kYes : Prefault::kNo;
  result.buffer_ =
      PENSTOCK_TRY(backend.memory().take(bytes, "KV cache and delta-net states", prefault));
  result.limits_ = limits;
  result.drafts_ = sizes.drafts;
  result.kv_heads_ = config.num_key_value_heads;
  result.row_floats_ = sizes.row;
  result.part_floats_ = sizes.part;
  result.page_floats_ = sizes.page;
  result.history_floats_ = sizes.history;
  result.state_floats_ = sizes.state;
  result.layers_floats_ = sizes.layers;
  result.set_floats_ = sizes.set();
  result.attention_layers_ = sizes.attention_layers;
  result.hidden_size_ = sizes.drafts ? config.hidden_size : 0;
  int64_t attention = 0, delta = 0;
  for (const LayerType type : config.layer_types) {
    result.index_.push_back(type == LayerType::kFullAttention ? attention++ : delta++);
  }
  result.pages_begin_ = result.buffer_.floats();
  result.sets_begin_ = result.pages_begin_ + sizes.pages * sizes.page;
  result.pages_.resize(static_cast<size_t>(sizes.pages));
  result.sets_.assign(static_cast<size_t>(sizes.sets), 0);
  // The first ones first: what was never needed is never touched.
  for (int64_t page = sizes.pages; page-- > 0;)
    result.free_pages_.push_back(static_cast<int>(page));
  for (int64_t set = sizes.sets; set-- > 0;) result.free_sets_.push_back(static_cast<int>(set));
  return result;
}

int SequenceMemory::take_page() {
  PENSTOCK_CHECK(!free_pages_.empty());
  const int page = free_pages_.back();
  free_pages_.pop_back();
  pages_[static_cast<size_t>(page)].live = 1;
  return page;
}

int SequenceMemory::take_set() {
  PENSTOCK_CHECK(!free_sets_.empty());
  const int set = free_sets_.back();
  free_sets_.pop_back();
  sets_[static_cast<size_t>(set)] = 1;
  return set;
}

void SequenceMemory::release_if_unused(int page) {
  const Page& held = pages_[static_cast<size_t>(page)];
  if (held.live == 0 && held.marked.empty()) free_pages_.push_back(page);
}

void SequenceMemory::drop_page(int page) {
  PENSTOCK_CHECK(pages_[static_cast<size_t>(page)].live > 0);
  --pages_[static_cast<size_t>(page)].live;
  release_if_unused(page);
}

void SequenceMemory::mark_page(int page, int64_t positions) {
  pages_[static_cast<size_t>(page)].marked.push_back(positions);
}

void SequenceMemory::unmark_page(int page, int64_t positions) {
  std::vector<int64_t>& marked = pages_[static_cast<size_t>(page)].marked;
  const auto it = std::ranges::find(marked, positions);
  PENSTOCK_CHECK(it != marked.end());
  marked.erase(it);
  release_if_unused(page);
}

bool SequenceMemory::may_write(int page, int64_t position) const {
  const Page& held = pages_[static_cast<size_t>(page)];
  return held.live == 1 && std::ranges::none_of(held.marked, [position](int64_t positions) {
           return positions > position;
         });
}

void SequenceMemory::drop_set(int set) {
  PENSTOCK_CHECK(sets_[static_cast<size_t>(set)] > 0);
  if (--sets_[static_cast<size_t>(set)] == 0) free_sets_.push_back(set);
}

KvCache SequenceMemory::kv(int64_t layer, std::span<float* const> pages) const {
  const int64_t begin = index_[static_cast<size_t>(layer)] * 2 * part_floats_;
  return {pages, begin, begin + part_floats_, limits_.kv_form};
}

KvCache SequenceMemory::draft_kv(std::span<float* const> pages) const {
  const int64_t begin = attention_layers_ * 2 * part_floats_;
  return {pages, begin, begin + part_floats_, limits_.kv_form};
}

DeltaNetState SequenceMemory::delta_net(int64_t layer, int set) const {
  float* begin =
      sets_begin_ + set * set_floats_ + index_[static_cast<size_t>(layer)] * state_floats_;
  return {begin, begin + history_floats_};
}

Rows SequenceMemory::hidden(int set) const {
  return row(sets_begin_ + set * set_floats_ + layers_floats_, hidden_size_);
}

void SequenceMemory::clear_set(int set) {
  backend_->clear(row(sets_begin_ + set * set_floats_, set_floats_));
}

std::vector<SequenceMemory::Piece> SequenceMemory::page_pieces(int page, int64_t positions,
                                                               int64_t drafted) const {
  std::vector<Piece> pieces;
  const int64_t layers = attention_layers_ + (drafts_ ? 1 : 0);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const int64_t count = layer == attention_layers_ ? drafted : positions;
    if (count == 0) continue;
    for (int64_t part = 2 * layer; part < 2 * layer + 2; ++part) {
      for (int64_t head = 0; head < kv_heads_; ++head) {
        float* begin =
            page_data(page) + part * part_floats_ + head * kKvPagePositions * row_floats_;
        append_pieces(begin, count * row_floats_, pieces);
      }
    }
  }
  return pieces;
}

std::vector<SequenceMemory::Piece> SequenceMemory::set_pieces(int set) const {
  std::vector<Piece> pieces;
  append_pieces(sets_begin_ + set * set_floats_, set_floats_, pieces);
  return pieces;
}

Result<void> SequenceMemory::read_piece(const Piece& piece, std::span<float> to) const {
  return backend_->read_back(row(piece.data, piece.floats), to);
}

void SequenceMemory::write_piece(std::span<const float> from, const Piece& piece) {
  const Fence written = backend_->upload(from, row(piece.data, piece.floats));
  while (!backend_->has_passed(written)) std::this_thread::yield();
}

void SequenceMemory::copy_page(int from, int to) {
  backend_->copy(row(page_data(from), page_floats_), row(page_data(to), page_floats_));
}

}  // namespace penstock
