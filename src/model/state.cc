#include "model/state.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace penstock {
namespace {

// Each layer's part starts on a cache line.
int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }

struct Sizes {
  int64_t kv = 0, history = 0, memory = 0;  // floats per layer
  int64_t attention_layers = 0, delta_layers = 0;
  int64_t hidden = 0;  // that drafts start from
  bool drafts = false;

  int64_t layers_total() const { return delta_layers * (history + memory); }
  int64_t delta_total() const { return layers_total() + hidden; }
  int64_t kv_total() const { return (attention_layers + (drafts ? 1 : 0)) * 2 * kv; }
};

Sizes sizes_of(const ModelConfig& config, int64_t context) {
  Sizes sizes;
  sizes.attention_layers = std::count(config.layer_types.begin(), config.layer_types.end(),
                                      LayerType::kFullAttention);
  sizes.delta_layers = config.num_hidden_layers - sizes.attention_layers;
  sizes.kv = padded(config.num_key_value_heads * context * config.head_dim);
  sizes.history = padded((config.linear_conv_kernel_dim - 1) * config.conv_channels());
  sizes.memory = padded(config.linear_num_value_heads * config.linear_key_head_dim *
                        config.linear_value_head_dim);
  sizes.drafts = config.mtp_num_hidden_layers > 0;
  sizes.hidden = sizes.drafts ? padded(config.hidden_size) : 0;
  return sizes;
}

}  // namespace

uint64_t SequenceState::bytes_needed(const ModelConfig& config, int64_t context,
                                     int num_checkpoints) {
  const Sizes sizes = sizes_of(config, context);
  const int64_t copies = 1 + (sizes.drafts ? 1 : 0) + num_checkpoints;
  const int64_t floats = sizes.kv_total() + sizes.delta_total() * copies;
  return static_cast<uint64_t>(floats) * sizeof(float);
}

Result<SequenceState> SequenceState::create(const ModelConfig& config, int64_t context,
                                            int num_checkpoints) {
  const Sizes sizes = sizes_of(config, context);
  SequenceState state;
  state.memory_ = PENSTOCK_TRY(AlignedMemory::create(
      bytes_needed(config, context, num_checkpoints), "KV cache and delta-net states"));
  state.context_ = context;
  state.kv_floats_ = sizes.kv;
  state.history_floats_ = sizes.history;
  state.memory_floats_ = sizes.memory;
  state.layers_floats_ = sizes.layers_total();
  state.hidden_floats_ = sizes.drafts ? static_cast<size_t>(config.hidden_size) : 0;
  state.delta_floats_ = sizes.delta_total();
  int64_t attention = 0, delta = 0;
  for (const LayerType type : config.layer_types) {
    state.index_.push_back(type == LayerType::kFullAttention ? attention++ : delta++);
  }
  float* next = reinterpret_cast<float*>(state.memory_.bytes().data());
  state.kv_ = next;
  next += sizes.kv_total();
  if (sizes.drafts) state.draft_kv_ = next - 2 * sizes.kv;
  state.delta_ = next;
  next += state.delta_floats_;
  if (sizes.drafts) {
    state.trial_ = next;
    next += state.delta_floats_;
  }
  for (int i = 0; i < num_checkpoints; ++i) {
    state.checkpoints_.push_back({.copy = next});
    next += state.delta_floats_;
  }
  state.reset();
  return state;
}

KvCache SequenceState::kv(int64_t layer) const {
  float* keys = kv_ + index_[static_cast<size_t>(layer)] * 2 * kv_floats_;
  return {keys, keys + kv_floats_, context_};
}

DeltaNetState SequenceState::delta_net(int64_t layer, bool on_trial) const {
  const int64_t place =
      index_[static_cast<size_t>(layer)] * (history_floats_ + memory_floats_);
  DeltaNetState state = {delta_ + place, delta_ + place + history_floats_};
  if (on_trial) state.ahead = {trial_ + place, trial_ + place + history_floats_};
  return state;
}

void SequenceState::advance(int64_t tokens, bool on_trial) {
  PENSTOCK_CHECK(!has_trial_ && (!on_trial || drafts()));
  length_ += tokens;
  has_trial_ = on_trial;
  PENSTOCK_CHECK(length_ <= context_);
}

void SequenceState::keep_trial() {
  PENSTOCK_CHECK(has_trial_);
  std::swap(delta_, trial_);
  has_trial_ = false;
}

void SequenceState::drop_trial() {
  PENSTOCK_CHECK(has_trial_);
  --length_;
  has_trial_ = false;
}

void SequenceState::reset() {
  length_ = 0;
  has_trial_ = false;
  std::memset(delta_, 0, static_cast<size_t>(delta_floats_) * sizeof(float));
  for (Checkpoint& checkpoint : checkpoints_) checkpoint.length = 0;
}

void SequenceState::save_checkpoint() {
  PENSTOCK_CHECK(!has_trial_);
  if (checkpoints_.empty() || length_ == 0 || checkpoint_at_most(length_) == length_) return;
  Checkpoint& oldest = *std::min_element(
      checkpoints_.begin(), checkpoints_.end(), [](const Checkpoint& a, const Checkpoint& b) {
        return (a.length == 0 ? 0 : a.age) < (b.length == 0 ? 0 : b.age);
      });
  std::memcpy(oldest.copy, delta_, static_cast<size_t>(delta_floats_) * sizeof(float));
  oldest.length = length_;
  oldest.age = next_age_++;
}

int64_t SequenceState::checkpoint_at_most(int64_t length) const {
  int64_t best = 0;
  for (const Checkpoint& checkpoint : checkpoints_) {
    if (checkpoint.length <= length) best = std::max(best, checkpoint.length);
  }
  return best;
}

void SequenceState::rewind(int64_t length) {
  const int64_t target = checkpoint_at_most(length);
  if (target == 0) {
    reset();
    return;
  }
  for (Checkpoint& checkpoint : checkpoints_) {
    if (checkpoint.length == target) {
      std::memcpy(delta_, checkpoint.copy, static_cast<size_t>(delta_floats_) * sizeof(float));
      checkpoint.age = next_age_++;
    } else if (checkpoint.length > target) {
      checkpoint.length = 0;
    }
  }
  length_ = target;
  has_trial_ = false;
}

}  // namespace penstock
