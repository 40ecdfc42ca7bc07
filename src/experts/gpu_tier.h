// Experts in the memory of a GPU, computed there: the nearest tier.
//
// Whoever was just computed by the processors is offered and, where its uses are worth it, copied
// over while others are computed; from the next call on it is computed there. Nothing waits for that:
// a copy starts only when staging memory is free, and in calls of many tokens only while copies have taken less
// than a fifth of the time. An expert is replaced only by one that was used
// clearly more often (kLead), at most one a token, so that the line to the device does not carry them back
// and forth. What lies here stays in the slots below as long as nobody needs these (ExpertStore::set_spare).
//
// Calls of many tokens, whose experts processors do well, are done by whichever of both takes less time:
// the device what it has and the processors meanwhile the others, or the processors all that is in RAM. In the
// former case the device also takes guests, where it can reach RAM (gpu_host_blocks.h): the copies of one wave of
// experts are on their way while another one is computed. Into free slots they go to stay.
//
// When the device is lost, answers no more or has no memory, a line says so, the processors compute
// what it had taken, and it is never asked again. The rows are the same bits either way.
//
// Threads  the computing thread; workers move rows and bytes of the host's, and never touch the device
// Memory   of the device, and what it shares with the host, at most what the budget leaves; all of it
//          allocated in create(). Its drivers' own is not counted
// Errors   create(), slots_for(): kInvalidArgument (the budget is too small, with the numbers).
//          create(): kUnsupported (types of experts; wrong bits), kOutOfMemory, kIo. Later none: it is
//          lost instead
// See also docs/gpu.md
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "experts/expert_source.h"
#include "experts/expert_tier.h"
#include "experts/gpu_choice.h"
#include "experts/gpu_options.h"
#include "experts/gpu_slots.h"
#include "gpu/cheaper_side.h"
#include "gpu/gpu_experts.h"
#include "gpu/gpu_host_blocks.h"
#include "gpu/gpu_use.h"
#include "store/expert_store.h"

namespace penstock {

// The largest call of a model.
struct GpuTierLimits {
  int64_t tokens = 1;        // rows of x
  int64_t top_k = 0;         // K
  int64_t hidden_size = 0;   // H
  int64_t expert_width = 0;  // I
  int sequences = 1;
};

class GpuTier final : public ExpertTier {
 public:
  // What it shares, and how much of the GPU's memory is its own.
  struct Share {
    ChosenGpu& gpu;
    GpuUse& use;
    uint64_t vram_bytes = 0;
    std::span<const GpuCoding> codings = {};  // of what else is multiplied there: to be proved too
    HostRows host = HostRows();
  };
  // forms: of the layers of the store's table. GPU and store outlive it.
  static Result<std::unique_ptr<GpuTier>> create(const Share& share,
                                                 std::span<const ExpertForm> forms,
                                                 ExpertStore& store, const GpuTierLimits& limits,
                                                 const GpuOptions& options);
  ~GpuTier() override;
  GpuTier(const GpuTier&) = delete;
  GpuTier& operator=(const GpuTier&) = delete;

  // Of this machine's memory, at most, where the device has its own: rows and copies in between.
  static uint64_t host_bytes(const GpuTierLimits& limits, uint64_t slot_bytes);
  // How many slots `vram_bytes` of the device called `name` are, besides rows and copies; at least 1.
  static Result<int64_t> slots_for(const std::string& name, const GpuTierLimits& limits,
                                   uint64_t slot_bytes, uint64_t vram_bytes);
  // Of the device's memory, with one slot.
  static uint64_t least_bytes(const GpuTierLimits& limits, uint64_t slot_bytes);
  // Of the largest expert that can be computed; 0: none can.
  static uint64_t slot_bytes(const ExpertTable& table, std::span<const ExpertForm> forms);

  bool has(int layer, int expert) const override;
  void choose(int layer, const RoutedRows& rows, std::vector<int32_t>& left) override;
  void begin(Rows x) override;
  void offer(int expert, std::span<const std::byte* const> parts) override;
  bool takes_guests() const override { return has_guests_; }
  bool may_be_guest(const Guest& guest) override;
  size_t take_guests(std::span<const Guest> ready, double seconds) override;
  bool keep_going(Rows out, bool waits, std::vector<int32_t>& ended) override;
  bool finish(Rows out) override;
  void end() override;

  // Starts to reach into the slots below, so that the first call finds it done.
  void reach_slots();
  // Of those behind so many, whose memory will be given back.
  void let_go_of_slots(int num_slots) { blocks_.let_go_beyond(num_slots); }

