#include "experts/local_experts.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "io/read_progress.h"
#include "quant/row_panels.h"

namespace penstock {
namespace {

void check_coded(const PartMatrix& place, const LayerPlaces& places) {
  const Matrix& matrix = place.matrix;
  RowBytes bytes = plane_bytes(matrix.coded.coding, matrix.rows, matrix.columns);
  if (is_in_panels(matrix.coded)) {
    const auto panels = static_cast<uint64_t>(matrix.num_panels());
    bytes = row_panel_bytes(matrix.coded.coding, matrix.columns);
    bytes = {panels * bytes.codes, panels * bytes.scales, panels * bytes.biases};
  }
  const auto check = [&](int index, uint64_t at, uint64_t needed) {
    PENSTOCK_CHECK((index >= 0) == (needed > 0) && index < places.num_parts());
    if (index < 0) return;
    const PartPlace& part = places.parts[static_cast<size_t>(index)];
    PENSTOCK_CHECK(part.tag == kMixedPart || (part.form != nullptr) == is_in_panels(matrix.coded));
    const uint64_t size = part.form != nullptr ? part.form->bytes() : part.bytes;
    PENSTOCK_CHECK(at <= size && size - at >= needed);
  };
  check(place.part, place.at.codes, bytes.codes);
  check(place.scales_part, place.at.scales, bytes.scales);
  check(place.biases_part, place.at.biases, bytes.biases);
}

// A form must fit the parts that the table has for it: whoever made both made a mistake otherwise.
void check_form(const ExpertForm& form, const LayerPlaces& places, int64_t width) {
  for (const PartMatrix* place : {&form.gate, &form.up, &form.down}) {
    const Matrix& matrix = place->matrix;
    PENSTOCK_CHECK(place->part >= 0 && place->part < places.num_parts());
    const PartPlace& part = places.parts[static_cast<size_t>(place->part)];
    if (place->is_coded) {
      check_coded(*place, places);
      continue;
    }
    PENSTOCK_CHECK(part.tag == kMixedPart || part.tag == static_cast<uint32_t>(matrix.dtype));
    PENSTOCK_CHECK(part.alignment % kPanelAlignment == 0 && place->at.codes % kPanelAlignment == 0);
    PENSTOCK_CHECK(place->at.codes + static_cast<uint64_t>(
                                         panel_bytes(matrix.dtype, matrix.rows, matrix.columns)) <=
                   part.bytes);
  }
  PENSTOCK_CHECK(form.gate.first_row == 0 && form.gate.matrix.rows >= width);
  PENSTOCK_CHECK(form.up.first_row >= 0 && form.up.first_row + width <= form.up.matrix.rows);
  PENSTOCK_CHECK(form.down.first_row == 0 && form.down.matrix.columns == width);
}

}  // namespace

LocalExperts::LocalExperts(ExpertStore& store, Backend& backend, std::vector<ExpertForm> forms,
                           Rows hidden, ExpertTier* tier)
    : store_(store),
      backend_(backend),
      forms_(std::move(forms)),
      hidden_(hidden),
      parts_max_(static_cast<size_t>(SlotLayout(store.table()).num_parts_max())),
      tier_(tier) {
  PENSTOCK_CHECK(std::ssize(forms_) == store.table().num_layers());
  for (size_t layer = 0; layer < forms_.size(); ++layer) {
    check_form(forms_[layer], store.table().layers[layer], hidden.width);
  }
  backend_.set_between_ops([this] { keep_reading(); });
}

LocalExperts::~LocalExperts() {
  backend_.set_between_ops({});
}

void LocalExperts::foresee(int layer, const Routing& guess) {
  rank_by_votes(guess, store_.table().num_experts, votes_, wishes_);
  if (tier_ != nullptr) {
    std::erase_if(wishes_, [&](int32_t expert) { return tier_->has(layer, expert); });
  }
  store_.prefetch(layer, wishes_);
}

void LocalExperts::start(int layer, const Routing& routing, Rows x) {
  PENSTOCK_CHECK(!stream_.has_value());
  choices_ = routing.num_tokens * routing.top_k;
  PENSTOCK_CHECK(x.count >= routing.num_tokens && choices_ <= hidden_.count);
  layer_ = layer;
  x_ = x;
  rows_.turn_around(routing, store_.table().num_experts);
  progress_.assign(rows_.experts().size(), {});
  parts_.assign(rows_.experts().size() * parts_max_, nullptr);
  if (tier_ == nullptr) {
    here_.resize(rows_.experts().size());
    std::iota(here_.begin(), here_.end(), 0);
    stream_.emplace(store_.stream(layer, rows_.experts()));
    return;
  }
  tier_->choose(layer, rows_, here_);
  name_experts();
  stream_.emplace(store_.stream(layer, ids_, elsewhere_));
  tier_->begin(x.first(routing.num_tokens));
}

// here_ is in order.
void LocalExperts::name_experts() {
  ids_.clear();
  elsewhere_.clear();
  for (size_t i = 0; i < rows_.experts().size(); ++i) {
    const bool is_here = ids_.size() < here_.size() && static_cast<size_t>(here_[ids_.size()]) == i;
    (is_here ? ids_ : elsewhere_).push_back(rows_.experts()[i]);
  }
}

void LocalExperts::end() {
  stream_.reset();
  if (tier_ != nullptr) tier_->end();
}

Result<ExpertTimes> LocalExperts::finish(Rows out, const std::stop_token& stop) {
  PENSTOCK_CHECK(stream_.has_value() && out.count >= choices_);
  ExpertTimes times;
  for (const int32_t place : rows_.left_out()) std::ranges::fill(out.row(place), 0.0f);
  PENSTOCK_TRY(compute_here(out, stop, times));
  if (tier_ == nullptr) return times;
  const int64_t begin_ns = steady_now_ns();
  const bool is_whole = tier_->finish(out);
  times.compute_ns += steady_now_ns() - begin_ns;
  if (is_whole) return times;
  // Lost: what it took is computed here.
  std::vector<int32_t> lost;
  for (int32_t i = 0; i < std::ssize(rows_.experts()); ++i) {
    if (!std::ranges::binary_search(here_, i)) lost.push_back(i);
  }
  here_ = std::move(lost);
  name_experts();
  stream_.reset();
  stream_.emplace(store_.stream_lost(ids_));
  PENSTOCK_TRY(compute_here(out, stop, times));
  return times;
}

Result<void> LocalExperts::compute_here(Rows out, const std::stop_token& stop, ExpertTimes& times) {
  int64_t now_ns = steady_now_ns();
  for (;;) {
    const std::span<const ExpertArrival> arrivals = PENSTOCK_TRY(stream_->next(stop));
    const int64_t arrived_ns = steady_now_ns();
    times.wait_ns += arrived_ns - now_ns;
    if (arrivals.empty()) return {};
    compute(arrivals, out);
    now_ns = steady_now_ns();
    times.compute_ns += now_ns - arrived_ns;
  }
}

void LocalExperts::note(const ExpertArrival& arrival) {
  const size_t i = index_of(arrival);
  parts_[i * parts_max_ + static_cast<size_t>(arrival.part)] = arrival.data.data();
  progress_[i].parts_here = arrival.part + 1;  // they come in order
}

Matrix LocalExperts::matrix_of(const PartMatrix& place, size_t expert) const {
  const auto address = [&](int part, uint64_t at) {
    return part < 0 ? nullptr : parts_[expert * parts_max_ + static_cast<size_t>(part)] + at;
  };
  Matrix matrix = place.matrix;
  if (place.is_coded) {
    matrix.coded.codes = address(place.part, place.at.codes);
    matrix.coded.scales = address(place.scales_part, place.at.scales);
    matrix.coded.biases = address(place.biases_part, place.at.biases);
  } else {
    matrix.panels = address(place.part, place.at.codes);
  }
  return matrix;
}

ExpertWork LocalExperts::work_for(size_t i) const {
  return {.tokens = rows_.tokens(i), .places = rows_.places(i)};
}

void LocalExperts::add_gate_up(size_t i) {
  const ExpertForm& form = forms_[static_cast<size_t>(layer_)];
  ExpertWork work = work_for(i);
  work.gate = matrix_of(form.gate, i);
  work.up = matrix_of(form.up, i);
  work.up_first_row = form.up.first_row;
  gate_up_work_.push_back(work);
  progress_[i].has_hidden = true;  // several of its parts in one batch: listed again, computed once
}

void LocalExperts::add_down(size_t i) {
  ExpertWork work = work_for(i);
  work.down = matrix_of(forms_[static_cast<size_t>(layer_)].down, i);
  down_work_.push_back(work);
  finished_.push_back(static_cast<int32_t>(i));
  progress_[i].is_done = true;
}

// What the parts that came suffice for: gate and up first, for all experts at once, then down.
void LocalExperts::compute(std::span<const ExpertArrival> arrivals, Rows out) {
  const ExpertForm& form = forms_[static_cast<size_t>(layer_)];
  const int for_hidden = std::max(form.gate.last_part(), form.up.last_part()) + 1;
  const int num_parts = store_.table().layer(layer_).num_parts();
  for (const ExpertArrival& arrival : arrivals) note(arrival);
  if (tier_ != nullptr && tier_->takes_guests()) find_shared(arrivals);
  for (const ExpertArrival& arrival : arrivals) {
    const size_t i = index_of(arrival);
    const Progress& progress = progress_[i];
    if (progress.is_shared || progress.has_hidden || progress.parts_here < for_hidden) continue;
    add_gate_up(i);
  }
  for (const ExpertArrival& arrival : arrivals) {
    const size_t i = index_of(arrival);
    const Progress& progress = progress_[i];
    if (progress.is_shared || progress.is_done || progress.parts_here < num_parts) continue;
    add_down(i);
  }
  run_work(out);
  if (!shared_.empty()) share(out);
}

// The work that was listed.
void LocalExperts::run_work(Rows out) {
  const Rows hidden = hidden_.first(choices_);
  const auto num_parts = static_cast<size_t>(store_.table().layer(layer_).num_parts());
  if (!gate_up_work_.empty()) backend_.expert_gate_up(x_, gate_up_work_, hidden);
  if (!down_work_.empty()) backend_.expert_down(hidden, down_work_, out);
  for (const int32_t i : finished_) {
    if (tier_ != nullptr) {
      tier_->offer(rows_.experts()[static_cast<size_t>(i)],
                   std::span(parts_).subspan(static_cast<size_t>(i) * parts_max_, num_parts));
    }
    release(i);
  }
  gate_up_work_.clear();
  down_work_.clear();
  finished_.clear();
}

// Of rows_, who was asked for as well.
void LocalExperts::release(int32_t expert) {
  const auto place = std::ranges::lower_bound(here_, expert);
  stream_->release(static_cast<int32_t>(place - here_.begin()));
}

// Experts nothing of which is computed and all of whose parts have come.
void LocalExperts::find_shared(std::span<const ExpertArrival> arrivals) {
  const auto num_parts = static_cast<size_t>(store_.table().layer(layer_).num_parts());
  for (const ExpertArrival& arrival : arrivals) {
    const size_t i = index_of(arrival);
    Progress& progress = progress_[i];
    const bool is_whole = progress.parts_here == static_cast<int>(num_parts);
    if (!is_whole || progress.has_hidden || progress.is_shared) continue;
    const ExpertTier::Guest guest = {.index = static_cast<int32_t>(i),
                                     .parts = std::span(parts_).subspan(i * parts_max_, num_parts)};
    if (!tier_->may_be_guest(guest)) continue;
    progress.is_shared = true;
    shared_.push_back(guest);
  }
}

// To read and unpack an expert takes the processors about as long as so many of its rows.
constexpr double kRowsOfWeights = 4;

double LocalExperts::rows_for(std::span<const ExpertTier::Guest> list) const {
  double rows = 0;
  for (const ExpertTier::Guest& each : list) {
    rows +=
        kRowsOfWeights + static_cast<double>(rows_.tokens(static_cast<size_t>(each.index)).size());
  }
  return rows;
}

void LocalExperts::compute_whole(std::span<const ExpertTier::Guest> list, Rows out) {
  for (const ExpertTier::Guest& each : list) {
    add_gate_up(static_cast<size_t>(each.index));
    add_down(static_cast<size_t>(each.index));
  }
  run_work(out);
}

// From one end here, in pieces, since the tier goes on only between them; from the other end there.
void LocalExperts::share(Rows out) {
  constexpr double kPiece_s = 0.7e-3, kUnknown_s = 1e9, kLatest = 0.25;
  constexpr size_t kPieceLeast = 4, kPieceMost = 32;
  const auto rows_of = [&](const ExpertTier::Guest& guest) {
    return rows_.tokens(static_cast<size_t>(guest.index)).size();
  };
  std::ranges::stable_sort(shared_, {}, rows_of);
  const std::span all(shared_);
  size_t begin = 0, end = all.size(), num_ended = 0;
  bool is_lost = false;
  while (begin + num_ended < all.size() && !is_lost) {
    const auto left = all.subspan(begin, end - begin);
    end -= tier_->take_guests(left, row_s_ > 0 ? row_s_ * rows_for(left) : kUnknown_s);
    if (begin < end) {
      size_t count = std::min(end - begin, kPieceLeast);
      while (begin + count < end && count < kPieceMost &&
             row_s_ * rows_for(all.subspan(begin, count)) < kPiece_s) {
        ++count;
      }
      const auto piece = all.subspan(begin, count);
      const int64_t start_ns = steady_now_ns();
      compute_whole(piece, out);
      const double row_s = static_cast<double>(steady_now_ns() - start_ns) * 1e-9 / rows_for(piece);
      row_s_ += (row_s_ > 0 ? kLatest : 1) * (row_s - row_s_);
      begin += count;
    }
    ended_.clear();
    is_lost = !tier_->keep_going(out, begin == end, ended_);
    for (const int32_t i : ended_) {
      progress_[static_cast<size_t>(i)].is_done = true;
      release(i);
    }
    num_ended += ended_.size();
    keep_reading();
  }
  if (is_lost) {
    std::erase_if(shared_, [&](const ExpertTier::Guest& guest) {
      return progress_[static_cast<size_t>(guest.index)].is_done;
    });
    compute_whole(shared_, out);
  }
  shared_.clear();
}

}  // namespace penstock
