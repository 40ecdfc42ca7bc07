#include "server/batch_generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <list>

namespace penstock {
namespace {

using namespace std::chrono_literals;

// Stops when every one of its requests was cancelled: a pass serves all of them at once.
class PassStop {
 public:
  explicit PassStop(const std::vector<std::stop_token>& requests)
      : left_(static_cast<int>(requests.size())) {
    for (const std::stop_token& request : requests) {
      callbacks_.emplace_back(request, [this] {
        if (--left_ == 0) source_.request_stop();
      });
    }
  }
  std::stop_token token() const { return source_.get_token(); }

 private:
  std::atomic<int> left_;
  std::stop_source source_;
  std::list<std::stop_callback<std::function<void()>>> callbacks_;  // first to go
};

}  // namespace

BatchGenerator::BatchGenerator(Engine& engine, BatchGeneratorOptions options)
    : engine_(engine),
      options_(std::move(options)),
      queue_(options_.max_queue, options_.queue_timeout),
      has_idle_work_(options_.idle_work != nullptr) {
  queue_.set_max_running(options_.parallel);
}

Result<std::unique_ptr<BatchGenerator>> BatchGenerator::create(Engine& engine,
                                                               BatchGeneratorOptions options) {
  const int parallel = options.parallel;
  std::unique_ptr<BatchGenerator> generator(new BatchGenerator(engine, std::move(options)));
  for (int i = 0; i < parallel; ++i) {
    generator->slots_.emplace_back(PENSTOCK_TRY(engine.new_session()));
  }
  generator->take_figures();
  return generator;
}

Generator::Submitted BatchGenerator::submit(GenerationRequest request) {
  const int64_t context = engine_.plan_request().context;
  if (std::ssize(request.prompt) > context) {
    const std::scoped_lock lock(mutex_);
    ++figures_.rejected.context;
    return {nullptr,
            {SubmitError::Kind::kTooLong,
             fmt::format("the prompt has {} tokens, the context holds {}", request.prompt.size(),
                         context),
             0}};
  }
  if (request.prompt.empty()) {
    return {nullptr, {SubmitError::Kind::kInvalid, "the prompt is empty", 0}};
  }
  if (request.slot && *request.slot >= options_.parallel) {
    return {nullptr,
            {SubmitError::Kind::kInvalid,
             fmt::format("\"id_slot\" is {}; the slots are 0 to {}", *request.slot,
                         options_.parallel - 1),
             0}};
  }
  return queue_.submit(std::move(request));
}

bool BatchGenerator::is_busy() const {
  return std::ranges::any_of(slots_, [](const Slot& slot) { return slot.run.has_value(); });
}

void BatchGenerator::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    do_actions(false);
    queue_.expire(GenerationJob::Clock::now());
    admit(stop, !is_busy());
    if (!is_busy()) {
      has_idle_work_ = has_idle_work_ && options_.idle_work();
      engine_.watch_memory();
      tell_of_memory();
      continue;
    }
    step();
    sweep();
  }
  for (Slot& slot : slots_) {
    if (slot.run) slot.run->job()->cancel();
  }
  sweep();
  do_actions(true);
}

SlotOutcome BatchGenerator::act(const SlotAction& action) {
  Asked asked{action, {}};
  std::unique_lock lock(mutex_);
  if (!is_over_) {
    asked_.push_back(&asked);
    acted_.wait(lock, [&] { return asked.outcome.has_value(); });
    return *asked.outcome;
  }
  return {.error = Error{ErrorCode::kCancelled, "the server is shutting down"}};
}

// What was asked since the last pass. The lock is not held while a file is written.
void BatchGenerator::do_actions(bool is_last) {
  std::unique_lock lock(mutex_);
  is_over_ = is_last;
  while (!asked_.empty()) {
    Asked* asked = asked_.front();
    asked_.pop_front();
    lock.unlock();
    SlotOutcome outcome = carry_out(asked->action);
    take_figures();
    lock.lock();
    asked->outcome = std::move(outcome);
    acted_.notify_all();
  }
}

SlotOutcome BatchGenerator::carry_out(const SlotAction& action) {
  const auto start = GenerationJob::Clock::now();
  SlotOutcome outcome;
  if (action.slot < 0 || action.slot >= std::ssize(slots_)) {
    outcome.error = Error{ErrorCode::kNotFound, fmt::format("there is no slot {}", action.slot)};
    return outcome;
  }
  Slot& slot = slots_[static_cast<size_t>(action.slot)];
  if (slot.run) {
    outcome.is_busy = true;
    return outcome;
  }
  Result<uint64_t> bytes = uint64_t{0};
  if (action.kind == SlotAction::Kind::kSave) bytes = slot.session.save_as(action.name);
  if (action.kind == SlotAction::Kind::kRestore) bytes = slot.session.restore_from(action.name);
  outcome.tokens = std::ssize(slot.session.tokens());
  if (action.kind == SlotAction::Kind::kErase) slot.session.reset();
  if (!bytes) outcome.error = bytes.error();
  if (bytes) outcome.bytes = *bytes;
  outcome.ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(GenerationJob::Clock::now() - start)
          .count();
  slot.last_used = ++clock_;
  return outcome;
}

