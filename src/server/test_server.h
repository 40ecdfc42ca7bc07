// What the tests of the protocols share: a generator that says what it is told, an exchange that keeps
// what was written, and a model without weights.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "server/api/reply.h"
#include "server/generation_queue.h"
#include "text/test_data.h"

namespace penstock {

// Answers every request with the same pieces of text, each as one token, and tells every stage.
class FakeGenerator : public Generator {
 public:
  struct Script {
    std::vector<std::string> pieces = {};
    FinishReason reason = FinishReason::kStop;
    std::optional<Error> error = {};             // at the end, in place of an end
    std::chrono::milliseconds before_prompt{0};  // silence: heartbeats have their time
    bool waits_for_cancel = false;               // after the pieces
    GeneratorFigures figures = {};               // that it tells
  };
  explicit FakeGenerator(Script script) : script_(std::move(script)) {
    thread_ = std::jthread([this](std::stop_token stop) {
      while (!stop.stop_requested()) {
        if (auto job = queue_.take(stop, std::chrono::milliseconds(10))) answer(*job, job);
      }
    });
  }

  Submitted submit(GenerationRequest request) override { return queue_.submit(std::move(request)); }
  GeneratorFigures figures() const override { return script_.figures; }
  SlotOutcome act(const SlotAction&) override { return {}; }
  void drain() override { queue_.drain(); }
  void stop() override { queue_.stop(); }

  std::atomic<bool> was_cancelled{false};

 private:
  static GenerationEvent event(GenerationEvent::Kind kind) {
    GenerationEvent made;
    made.kind = kind;
    return made;
  }

  void answer(GenerationJob& job, const std::shared_ptr<GenerationJob>& shared) {
    using Kind = GenerationEvent::Kind;
    job.emit(event(Kind::kStarted));
    std::this_thread::sleep_for(script_.before_prompt);
    job.update([](GenerationProgress& progress) {
      progress.cached_tokens = 1;
      progress.processed_tokens = progress.prompt_tokens;
    });
    job.emit(event(Kind::kPrompt));
    TokenId next_id = 1;
    for (const std::string& piece : script_.pieces) {
      GenerationEvent token = event(Kind::kToken);
      token.text = piece;
      token.token = next_id++;
      job.update([](GenerationProgress& progress) { ++progress.answer_tokens; });
      job.emit(std::move(token));
    }
    while (script_.waits_for_cancel && !job.stop().stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    was_cancelled = job.stop().stop_requested();
    if (was_cancelled) {
      job.fail({ErrorCode::kCancelled, "cancelled"}, true);
    } else if (script_.error) {
      job.fail(*script_.error);
    } else {
      GenerationEvent end = event(Kind::kChoiceEnded);
      end.reason = script_.reason;
      job.emit(std::move(end));
      job.emit(event(Kind::kFinished));
    }
    queue_.done(shared, 0.001);
  }

  const Script script_;
  GenerationQueue queue_{4};
  std::jthread thread_;  // last: joined before the rest is gone
};

// Keeps what a handler answers.
class FakeExchange : public Exchange {
 public:
  const HttpRequest& request() const override { return request_; }
  void respond(HttpResponse response) override { answer = std::move(response); }
  void begin_stream(const HttpResponse& head) override {
    answer = head;
    streams = true;
  }
  bool write(std::string_view text) override {
    answer.body += text;
    if (leaves_after > 0 && answer.body.size() >= leaves_after) gone_.request_stop();
    return !gone_.stop_requested();
  }
  void end_stream() override { has_ended = true; }
  std::stop_token gone() const override { return gone_.get_token(); }

  void leave() { gone_.request_stop(); }

  // The data of each server-sent event; "[DONE]" as a string.
  std::vector<Json> events() const {
    std::vector<Json> events;
    for (size_t at = answer.body.find("data: "); at != std::string::npos;
         at = answer.body.find("data: ", at + 1)) {
      const size_t end = answer.body.find("\n\n", at);
      const std::string data = answer.body.substr(at + 6, end - at - 6);
      events.push_back(data == "[DONE]" ? Json(data) : *parse_json(data, "event"));
    }
    return events;
  }
  Json body() const { return *parse_json(answer.body, "body"); }

  HttpResponse answer;
  bool streams = false, has_ended = false;
  size_t leaves_after = 0;  // bytes; 0: stays

 private:
  HttpRequest request_;
  std::stop_source gone_;
};

inline const ServedModel& test_model() {
  static const ModelTexts texts = [] {
    ModelTexts made;
    made.tokenizer = *Tokenizer::create(to_text(small_tokenizer()), "tokenizer", 0);
    made.chat_template = *ChatTemplate::create(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% if enable_thinking %}<think>\n{% endif %}{% "
        "endif %}",
        "template");
    return made;
  }();
  static const ServedModel model = [] {
    ServedModel made;
    made.id = "test";
    made.texts = &texts;
    made.stop_ids = {300};
    made.context = 4096;
    made.vocab = 302;
    return made;
  }();
  return model;
}

}  // namespace penstock
