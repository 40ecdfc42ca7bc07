// logits: what the model computes for given tokens, as a safetensors file to compare with others.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/drive_report.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "cli/token_file.h"
#include "format/safetensors.h"

namespace penstock {
namespace {

// Where no --context says how many: beyond the longest context of any model of today.
constexpr int64_t kTokensMax = 1 << 20;

// The choices of one layer for all tokens, kept until the logits are written.
struct LayerRoutes {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

std::vector<SafetensorsWriter::Plan> plan_tensors(Engine& engine, int64_t num_tokens,
                                                  bool with_routes) {
  std::vector<SafetensorsWriter::Plan> tensors;
  tensors.push_back({"logits", "F32", {num_tokens, engine.config().vocab_size}});
  if (!with_routes) return tensors;
  const std::vector<int64_t> shape = {num_tokens, engine.experts_per_token()};
  for (int64_t layer = 0; layer < engine.config().num_expert_layers(); ++layer) {
    tensors.push_back({fmt::format("router.{}.ids", layer), "I32", shape});
    tensors.push_back({fmt::format("router.{}.weights", layer), "F32", shape});
  }
  return tensors;
}

// Receives rows from the session and writes them; remembers the first failure and stops the work.
class LogitsFile {
 public:
  LogitsFile(SafetensorsWriter writer, Engine& engine, Progress& progress, int64_t num_tokens)
      : writer_(std::move(writer)),
        progress_(progress),
        num_tokens_(num_tokens),
        routes_(static_cast<size_t>(engine.config().num_expert_layers())) {}

  std::stop_source& stop() { return stop_; }
  const Result<void>& failure() const { return failure_; }

  void add_logits(int64_t position, std::span<const float> logits) {
    if (!failure_) return;
    if (!std::ranges::all_of(logits, [](float x) { return std::isfinite(x); })) {
      failure_ = Error{ErrorCode::kCorrupt,
                       fmt::format("the logits of position {} are not all numbers", position)};
    } else {
      failure_ = writer_.append(std::as_bytes(logits));
    }
    if (!failure_) stop_.request_stop();
    progress_.update(static_cast<uint64_t>(position + 1), static_cast<uint64_t>(num_tokens_));
  }

  void add_routes(int64_t layer, const Routing& routing) {
    const auto count = routing.num_tokens * routing.top_k;
    LayerRoutes& routes = routes_[static_cast<size_t>(layer)];
    routes.experts.insert(routes.experts.end(), routing.experts.begin(),
                          routing.experts.begin() + count);
    routes.weights.insert(routes.weights.end(), routing.weights.begin(),
                          routing.weights.begin() + count);
  }

  Result<void> finish() {
    for (const LayerRoutes& routes : routes_) {
      PENSTOCK_TRY(writer_.append(std::as_bytes(std::span(routes.experts))));
      PENSTOCK_TRY(writer_.append(std::as_bytes(std::span(routes.weights))));
    }
    return writer_.finish();
  }

 private:
  SafetensorsWriter writer_;
  Progress& progress_;
  int64_t num_tokens_;
  std::vector<LayerRoutes> routes_;  // empty without --routes
  Result<void> failure_;
  std::stop_source stop_;
};

Result<void> write_logits(Call& call, Engine& engine, std::span<const TokenId> ids,
                          const std::string& path) {
  const bool with_routes = call.settings.is_on("routes");
  Session session = PENSTOCK_TRY(engine.new_session());
  SafetensorsWriter writer = PENSTOCK_TRY(SafetensorsWriter::create(
      call.storage, path, plan_tensors(engine, std::ssize(ids), with_routes),
      {{"model_id", engine.files().id_text()},
       {"experts_per_token", std::to_string(engine.experts_per_token())},
       {"lossy", engine.is_lossy() ? "true" : "false"}}));
  Progress progress(call.terminal, "evaluating", Progress::Unit::kItems);
  LogitsFile file(std::move(writer), engine, progress, std::ssize(ids));
  RouteObserver on_route;
  if (with_routes) {
    on_route = [&](int64_t layer, const Routing& routing, Rows) {
      file.add_routes(layer, routing);
    };
  }
  const std::stop_callback interrupted(call.interrupt.token(), [&] { file.stop().request_stop(); });
  const Result<PhaseMetrics> evaluated = session.evaluate(
      ids,
      [&](int64_t position, std::span<const float> logits) { file.add_logits(position, logits); },
      on_route, file.stop().get_token());
  PENSTOCK_TRY(file.failure());
  PENSTOCK_TRY(evaluated);
  return file.finish();
}

Result<std::string> required(const Settings& settings, const char* name, const char* what) {
  if (settings.is_given(name)) return settings.text(name);
  return Error{ErrorCode::kInvalidArgument, fmt::format("--{} FILE is missing: {}", name, what)};
}

}  // namespace

Result<int> logits_verb(Call& call) {
  const std::string ids_path =
      PENSTOCK_TRY(required(call.settings, "ids", "the tokens to evaluate"));
  const std::string path = PENSTOCK_TRY(required(call.settings, "out", "the file to write"));
  const int64_t context = call.settings.integer("context");
  const std::vector<TokenId> ids =
      PENSTOCK_TRY(read_token_file(call.storage, ids_path, context > 0 ? context : kTokensMax));
  EngineOptions options = PENSTOCK_TRY(engine_options(call));
  if (options.context == 0) options.context = std::max<int64_t>(1, std::ssize(ids));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  PENSTOCK_TRY(write_logits(call, *engine, ids, path));
  tell_drives(call, engine->experts().drives());
  if (call.json()) {
    call.output.write_line(Json{{"out", path},
                                {"tokens", ids.size()},
                                {"vocab_size", engine->config().vocab_size},
                                {"lossy", engine->is_lossy()},
                                {"experts_per_token", engine->experts_per_token()}});
  }
  return kExitDone;
}

}  // namespace penstock
