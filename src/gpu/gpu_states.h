// Recurrent states with a copy in a device's memory, which is where they are read and written; the host's
// are brought up to date when somebody asks.
//
//   states.begin(layer);
//   const uint64_t from = states.read(commands, before);      // copied over where it is not there
//   const uint64_t to = states.write(after);
//   ...                                                       // the device computes, and has ended
//   PENSTOCK_TRY(states.bring_back(layer, written));          // the host's are what lies there
//
// A state is known by where the host has it. Each layer has so many slots, of which the one that was not
// used for longest is taken, but none that is ahead: that was written and not brought back, so that only the
// device has it. Whoever asks for more than the others brings some back before. Bytes go through
// memory that both can reach, never from the device into the host's states: one that is given up as dead
// cannot change them afterwards.
//
// Threads  as GpuDevice; bytes are moved by the team
// Memory   bytes_for(): all of it allocated in create()
// Errors   create(): kOutOfMemory, kIo. bring_back(): kIo when the device is lost; no state of the host's is
//          changed then
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"
#include "gpu/gpu_device.h"
#include "gpu/host_rows.h"

namespace penstock {

// Of all layers alike.
struct GpuStatesShape {
  int64_t layers = 0;
  int64_t slots = 0;  // of a layer: at least as many as a call reads and writes
  int64_t history_floats = 0, memory_floats = 0;

  // In a slot, its memory begins behind the history.
  int64_t memory_at() const;
  uint64_t slot_bytes() const;
  // Whether a state of the host's has one of these floats.
  bool meets(const DeltaNetState& state, const float* begin, int64_t floats) const;
};

class GpuStates {
 public:
  struct Bytes {
    uint64_t on_device = 0, on_host = 0;
  };
  static Bytes bytes_for(const GpuStatesShape& shape);
  static Result<GpuStates> create(GpuDevice& device, const GpuStatesShape& shape, HostRows host);

  void begin(int64_t layer);
  // Where it lies there, once `commands` have run.
  uint64_t read(GpuCommands& commands, const DeltaNetState& state);
  uint64_t write(const DeltaNetState& state);

  // Of a layer: what was written there, into the host's states.
  Result<void> bring_back(int64_t layer, std::span<const DeltaNetState> states);

  // So many floats of the host's are no longer what lies there.
  void forget(const float* begin, int64_t floats);
  void forget_all();

 private:
  struct Slot {
    DeltaNetState host;  // nullptrs: empty
    uint64_t last_used = 0;
    bool is_ahead = false;
  };
  GpuStates(GpuDevice& device, const GpuStatesShape& shape, HostRows host);
  std::span<Slot> slots_of(int64_t layer);
  std::optional<int64_t> find(int64_t layer, const DeltaNetState& state);
  int64_t take(const DeltaNetState& state);
  uint64_t offset_of(int64_t slot) const { return static_cast<uint64_t>(slot) * slot_bytes_; }
  void move(const DeltaNetState& state, std::byte* staging, bool is_inbound) const;

  GpuDevice* device_;
  GpuStatesShape shape_;
  HostRows host_;
  uint64_t slot_bytes_;
  std::vector<GpuBuffer> of_layers_;
  GpuBuffer staging_;        // the host's: as many as a layer has
  std::vector<Slot> slots_;  // [layer][slot]
  int64_t layer_ = 0;        // at work
  int64_t num_going_ = 0;    // of its call
  uint64_t clock_ = 0;       // of uses
  uint64_t began_ = 0;       // when this call began: what was used since is in use
};

}  // namespace penstock
