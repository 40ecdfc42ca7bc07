#include "experts/gpu_tier.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/byte_text.h"
#include "base/check.h"
#include "gpu/bit_probe.h"
#include "gpu/gpu_buffer.h"
#include "gpu/gpu_clock.h"

namespace penstock {
namespace {

// Rows that the device has at a time; more come in waves. Enough to keep it busy, and memory for them is
// memory that slots do not get.
constexpr int64_t kRowsMax = 2048;

// Staging for so many copies at a time, or so many bytes.
constexpr int kStagingMax = 8;
constexpr uint64_t kStagingBytes = uint64_t{32} << 20;

// Where a slot must be taken from another expert, the new one has so many times its uses, and one
// more: a copy takes as long as a few uses save.
constexpr float kLead = 1.2f;

// Calls of many tokens go on copying as copies end, for at most so much of the time that they take.
constexpr double kCopiesShare = 0.2;

// While slots are free, all that a call has computed are copied. Afterwards so many of those that do not
// lie there: copying them is work too.
constexpr int64_t kCallShare = 4;

// Once all slots are full, so many change for a token. Where all are used about equally often there is always
// one with clearly more uses, by chance; a copy takes as long as tens of uses save.
constexpr double kExchangesPerToken = 1, kExchangesSaved = 8;

GpuExpertLimits rows_of(const GpuTierLimits& limits) {
  return {.tokens = limits.tokens,
          .places = std::min(limits.tokens * limits.top_k, kRowsMax),
          .hidden_size = limits.hidden_size,
          .expert_width = limits.expert_width};
}

std::string name_of_type(const PartMatrix& place) {
  return place.is_coded ? name_of(place.matrix.coded.coding)
                        : std::string(name_of(place.matrix.dtype));
}

int num_staging(uint64_t slot_bytes) {
  const uint64_t fit = kStagingBytes / slot_bytes;
  return static_cast<int>(std::clamp<uint64_t>(fit, 1, kStagingMax));
}

// Of the device's memory.
struct Needs {
  uint64_t rows, copies, one_slot;

  Needs(const GpuTierLimits& limits, uint64_t slot_bytes) {
    const GpuSlots::Shape one = {.cache = {.num_slots = 1},
                                 .slot_bytes = slot_bytes,
                                 .num_staging = num_staging(slot_bytes)};
    const GpuExperts::Bytes bytes = GpuExperts::bytes_for(rows_of(limits));
    rows = bytes.on_device + bytes.on_host + GpuExperts::kAllocations * kGpuRounding;
    copies = GpuSlots::bytes_for(one).on_host;
    one_slot = GpuSlots::bytes_for(one).on_device;
  }
  uint64_t least() const { return rows + copies + one_slot; }
};

}  // namespace

uint64_t GpuTier::host_bytes(const GpuTierLimits& limits, uint64_t slot_bytes) {
  const auto staging = static_cast<uint64_t>(num_staging(slot_bytes)) * slot_bytes;
  return GpuExperts::bytes_for(rows_of(limits)).on_host + staging + 4 * kGpuRounding;
}

GpuTier::GpuTier(const Share& share, ExpertStore& store, const GpuTierLimits& limits,
                 const GpuOptions& options)
    : gpu_(share.gpu),
      use_(share.use),
      vram_bytes_(share.vram_bytes),
      store_(store),
      limits_(limits),
      options_(options),
      blocks_(*share.gpu.device),
      side_(options.prompts) {}

GpuTier::~GpuTier() {
  PENSTOCK_CHECK(pinned_.empty());
}

Result<std::unique_ptr<GpuTier>> GpuTier::create(const Share& share,
                                                 std::span<const ExpertForm> forms,
                                                 ExpertStore& store, const GpuTierLimits& limits,
                                                 const GpuOptions& options) {
  PENSTOCK_CHECK(std::ssize(forms) == store.table().num_layers());
  std::unique_ptr<GpuTier> tier(new GpuTier(share, store, limits, options));
  for (size_t i = 0; i < forms.size(); ++i) {
    tier->layers_.push_back(lay_out(forms[i], store.table().layers[i]));
    if (tier->layers_.back().is_computed) {
      tier->num_experts_ += store.table().num_experts;
      continue;
    }
    for (const PartMatrix* place : {&forms[i].gate, &forms[i].up, &forms[i].down}) {
      tier->types_left_.insert(name_of_type(*place));
    }
  }
  const GpuSlots::Shape shape = PENSTOCK_TRY(tier->plan_slots(slot_bytes(store.table(), forms)));
  PENSTOCK_TRY(tier->prove(share.codings));
  GpuDevice& device = *tier->gpu_.device;
  tier->experts_ =
      PENSTOCK_TRY(GpuExperts::create(device, rows_of(limits), tier->shapes(), share.host));
  tier->slots_ = PENSTOCK_TRY(GpuSlots::create(device, shape, share.host));
  if (device.allocated_bytes() > tier->gpu_.vram_bytes) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("{} rounds what is asked for up to {}, above the {} that it may use",
                             device.facts().name, format_bytes(device.allocated_bytes()),
                             format_bytes(tier->gpu_.vram_bytes))};
  }
  return tier;
}

