#include "dialogue/warm_start.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "io/locks.h"

namespace penstock {
namespace {

// So long a key may have to wait, besides the checksums of what came.
constexpr std::chrono::nanoseconds kReadStep = std::chrono::milliseconds(5);

}  // namespace

WarmStart::WarmStart(Engine& engine, Storage& storage, std::string path)
    : engine_(engine), storage_(storage), path_(std::move(path)) {}

UsageOwner WarmStart::owner() const {
  return {.model = engine_.files().id(),
          .num_layers = static_cast<int>(engine_.config().num_moe_layers()),
          .num_experts = static_cast<int>(engine_.config().num_experts)};
}

Result<size_t> WarmStart::load() {
  if (path_.empty()) return size_t{0};
  Result<ExpertUsage> usage = load_usage(storage_, path_, owner());
  if (!usage) {
    if (usage.error().code == ErrorCode::kNotFound) return size_t{0};
    return usage.error();
  }
  counts_at_load_ = usage->counts;
  // The file knows the prediction block's experts too, the store only where it is used.
  usage->set_layers(static_cast<int>(engine_.plan_request().config.num_moe_layers()));
  const std::vector<ExpertId> experts = most_used(*usage);
  engine_.experts().restore_usage(*usage);
  if (engine_.slots_are_coming()) {
    later_ = experts;
  } else {
    engine_.experts().preload(experts);
  }
  return experts.size();
}

uint64_t WarmStart::num_wanted() const {
  if (later_.empty()) return report().wanted;
  return std::min<uint64_t>(later_.size(), static_cast<uint64_t>(engine_.slots().limits().full));
}

bool WarmStart::read_more() {
  if (!later_.empty()) {
    engine_.watch_memory();
    if (engine_.slots_are_coming()) {
      std::this_thread::sleep_for(kReadStep);
      return true;
    }
    engine_.experts().preload(std::exchange(later_, {}));
  }
  return report().wanted > 0 && engine_.experts().preload_more(kReadStep);
}

// Counts of the file that were not there when this run began.
void WarmStart::add_what_others_kept(ExpertUsage& usage) const {
  const Result<ExpertUsage> now = load_usage(storage_, path_, owner());
  if (!now || now->counts.size() != usage.counts.size()) return;
  for (size_t i = 0; i < usage.counts.size(); ++i) {
    const float before = i < counts_at_load_.size() ? counts_at_load_[i] : 0;
    usage.counts[i] += std::max(0.0f, now->counts[i] - before);
  }
}

Result<void> WarmStart::save() {
  if (path_.empty() || engine_.experts().stats().steps == 0) return {};
  ExpertUsage usage = engine_.experts().usage();
  usage.set_layers(owner().num_layers);
  const std::string folder = std::filesystem::path(path_).parent_path();
  PENSTOCK_TRY(storage_.make_directory(folder));
  // Against another run between reading and writing; without a lock the later one stays.
  const auto lock = lock_in_turn(storage_, folder + ".lock", kTurnOfAnother);
  add_what_others_kept(usage);
  return save_usage(storage_, path_, owner(), usage);
}

}  // namespace penstock
