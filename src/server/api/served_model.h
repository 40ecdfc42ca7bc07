// What the protocols need to know of the model that is served, and what the server was told.
//
// Threads  constant once made
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "dialogue/turn_memory.h"
#include "engine/sampler.h"
#include "grammar/tool_grammar.h"
#include "server/generator.h"
#include "text/model_texts.h"

namespace penstock {

class Constraints;

struct ServedModel {
  std::string id;                    // as /v1/models tells it
  std::vector<std::string> aliases;  // further names
  const ModelTexts* texts = nullptr;
  ToolForm tool_form = ToolForm::kTagged;
  Constraints* constraints = nullptr;  // outlives the server, as the texts do
  TurnMemory* turns = nullptr;         // likewise
  // Calls that broke off, and values that were not of their schema's type; likewise, for /metrics.
  std::atomic<uint64_t>* call_failures = nullptr;
  SamplingOptions sampling;  // where a request says nothing
  std::vector<TokenId> stop_ids;
  int64_t context = 0;  // positions of one sequence
  int64_t vocab = 0;    // ids that can be sampled
  int64_t created = 0;  // seconds since 1970
  // What an answer's bits depend on: build, arithmetic, experts per token, container. Not the
  // instruction set: all give the same.
  std::string fingerprint;
  std::string version;          // of penstock
  Json about = Json::object();  // further facts, for /props and /api/show

  // What the command line says.
  std::optional<bool> thinking;    // --think
  int64_t max_tokens_default = 0;  // 0: the rest of the context
  std::optional<int64_t> reasoning_budget;
  bool refuses_unknown_fields = false;  // --strict-fields
  bool refuses_other_models = false;    // --strict-model
  int ping_interval_ms = 10'000;        // 0: no heartbeats
  int json_ping_interval_ms = 0;        // of answers that are not streamed; 0: none
  bool tells_reasoning = true;          // as reasoning_content
  bool tells_reasoning_short = false;   // as reasoning
};

// Ids and aliases without case; anything else only where other models are not refused.
bool answers_to(const ServedModel& model, const std::string& name);

}  // namespace penstock
