// Answers from a loaded model: one computing thread, which owns the engine, and passes in which all
// running requests go through a layer together, so that each expert is read once for all of them.
//
// Every pass has the next token of each answer that is running, and pieces of the prompts that are
// being read. While answers run, all pieces together are at most kPieceBesideAnswers tokens: so long,
// one such pass, an answer may have to wait for its next token. A pass that fails is tried again with
// each of its requests alone, so that only those fail whose own experts cannot be read.
//
//   auto generator = PENSTOCK_TRY(BatchGenerator::create(engine, options));
//   server.set_ready(&model, generator.get());
//   generator->run(stop);                 // on the thread that opened the engine
//
// Invariants  what a request is answered does not depend on who else is answered beside it
// Threads     run() and create(): the engine's thread. The rest as in generator.h.
// Errors      create(): those of Engine::new_session()
// Memory      `parallel` sessions, planned with the engine
// See also    engine/batch.h, server/generation_run.h
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "server/generation_queue.h"
#include "server/generation_run.h"

namespace penstock {

inline constexpr int64_t kPieceBesideAnswers = 256;

struct BatchGeneratorOptions {
  int max_queue = 32;
  std::chrono::milliseconds queue_timeout{0};  // 0: whoever waits may do so for ever
  int parallel = 1;                            // as the engine was opened for
  // While nobody asks: a few milliseconds of useful work; false when there is none left.
  std::function<bool()> idle_work;
  std::function<void(const std::string&)> tell;  // the engine's news; may be empty
};

class BatchGenerator : public Generator {
 public:
  static Result<std::unique_ptr<BatchGenerator>> create(Engine& engine,
                                                        BatchGeneratorOptions options);

  // Until `stop`: what runs then ends with an error event.
  void run(std::stop_token stop);

  Submitted submit(GenerationRequest request) override;
  GeneratorFigures figures() const override;
  SlotOutcome act(const SlotAction& action) override;
  void drain() override { queue_.drain(); }
  void stop() override { queue_.stop(); }

 private:
  // A session, and the request that it works for.
  struct Slot {
    explicit Slot(Session given) : session(std::move(given)) {}
    Session session;
    std::optional<GenerationRun> run;
    uint64_t last_used = 0;
  };
  struct Part {
    Slot* slot;
    int64_t rows;
  };

  BatchGenerator(Engine& engine, BatchGeneratorOptions options);
  void admit(const std::stop_token& stop, bool may_wait);
  Slot& slot_of(const GenerationRequest& request);
  Slot& choose_slot(std::span<const TokenId> prompt);
  bool is_busy() const;
  void step();
  Result<void> pass(std::vector<Slot*> slots);
  void add_parts(Batch& batch, const std::vector<Slot*>& slots, std::vector<Part>& parts);
  void sweep();
  void finish(Slot& slot);
  void note_fault(const std::optional<Error>& error);
  void take_figures();
  void tell_of_memory();
  void take_memory(int64_t num_slots, int64_t copy_slots);
  void do_actions(bool is_last);
  SlotOutcome carry_out(const SlotAction& action);

  Engine& engine_;
  BatchGeneratorOptions options_;
  GenerationQueue queue_;
  std::deque<Slot> slots_;  // which never move: runs refer to their sessions
  uint64_t clock_ = 0;
  bool has_idle_work_;
  int num_slots_seen_ = 0;
  // An asker waits in act() until its outcome is there.
  struct Asked {
    SlotAction action;
    std::optional<SlotOutcome> outcome;
  };
  GenerationTimes times_;  // the computing thread's; a copy is in figures_
  mutable std::mutex mutex_;
  std::condition_variable acted_;
  std::deque<Asked*> asked_;  // guarded by mutex_
  bool is_over_ = false;      // guarded by mutex_: nobody will do them any more
  GeneratorFigures figures_;  // guarded by mutex_
};

}  // namespace penstock