// Free sessions take the requests that have waited longest.
void BatchGenerator::admit(const std::stop_token& stop, bool may_wait) {
  while (std::ranges::any_of(slots_, [](const Slot& slot) { return !slot.run; })) {
    const auto job = queue_.take(
        stop, may_wait && !has_idle_work_ ? 250ms : 0ms,
        [this](const GenerationRequest& next) { return !next.slot || !slot_of(next).run; });
    if (job == nullptr) return;
    may_wait = false;
    Slot& slot = job->request().slot ? slot_of(job->request()) : choose_slot(job->request().prompt);
    slot.last_used = ++clock_;
    slot.run.emplace(job, slot.session, engine_);
    slot.run->set_times(&times_);
    times_.queue.add(static_cast<double>(job->progress().queue_ms) / 1e3);
    take_figures();
    sweep();  // it may have ended already, with a prompt that was all known
  }
}

// The one that it asks for.
BatchGenerator::Slot& BatchGenerator::slot_of(const GenerationRequest& request) {
  return slots_[static_cast<size_t>(*request.slot)];
}

// Of the free sessions, the one that holds most of the prompt; else the one unused for longest.
BatchGenerator::Slot& BatchGenerator::choose_slot(std::span<const TokenId> prompt) {
  Slot* best = nullptr;
  std::ptrdiff_t best_common = 0;
  for (Slot& slot : slots_) {
    if (slot.run) continue;
    const auto tokens = slot.session.tokens();
    const auto common =
        std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end()).first -
        tokens.begin();
    const bool is_better = best == nullptr || common > best_common ||
                           (common == best_common && slot.last_used < best->last_used);
    if (!is_better) continue;
    best = &slot;
    best_common = common;
  }
  return *best;
}

void BatchGenerator::add_parts(Batch& batch, const std::vector<Slot*>& slots,
                               std::vector<Part>& parts) {
  int readers = 0;
  for (Slot* slot : slots) {
    if (slot->run->reads_prompt()) {
      ++readers;
      continue;
    }
    const auto next = slot->run->next_tokens(1);
    batch.add(slot->session.sequence(), next, slot->run->wish(next));
    parts.push_back({slot, 1});
  }
  int64_t rows = batch.rows_left();
  if (!parts.empty()) rows = std::min(rows, kPieceBesideAnswers);
  // Prompts share what is left evenly; what one does not need goes to those behind it.
  for (Slot* slot : slots) {
    if (!slot->run->reads_prompt()) continue;
    const int64_t share = std::max<int64_t>(rows / readers--, 1);
    if (rows == 0) break;
    const auto next = slot->run->next_tokens(share);
    batch.add(slot->session.sequence(), next, slot->run->wish(next));
    parts.push_back({slot, std::ssize(next)});
    rows -= std::ssize(next);
  }
}

Result<void> BatchGenerator::pass(std::vector<Slot*> slots) {
  Batch batch(engine_.parts());
  std::vector<Part> parts;
  add_parts(batch, slots, parts);
  std::vector<std::stop_token> stops;
  for (const Part& part : parts) stops.push_back(part.slot->run->job()->stop());
  const PassStop stop(stops);
  const PassFigures figures = PENSTOCK_TRY(batch.run(stop.token()));
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].slot->run->take(figures, i, parts[i].rows);
  }
  note_fault({});
  take_figures();
  return {};
}

void BatchGenerator::step() {
  std::vector<Slot*> slots;
  for (Slot& slot : slots_) {
    if (slot.run && !slot.run->is_cancelled()) slots.push_back(&slot);
  }
  if (slots.empty()) return;
  const Result<void> done = pass(slots);
  if (done || done.error().code == ErrorCode::kCancelled) return;
  for (Slot* slot : slots) {
    if (slot->run->is_cancelled()) continue;
    const Result<void> alone = slots.size() == 1 ? done : pass({slot});
    if (alone || alone.error().code == ErrorCode::kCancelled) continue;
    note_fault(alone.error());
    slot->run->fail(alone.error());
  }
}

// Takes the requests that have ended off their sessions.
void BatchGenerator::sweep() {
  for (Slot& slot : slots_) {
    if (!slot.run) continue;
    if (!slot.run->has_ended() && slot.run->is_cancelled()) {
      const bool is_shutdown = queue_.is_stopping();
      slot.run->end_cancelled(is_shutdown);
      const std::scoped_lock lock(mutex_);
      ++(is_shutdown ? figures_.cancelled.shutdown : figures_.cancelled.disconnect);
    }
    if (slot.run->has_ended()) finish(slot);
  }
}