Result<int64_t> GpuTier::slots_for(const std::string& name, const GpuTierLimits& limits,
                                   uint64_t slot_bytes, uint64_t vram_bytes) {
  const Needs needs(limits, slot_bytes);
  const uint64_t besides = needs.rows + needs.copies;
  const int64_t slots =
      vram_bytes > besides ? GpuSlots::slots_in(vram_bytes - besides, slot_bytes) : 0;
  if (slots >= 1) return slots;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} of {} are too little: {} for rows of {} tokens, {} for copies and "
                           "one slot of {} make {}; give --vram {} or more",
                           format_bytes(vram_bytes), name, format_bytes(needs.rows), limits.tokens,
                           format_bytes(needs.copies), format_bytes(slot_bytes),
                           format_bytes(needs.least()), needs.least())};
}

uint64_t GpuTier::least_bytes(const GpuTierLimits& limits, uint64_t slot_bytes) {
  return Needs(limits, slot_bytes).least();
}

Result<GpuSlots::Shape> GpuTier::plan_slots(uint64_t slot_bytes) const {
  const std::string& name = gpu_.device->facts().name;
  if (slot_bytes == 0) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: this model's experts cannot be computed there, which takes {}",
                             name, kGpuCodingNames)};
  }
  const int64_t places = PENSTOCK_TRY(slots_for(name, limits_, slot_bytes, vram_bytes_));
  const int guests = guest_places(places, slot_bytes);
  int64_t slots = std::min(places - guests, num_experts_);
  if (options_.num_slots > 0) slots = std::min(slots, options_.num_slots);
  return GpuSlots::Shape{.cache = {.num_layers = store_.table().num_layers(),
                                   .num_experts = store_.table().num_experts,
                                   .num_slots = static_cast<int>(slots)},
                         .slot_bytes = slot_bytes,
                         .num_staging = num_staging(slot_bytes),
                         .num_guests = guests};
}

Result<void> GpuTier::prove(std::span<const GpuCoding> others) const {
  const int64_t inputs = options_.probe_inputs > 0 ? options_.probe_inputs : kProbeInputs;
  std::set<GpuCoding> codings(others.begin(), others.end());
  for (const GpuExpertShape& shape : shapes()) codings.insert({shape.gate_up, shape.down});
  const std::vector<GpuCoding> list(codings.begin(), codings.end());
  const BitProbe probe = PENSTOCK_TRY(probe_bits(*gpu_.device, inputs, list));
  if (probe.is_right()) return {};
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: {}", gpu_.device->facts().name, probe.refusal())};
}

std::optional<int> GpuTier::find_ready(int layer, int expert) const {
  if (is_lost_) return std::nullopt;
  const auto slot = slots_->cache().find(layer, expert);
  if (!slot || slots_->cache().state(*slot) != SlotState::kReady) return std::nullopt;
  if (options_.uses && !options_.uses({layer, expert})) return std::nullopt;
  return slot;
}

// A prompt's, say.
bool GpuTier::is_long() const {
  return choices_ > static_cast<double>(options_.few_tokens * limits_.top_k);
}

// Of an expert that the device has. Who computes those of a call is chosen at the first one that both
// could compute.
bool GpuTier::is_for_processors(ExpertId id) {
  if (!is_long() || !store_.has(id)) return false;
  if (!chosen_) chosen_ = side_.choose(kind_);
  return *chosen_ == Side::kProcessors;
}

bool GpuTier::has(int layer, int expert) const {
  return find_ready(layer, expert).has_value();
}

// What has arrived is not needed below any more.
void GpuTier::settle() {
  const Result<std::span<const int>> arrived = slots_->settle();
  if (!arrived) return lose(arrived.error());
  const ExpertCache& cache = slots_->cache();
  for (const int slot : *arrived) {
    store_.set_spare({cache.layer_of(slot), cache.expert_of(slot)}, true);
  }
}