  GpuReport report() const;

 private:
  // How the experts of a layer lie in a slot.
  struct Layer {
    bool is_computed = false;
    GpuExpertShape shape;
    std::vector<SlotPiece> parts;  // without addresses
    std::vector<uint64_t> bytes;   // of each
    uint64_t end = 0;              // of the last one
    GpuPlanes gate, up, down;      // from the slot's beginning on
    int64_t up_first_row = 0;
    std::vector<PartMatrix> to_look_at;  // whose scales may be too small for a device

    Matrix matrix(const PartMatrix& place, std::span<const std::byte* const> here) const;
  };

  // Of the row classes of calls with guests, which are kinds of their own.
  static constexpr int64_t kGuestClasses = 64;

  // Guests whose copies go together.
  struct GuestWave {
    std::vector<int32_t> who;          // indices of rows
    std::vector<GpuExpertWork> works;  // of these
    std::vector<int> places;           // where they go: places of guests, or slots to stay in
    int64_t rows = 0;
    Fence copied;
    double begun_s = 0;
    bool is_computed = false;
  };

  GpuTier(const Share& share, ExpertStore& store, const GpuTierLimits& limits,
          const GpuOptions& options);
  static Layer lay_out(const ExpertForm& form, const LayerPlaces& places);
  Result<GpuSlots::Shape> plan_slots(uint64_t slot_bytes) const;
  Result<void> prove(std::span<const GpuCoding> others) const;
  std::vector<GpuExpertShape> shapes() const;
  bool may_go_there(int expert, std::span<const std::byte* const> parts);
  const Layer& layer() const { return layers_[static_cast<size_t>(layer_)]; }
  std::optional<int> find_ready(int layer, int expert) const;
  bool is_long() const;  // the call
  bool is_for_processors(ExpertId id);
  void settle();
  int guest_places(int64_t places, uint64_t slot_bytes) const;
  bool could_take_guests();
  std::optional<int> place_for_guest(int expert);
  void add_pieces(int place, const Guest& guest);
  Result<void> begin_guests();
  Result<void> end_oldest(Rows out, std::vector<int32_t>& ended);
  Result<bool> take_in(const GuestWave& wave);
  GpuExpertWork work_for(int slot, const RoutedRows& rows, size_t i) const;
  Result<void> take_x();
  Result<void> begin_waves();
  std::vector<GpuExpertWork> next_wave();
  void note_time();
  bool may_copy();
  bool makes_room_for(int expert);
  void lose(const Error& error);
  void lose();

  ChosenGpu& gpu_;
  GpuUse& use_;
  const uint64_t vram_bytes_;
  ExpertStore& store_;
  const GpuTierLimits limits_;
  const GpuOptions options_;
  std::vector<Layer> layers_;
  int64_t num_experts_ = 0;           // that can be computed
  std::set<std::string> types_left_;  // of the others
  std::optional<GpuSlots> slots_;
  std::map<std::pair<int, int>, bool> may_go_;  // [layer, expert], once its scales were looked at
  std::optional<GpuExperts> experts_;
  GpuHostBlocks blocks_;
  double wave_s_ = 0;          // that a wave of guests takes beside others; 0: not known
  double exchanges_left_ = 0;  // of experts there for others
  bool is_lost_ = false;
  GpuReport report_;
  CheaperSide side_;

  // Of the call.
  int layer_ = 0;
  const RoutedRows* rows_of_ = nullptr;
  Rows x_;
  bool has_taken_x_ = false;
  int64_t promotions_left_ = 0;
  std::vector<int> pinned_;           // slots
  std::vector<GpuExpertWork> works_;  // all that it took
  int64_t rows_ = 0;                  // of these
  size_t next_work_ = 0;              // that no wave has
  int64_t next_row_ = 0;              // of that work
  // Who computes experts that are in RAM as well; nothing where no such one is among them, or always the
  // same.
  std::optional<Side> chosen_;
  CheaperSide::Kind kind_;
  double begun_s_ = 0, copying_s_ = 0, choices_ = 0;
  std::vector<SlotPiece> pieces_;
  bool has_guests_ = false;
  std::deque<GuestWave> guests_;   // under way; those that are computed come first
  std::deque<bool> is_of_guests_;  // of what experts_ has under way
  std::vector<int> free_places_;
  double last_end_s_ = 0;  // when a call of the device was finished
  std::vector<GpuSlots::Brought> brought_;
};

}  // namespace penstock