void BatchGenerator::finish(Slot& slot) {
  const std::shared_ptr<GenerationJob> job = slot.run->job();
  const GenerationProgress progress = job->progress();
  const std::chrono::duration<double> seconds =
      GenerationJob::Clock::now() - job->submitted() - std::chrono::milliseconds(progress.queue_ms);
  const bool has_failed = slot.run->has_failed();
  slot.run.reset();
  queue_.done(job, seconds.count());
  times_.request.add(seconds.count() + static_cast<double>(progress.queue_ms) / 1e3);
  const GenerationMetrics& metrics = progress.metrics;
  const std::scoped_lock lock(mutex_);
  ++figures_.requests;
  figures_.failed += has_failed ? 1 : 0;
  figures_.prompt_tokens += static_cast<uint64_t>(progress.processed_tokens);
  figures_.cached_tokens += static_cast<uint64_t>(progress.cached_tokens);
  figures_.drafts += static_cast<uint64_t>(metrics.drafts);
  figures_.drafts_accepted += static_cast<uint64_t>(metrics.drafts_accepted);
  figures_.prompt_ns += metrics.prompt.wall_ns;
  figures_.answer_ns += metrics.answer.wall_ns;
  figures_.times += metrics.answer.times;
}

// A fault of the disk is told by /health until a pass has met none.
void BatchGenerator::note_fault(const std::optional<Error>& error) {
  const bool is_storage =
      error && (error->code == ErrorCode::kIo || error->code == ErrorCode::kCorrupt);
  const std::scoped_lock lock(mutex_);
  figures_.read_errors += error && error->code == ErrorCode::kIo ? 1 : 0;
  figures_.checksum_errors += error && error->code == ErrorCode::kCorrupt ? 1 : 0;
  if (!error || is_storage) figures_.storage_fault = is_storage ? error->message : "";
}

// What only the computing thread may look at, for those who ask from elsewhere.
void BatchGenerator::take_figures() {
  const ExpertStore& store = engine_.experts();
  const ExpertStore* copy = engine_.low_bit_experts();
  const std::scoped_lock lock(mutex_);
  for (Slot& slot : slots_) {
    if (slot.run) figures_.answer_tokens += slot.run->take_new_tokens();
  }
  figures_.store = engine_.parts().stats();
  figures_.drives = store.drives();
  figures_.expert_reads = store.read_times();
  if (copy != nullptr) figures_.expert_reads += copy->read_times();
  figures_.seconds = times_;
  if (const PrefixStore* prefixes = engine_.parts().prefix_store) {
    figures_.prefixes = prefixes->figures();
  }
  const int64_t copy_slots = copy == nullptr ? 0 : copy->num_slots();
  if (figures_.num_slots != store.num_slots() || figures_.copy_slots != copy_slots) {
    take_memory(store.num_slots(), copy_slots);
  }
  figures_.num_experts = engine_.plan().num_experts;
  figures_.memory_budget_bytes = engine_.plan_request().budget_bytes;
  figures_.held_tokens = 0;
  figures_.slots.clear();
  for (const Slot& slot : slots_) {
    const auto held = std::ssize(slot.session.tokens());
    figures_.held_tokens += held;
    figures_.slots.push_back({static_cast<int>(figures_.slots.size()), slot.run.has_value(),
                              engine_.plan_request().context, held});
  }
}

// Slots come and go while nobody asks for anything, too.
void BatchGenerator::tell_of_memory() {
  const std::string news = engine_.take_news();
  if (!news.empty() && options_.tell) options_.tell(news);
  if (engine_.slots().num_slots() == num_slots_seen_) return;
  num_slots_seen_ = engine_.slots().num_slots();
  take_figures();
}

// What the plan says, with the slots that there are now: other programs may have got some. mutex_ is
// held.
void BatchGenerator::take_memory(int64_t num_slots, int64_t copy_slots) {
  const MemoryPlan& plan = engine_.plan();
  const auto share = [](uint64_t bytes, int64_t planned, int64_t now) {
    return bytes / static_cast<uint64_t>(planned) * static_cast<uint64_t>(now);
  };
  figures_.num_slots = num_slots;
  figures_.copy_slots = copy_slots;
  figures_.memory_parts.clear();
  figures_.memory_used_bytes = 0;
  for (const PlanItem& item : plan.items) {
    uint64_t bytes = item.bytes;
    if (item.purpose == kSlotsItem) bytes = share(bytes, plan.num_slots, num_slots);
    if (item.purpose == kCopySlotsItem) bytes = share(bytes, plan.copy_slots, copy_slots);
    figures_.memory_parts.push_back({item.purpose, bytes});
    figures_.memory_used_bytes += bytes;
  }
}

GeneratorFigures BatchGenerator::figures() const {
  GeneratorFigures figures;
  {
    const std::scoped_lock lock(mutex_);
    figures = figures_;
  }
  figures.running = queue_.running();
  figures.waiting = queue_.waiting();
  const RejectedRequests rejected = queue_.rejected();
  figures.rejected.queue_full += rejected.queue_full;
  figures.rejected.queue_timeout += rejected.queue_timeout;
  figures.rejected.shutdown += rejected.shutdown;
  const CancelledRequests cancelled = queue_.cancelled();
  figures.cancelled.disconnect += cancelled.disconnect;
  figures.cancelled.shutdown += cancelled.shutdown;
  return figures;
}

}  // namespace penstock
