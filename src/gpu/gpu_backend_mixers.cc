// The mixers of the op book beside a device, and whose turn it is where what they remember lies in two places.
#include <utility>

#include "gpu/gpu_backend.h"
#include "gpu/gpu_clock.h"

namespace penstock {

void GpuBackend::settle_states() {
  if (use_.is_lost() || !goes_on(delta_nets_->settle())) delta_nets_->recover(cpu_);
}

void GpuBackend::before_host_reads(const float* begin, int64_t floats) {
  if (delta_nets_ && delta_nets_->is_awaited(begin, floats)) settle_states();
}

void GpuBackend::before_host_writes(const float* begin, int64_t floats) {
  if (attention_) attention_->forget(begin, floats);
  if (!delta_nets_) return;
  if (delta_nets_->needs(begin, floats)) settle_states();
  delta_nets_->forget(begin, floats);
}

GpuBlockPieces GpuBackend::pieces_of(const DeltaNetBlock& block) const {
  return {.qkv = find(block.qkv.weight),
          .z = find(block.z.weight),
          .b = find(block.b.weight),
          .a = find(block.a.weight),
          .output = find(block.output.weight)};
}

// Those of the two small projections that the device has not.
void GpuBackend::multiply_gates_here(const DeltaNetBlock& block, const GpuBlockPieces& pieces) {
  here_.clear();
  if (pieces.b.empty()) here_.push_back(block.b);
  if (pieces.a.empty()) here_.push_back(block.a);
  if (!here_.empty()) cpu_.matmul(block.x, here_);
}

bool GpuBackend::run_block_there(const DeltaNetBlock& block) {
  if (!delta_nets_ || use_.is_lost()) return false;
  const GpuBlockPieces pieces = pieces_of(block);
  if (block.x.count > trunk_.few_rows) return run_many_there(block, pieces);
  if (!delta_nets_->takes(block, pieces)) return false;
  multiply_gates_here(block, pieces);
  if (!goes_on(delta_nets_->begin(block, pieces))) return false;
  end_op();
  if (!goes_on(delta_nets_->finish(block))) return false;
  ++report_.delta_nets;
  return true;
}

// Where that takes less time than the processors would.
bool GpuBackend::run_many_there(const DeltaNetBlock& block, const GpuBlockPieces& pieces) {
  if (!delta_nets_->takes_many(block, pieces)) return false;
  const CheaperSide::Kind kind = {block.x.width, block.qkv.weight.rows,
                                  CheaperSide::row_class(delta_nets_->rows_of_waves(block))};
  const Side side = blocks_side_.choose(kind);
  const bool is_first = side == Side::kDevice && !delta_nets_->knows(block);  // weights go there
  const double start = now_in_seconds();
  bool is_done = true;
  if (side == Side::kDevice) {
    multiply_gates_here(block, pieces);
    is_done = goes_on(delta_nets_->run_many(block, pieces, [this] { end_op(); }));
    report_.delta_nets += is_done ? 1 : 0;
  } else {
    Backend::delta_net_block(block);
  }
  const double cost = (now_in_seconds() - start) / static_cast<double>(block.x.count);
  if (!is_first) blocks_side_.note(kind, side, cost);
  return is_done;
}

void GpuBackend::delta_net_block(const DeltaNetBlock& block) {
  settle();
  if (run_block_there(block)) return;
  if (delta_nets_ && use_.is_lost()) delta_nets_->recover(cpu_);
  Backend::delta_net_block(block);
}

void GpuBackend::delta_net(const DeltaNetCall& call) {
  settle();
  const int64_t history = (call.shape.conv_kernel - 1) * call.shape.conv_channels();
  const int64_t memory =
      int64_t{call.shape.value_heads} * call.shape.key_dim * call.shape.value_dim;
  before_host_reads(call.before.conv_history, history);
  before_host_reads(call.before.memory, memory);
  for (const DeltaNetState& written : {call.after, call.ahead}) {
    if (written.memory == nullptr) continue;
    before_host_writes(written.conv_history, history);
    before_host_writes(written.memory, memory);
  }
  cpu_.delta_net(call);
}

void GpuBackend::attention(const AttentionCall& call) {
  settle();
  if (attention_) attention_->note_written(call);
  if (!run_attention_there(call)) cpu_.attention(call);
}

// Where that takes less time than the processors would.
bool GpuBackend::run_attention_there(const AttentionCall& call) {
  if (!attention_ || use_.is_lost() || !attention_->takes(call)) return false;
  const int64_t rows = call.k.count;
  const CheaperSide::Kind kind = {CheaperSide::row_class(call.first_position + rows),
                                  int64_t{call.shape.heads} * call.shape.head_dim,
                                  CheaperSide::row_class(rows)};
  const Side side = attention_side_.choose(kind);
  const double start = now_in_seconds();
  if (side == Side::kProcessors) {
    cpu_.attention(call);
  } else {
    AttentionCall append = call;
    append.out.count = 0;
    cpu_.attention(append);
    const Result<bool> is_right = attention_->run(call, cpu_, [this] { end_op(); });
    if (!is_right) {
      use_.lose(is_right.error());
      return false;
    }
    if (*is_right) {
      ++report_.attentions;
    } else {
      cpu_.attention(call);
    }
    // A first call that brings more than its own rows over says nothing of the next one.
    const bool is_first = *is_right && attention_->brought() > rows;
    if (is_first && !std::exchange(has_brought_more_, true)) return true;
    has_brought_more_ = is_first;
  }
  attention_side_.note(kind, side, (now_in_seconds() - start) / static_cast<double>(rows));
  return true;
}

}  // namespace penstock