GpuExpertWork GpuTier::work_for(int slot, const RoutedRows& rows, size_t i) const {
  const uint64_t start = slots_->address(slot);
  const auto at = [&](const GpuPlanes& planes) {
    return GpuPlanes{start + planes.codes, start + planes.scales, start + planes.biases};
  };
  return {.gate = at(layer().gate),
          .up = at(layer().up),
          .down = at(layer().down),
          .up_first_row = layer().up_first_row,
          .tokens = rows.tokens(i),
          .places = rows.places(i)};
}

void GpuTier::choose(int layer, const RoutedRows& rows, std::vector<int32_t>& left) {
  PENSTOCK_CHECK(pinned_.empty() && works_.empty());
  begun_s_ = now_in_seconds();
  copying_s_ = 0;
  choices_ = static_cast<double>(rows.num_choices());
  layer_ = layer;
  rows_of_ = &rows;
  chosen_.reset();
  rows_ = 0;
  left.clear();
  int64_t elsewhere = 0;
  if (use_.is_lost()) lose();
  if (!is_lost_) settle();
  has_guests_ = could_take_guests();
  kind_ = {this->layer().shape.hidden_size, this->layer().shape.expert_width,
           CheaperSide::row_class(rows.num_choices()) + (has_guests_ ? kGuestClasses : 0)};
  if (has_guests_) {
    chosen_ = side_.choose(kind_);
    has_guests_ = *chosen_ == Side::kDevice;
  }
  if (!is_lost_) slots_->cache().begin_run(layer);
  for (size_t i = 0; i < rows.experts().size(); ++i) {
    const int32_t expert = rows.experts()[i];
    if (!is_lost_) slots_->cache().record_use(layer, expert);
    const auto slot = find_ready(layer, expert);
    if (!slot) ++elsewhere;
    if (!slot || is_for_processors({layer, expert})) {
      left.push_back(static_cast<int32_t>(i));
      continue;
    }
    slots_->cache().pin(*slot);
    pinned_.push_back(*slot);
    works_.push_back(work_for(*slot, rows, i));
    rows_ += std::ssize(works_.back().tokens);
  }
  report_.experts += works_.size();
  const double tokens = choices_ / static_cast<double>(limits_.top_k);
  exchanges_left_ =
      std::min(kExchangesSaved,
               exchanges_left_ + kExchangesPerToken * tokens / static_cast<double>(layers_.size()));
  const bool is_full = is_lost_ || slots_->cache().num_free() == 0;
  promotions_left_ = options_.promotions_max >= 0 ? options_.promotions_max
                     : is_full                    ? std::max<int64_t>(1, elsewhere / kCallShare)
                                                  : elsewhere;
}

void GpuTier::begin(Rows x) {
  x_ = x.first(std::min(x.count, limits_.tokens));
  next_work_ = 0;
  next_row_ = 0;
  has_taken_x_ = false;
  if (works_.empty() || is_lost_) return;
  const Result<void> begun = begin_waves();
  if (!begun) lose(begun.error());
}

Result<void> GpuTier::take_x() {
  if (has_taken_x_) return {};
  has_taken_x_ = true;
  return experts_->take(layer().shape, x_);
}

// The next rows, as many as one call takes: an expert's may be shared out.
std::vector<GpuExpertWork> GpuTier::next_wave() {
  std::vector<GpuExpertWork> wave;
  int64_t room = experts_->rows_at_once(rows_);
  while (room > 0 && next_work_ < works_.size()) {
    GpuExpertWork part = works_[next_work_];
    const int64_t rows = std::min(room, std::ssize(part.tokens) - next_row_);
    part.tokens = part.tokens.subspan(static_cast<size_t>(next_row_), static_cast<size_t>(rows));
    part.places = part.places.subspan(static_cast<size_t>(next_row_), static_cast<size_t>(rows));
    wave.push_back(part);
    room -= rows;
    next_row_ += rows;
    if (next_row_ < std::ssize(works_[next_work_].tokens)) continue;
    ++next_work_;
    next_row_ = 0;
  }
  return wave;
}

Result<void> GpuTier::begin_waves() {
  while (next_work_ < works_.size() && experts_->has_room(experts_->rows_at_once(rows_))) {
    PENSTOCK_TRY(take_x());
    PENSTOCK_TRY(experts_->begin(next_wave()));
    is_of_guests_.push_back(false);
  }
  return begin_guests();
}

bool GpuTier::finish(Rows out) {
  PENSTOCK_CHECK(guests_.empty() || is_lost_);
  const auto finish_all = [&]() -> Result<void> {
    while (experts_->under_way() > 0) {
      PENSTOCK_TRY(experts_->finish(out));
      is_of_guests_.pop_front();
      PENSTOCK_TRY(begin_waves());
    }
    return {};
  };
  if (!is_lost_) {
    const Result<void> done = finish_all();
    if (!done) lose(done.error());
  }
  if (!is_lost_) note_time();
  return !is_lost_ || works_.empty();
}

