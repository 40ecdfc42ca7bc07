// Delta-net mixers of many rows: in waves, a list of commands each, while the host brings the rows of the next
// one and takes those of the last one.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "gpu/gpu_delta_nets.h"

namespace penstock {

GpuDeltaNets::Place GpuDeltaNets::wave(int which) const {
  const auto i = static_cast<size_t>(which);
  return {waves_->layout, waves_->work.address(), waves_->inputs[i], waves_->results[i]};
}

Result<void> GpuDeltaNets::make_waves() {
  Waves waves = {Layout(limits_, limits_.wave_rows, true), {}, {}, {}, {}};
  const auto allocate = [&](uint64_t bytes, GpuMemoryKind kind) {
    return device_->allocate(bytes, kind, "rows of delta-nets");
  };
  waves.work = PENSTOCK_TRY(allocate(waves.layout.end, GpuMemoryKind::kDevice));
  for (size_t i = 0; i < kWaves; ++i) {
    waves.inputs[i] = PENSTOCK_TRY(allocate(waves.layout.inputs_end, GpuMemoryKind::kInputs));
    waves.results[i] = PENSTOCK_TRY(allocate(waves.layout.results_end, GpuMemoryKind::kShared));
  }
  waves_ = std::move(waves);
  return {};
}

bool GpuDeltaNets::takes_many(const DeltaNetBlock& block, const GpuBlockPieces& pieces) const {
  const auto is_on_trial = [](const DeltaNetCall& call) { return call.ahead.memory != nullptr; };
  return waves_ && block.x.count >= 1 && suits(block, pieces) &&
         std::ranges::none_of(block.calls, is_on_trial);
}

std::vector<GpuDeltaNets::Wave> GpuDeltaNets::waves_of(const DeltaNetBlock& block) const {
  std::vector<Wave> waves;
  int64_t first = 0;
  for (const DeltaNetCall& call : block.calls) {
    const int64_t end = first + call.qkv.count;
    for (int64_t number = 0; first < end; ++number) {
      const int64_t rows = std::min(limits_.wave_rows, end - first);
      waves.push_back({.call = &call,
                       .first = first,
                       .rows = rows,
                       .number = number,
                       .is_last = first + rows == end});
      first += rows;
    }
  }
  return waves;
}

int64_t GpuDeltaNets::rows_of_waves(const DeltaNetBlock& block) const {
  return block.x.count / std::ssize(waves_of(block));
}

// part: the block, but for the wave's rows alone.
Result<void> GpuDeltaNets::begin_wave(GpuCommands& commands, const DeltaNetBlock& part,
                                      const GpuBlockPieces& pieces, const Wave& wave_rows,
                                      int which) {
  const Place at = wave(which);
  const Layout& layout = at.layout;
  const uint64_t memory_at = gpu_float_bytes(limits_.of_states().memory_at());
  const bool is_first = wave_rows.number == 0;
  if (is_first) {
    before_ = states_->read(commands, wave_rows.call->before);
    after_ = states_->write(wave_rows.call->after);
  }
  // Between a call's waves histories take turns; its memory is changed in place.
  const auto history = [&](int64_t number) {
    return at.work + layout.histories[static_cast<size_t>(number % kWaves)];
  };
  write_inputs(at, part, pieces);
  record_inputs(commands, at, part, pieces);
  kernel_.run_many(commands,
                   {.qkv = at.work + layout.qkv,
                    .z = at.work + layout.z,
                    .b = at.b(pieces),
                    .a = at.a(pieces),
                    .result = at.work + layout.mixed,
                    .weights = work_.address() + weights_at(layer_),
                    .history_before = is_first ? before_ : history(wave_rows.number - 1),
                    .history_after = wave_rows.is_last ? after_ : history(wave_rows.number),
                    .memory_before = (is_first ? before_ : after_) + memory_at,
                    .memory_after = after_ + memory_at,
                    .between = at.work + layout.between,
                    .lost = at.work + layout.lost,
                    .rows = wave_rows.rows});
  commands.barrier();
  record_output(commands, at, part, pieces);
  waves_->fences[static_cast<size_t>(which)] = PENSTOCK_TRY(device_->compute().submit(commands));
  return {};
}

Result<void> GpuDeltaNets::run_many(const DeltaNetBlock& block, const GpuBlockPieces& pieces,
                                    const std::function<void()>& meanwhile) {
  PENSTOCK_DCHECK(takes_many(block, pieces));
  const auto known = layers_.find(block.calls[0].weights.conv);
  if (known != layers_.end()) PENSTOCK_TRY(settle(known->second));
  PENSTOCK_TRY(device_->compute().wait(fence_));  // of a call that nobody finished
  const std::vector<Wave> waves = waves_of(block);
  const auto finish = [&](size_t number) -> Result<void> {
    const int which = static_cast<int>(number % kWaves);
    PENSTOCK_TRY(device_->compute().wait(waves_->fences[static_cast<size_t>(which)]));
    take_results(wave(which), block.output.out.slice(waves[number].first, waves[number].rows));
    return {};
  };
  for (size_t i = 0; i < waves.size(); ++i) {
    GpuCommands commands = PENSTOCK_TRY(device_->compute().begin());
    if (i == 0) {
      layer_ = layer_of(commands, block.calls[0].weights);
      states_->begin(layer_);
    }
    const auto rows_of = [&](Rows rows) { return rows.slice(waves[i].first, waves[i].rows); };
    DeltaNetBlock part = block;
    part.x = rows_of(block.x);
    part.b.out = rows_of(block.b.out);
    part.a.out = rows_of(block.a.out);
    PENSTOCK_TRY(begin_wave(commands, part, pieces, waves[i], static_cast<int>(i % kWaves)));
    meanwhile();
    if (i > 0) PENSTOCK_TRY(finish(i - 1));
  }
  PENSTOCK_TRY(finish(waves.size() - 1));
  noted_.clear();
  for (const DeltaNetCall& call : block.calls) note(call.after);
  return states_->bring_back(layer_, noted_);
}

}  // namespace penstock
