// Which expert is in which slot, who may not be evicted, and who is next to go.
//
// A state machine: no I/O, no threads, no clock of its own, so that recorded routing can be
// replayed through it (bench/cache_replay.cc) and random sequences compared with a model of ten
// lines. The owner says when a layer runs (begin_run), which experts it uses (record_use) and when
// a slot's bytes have come (finish) or never will (forget).
//
//   free --claim--> filling --finish--> ready --claim for another expert--> filling
//                      `------forget------'------forget------> free
//
// The number of slots can change meanwhile (resize): those at the end become absent, and the best
// of the experts in them move to others, so that the memory given up is in one piece.
//
// Invariants
//   (1) An expert is in at most one slot; a slot that is filling or ready holds exactly one.
//   (2) claim() never takes a slot that is pinned or filling.
//   (3) A slot is free only when unpinned.
//   (4) Slots from num_slots() on are absent: they hold nothing and are never claimed.
//
// Threads  One.
// Memory   Allocated in the constructor: 12 bytes per expert, 16 per slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "store/eviction.h"

namespace penstock {

struct CacheShape {
  int num_layers = 0;
  int num_experts = 0;
  int num_slots = 0;
};

enum class SlotState : uint8_t { kFree, kFilling, kReady };

// The bytes of a ready slot belong into another one.
struct SlotMove {
  int from = 0;
  int to = 0;
};

class ExpertCache {
 public:
  ExpertCache(const CacheShape& shape, EvictionPolicy policy, int half_life_runs = kHalfLifeRuns);

  // The clock: `layer` runs now. Once per run, before its uses are recorded.
  void begin_run(int layer);
  void record_use(int layer, int expert);

  // The counts of uses behind eviction, decayed to now: [layer][expert]. What is restored counts as
  // if it had been used so often up to now.
  std::vector<float> usage() const;
  void restore_usage(std::span<const float> counts);

  // Of an expert, in a slot or not.
  float count_of(int layer, int expert) const;

  // The slot that holds the expert or is being filled with it.
  std::optional<int> find(int layer, int expert) const;

  // A free slot, else the policy's victim, now filling with this expert, which is in no slot yet.
  // Nothing when all slots are pinned or filling.
  std::optional<int> claim(int layer, int expert);
  void finish(int slot);
  void forget(int slot);
  // Whom claim() would evict now, were no slot free.
  std::optional<int> next_victim();

  // The expert in a ready slot lies in a nearer tier too: it is among the first to go, as long as
  // that is so.
  void set_spare(int slot, bool is_spare);

  void pin(int slot);
  void unpin(int slot);

  // Uses this many slots from now on, at least one, at most those of the shape. With fewer, the
  // experts go that the policy gives away first; `moves` says which bytes to copy, each into a slot
  // that held nothing that is kept. A slot that is pinned or filling stays, and all below it: what
  // num_slots() says afterwards is what was possible.
  void resize(int num_slots, std::vector<SlotMove>& moves);

  SlotState state(int slot) const { return slots_[static_cast<size_t>(slot)].state; }
  bool is_pinned(int slot) const { return slots_[static_cast<size_t>(slot)].pins > 0; }
  int layer_of(int slot) const { return slots_[static_cast<size_t>(slot)].layer; }
  int expert_of(int slot) const { return slots_[static_cast<size_t>(slot)].expert; }
  int num_slots() const { return num_slots_; }
  int num_slots_max() const { return shape_.num_slots; }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_pinned() const { return num_pinned_; }
  uint64_t evictions() const { return evictions_; }

  static uint64_t bytes_needed(const CacheShape& shape);

 private:
  struct Slot {
    int32_t layer = -1;
    int32_t expert = -1;
    int32_t pins = 0;
    SlotState state = SlotState::kFree;
    bool is_spare = false;
  };
  struct Use {
    uint32_t run = 0;    // of its layer, when last used; 0: never
    float count = 0.0f;  // of uses, decayed up to that run
  };
  struct Candidate {
    float score = 0;
    int slot = 0;
    uint32_t expert_index = 0;  // what it held
    uint32_t last_run = 0;      // of its last use
  };

  size_t index_of(int layer, int expert) const {
    return static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_experts) +
           static_cast<size_t>(expert);
  }
  float score_of(const Slot& slot) const;
  bool is_evictable(const Slot& slot) const {
    return slot.state == SlotState::kReady && slot.pins == 0;
  }
  void find_candidates(size_t most);
  bool is_still_good(const Candidate& candidate) const;
  std::optional<int> take_victim();
  void shrink(int num_slots, std::vector<SlotMove>& moves);

  CacheShape shape_;
  int num_slots_ = 0;
  EvictionPolicy policy_;
  Decay decay_;
  std::vector<Slot> slots_;
  std::vector<int32_t> slot_of_;  // [layer][expert]; -1: in none
  std::vector<Use> uses_;         // [layer][expert]
  std::vector<uint32_t> runs_;    // [layer]
  std::vector<int> free_;
  std::vector<Candidate> candidates_;  // the next victims, best one last
  int runs_since_scan_ = 0;
  int layer_now_ = 0;
  int num_pinned_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace penstock