// How long the layer's experts took, where somebody else could have computed some of them.
void GpuTier::note_time() {
  if (chosen_) side_.note(kind_, *chosen_, (now_in_seconds() - begun_s_) / choices_);
}

void GpuTier::end() {
  if (!is_lost_ && experts_->under_way() > 0) {
    const Result<void> dropped = experts_->drop();
    if (!dropped) lose(dropped.error());
  }
  works_.clear();
  PENSTOCK_CHECK(guests_.empty() || is_lost_);
  guests_.clear();
  is_of_guests_.clear();
  for (const int slot : pinned_) slots_->cache().unpin(slot);
  pinned_.clear();
}

void GpuTier::offer(int expert, std::span<const std::byte* const> parts) {
  // Guests are copied sooner.
  if (has_guests_ && slots_->cache().num_free() == 0) return;
  if (is_lost_ || promotions_left_ == 0 || !layer().is_computed || !may_copy()) return;
  ExpertCache& cache = slots_->cache();
  if (cache.find(layer_, expert) || !may_go_there(expert, parts)) return;
  if (cache.num_free() == 0 && !makes_room_for(expert)) return;
  const auto slot = cache.claim(layer_, expert);
  if (!slot) return;
  pieces_ = layer().parts;
  PENSTOCK_CHECK(parts.size() == pieces_.size());
  for (size_t part = 0; part < pieces_.size(); ++part) {
    pieces_[part].bytes = {parts[part], static_cast<size_t>(layer().bytes[part])};
    report_.bytes_copied += layer().bytes[part];
  }
  --promotions_left_;
  ++report_.promotions;
  const double start_s = now_in_seconds();
  const Result<void> filled = slots_->fill(*slot, pieces_);
  if (!filled) lose(filled.error());
  copying_s_ += now_in_seconds() - start_s;
}

// Whether staging memory is free, and not too much of the call went to copies.
bool GpuTier::may_copy() {
  if (!is_long()) return slots_->has_room();
  if (copying_s_ > kCopiesShare * (now_in_seconds() - begun_s_)) return false;
  if (!slots_->has_room()) settle();
  return !is_lost_ && slots_->has_room();
}

bool GpuTier::may_go_there(int expert, std::span<const std::byte* const> parts) {
  if (layer().to_look_at.empty()) return true;
  const auto [known, is_new] = may_go_.try_emplace({layer_, expert}, false);
  if (is_new) {
    known->second = std::ranges::none_of(layer().to_look_at, [&](const PartMatrix& place) {
      return has_tiny_scales(layer().matrix(place, parts));
    });
  }
  return known->second;
}

// Whether another expert is to go for this one. It is then needed below again.
bool GpuTier::makes_room_for(int expert) {
  const bool is_rationed = options_.keeps_best && options_.promotions_max < 0;
  if (is_rationed && exchanges_left_ < 1) return false;
  ExpertCache& cache = slots_->cache();
  const auto victim = cache.next_victim();
  if (!victim) return false;
  const ExpertId loser = {cache.layer_of(*victim), cache.expert_of(*victim)};
  const float needed = kLead * cache.count_of(loser.layer, loser.expert) + 1;
  if (options_.keeps_best && cache.count_of(layer_, expert) < needed) return false;
  store_.set_spare(loser, false);
  ++report_.demotions;
  if (is_rationed) exchanges_left_ -= 1;
  return true;
}

void GpuTier::lose(const Error& error) {
  use_.lose(error);
  lose();
}

// What lies there is needed below again.
void GpuTier::lose() {
  if (is_lost_) return;
  is_lost_ = true;
  const ExpertCache& cache = slots_->cache();
  for (int slot = 0; slot < cache.num_slots(); ++slot) {
    if (cache.state(slot) != SlotState::kReady) continue;
    store_.set_spare({cache.layer_of(slot), cache.expert_of(slot)}, false);
  }
}

GpuReport GpuTier::report() const {
  GpuReport report = report_;
  report.name = gpu_.device->facts().name;
  report.is_lost = use_.is_lost();
  report.vram_bytes = gpu_.vram_bytes;
  report.used_bytes = gpu_.device->peak_bytes();
  report.num_slots = slots_->cache().num_slots();
  report.num_experts = num_experts_;
  report.expert_types_left = {types_left_.begin(), types_left_.end()};
  report.num_kernels = gpu_.device->num_kernels();
  return report;
}

}  // namespace penstock
