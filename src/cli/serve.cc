// serve: the model behind a port, for agents, programs and people.

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "cli/stop_wait.h"
#include "cli/warm_start_teller.h"
#include "dialogue/constraints.h"
#include "dialogue/conversation.h"
#include "dialogue/turn_end.h"
#include "io/checksum.h"
#include "server/batch_generator.h"
#include "server/server.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

// Beside requests that compute or wait: what is parsed, refused, or told about the server.
constexpr int kFurtherWorkers = 8;

Result<std::vector<std::string>> read_keys(const Call& call) {
  std::vector<std::string> keys = call.settings.list("api-key");
  if (call.settings.is_given("api-key-file")) {
    constexpr uint64_t kKeysBytesMax = 1 << 20;
    const std::string& path = call.settings.text("api-key-file");
    const Result<std::string> text = read_text(call.storage, path, kKeysBytesMax);
    if (!text) {
      return Error{ErrorCode::kInvalidArgument, "--api-key-file: " + text.error().message};
    }
    const std::vector<std::string> more = keys_of(*text);
    if (more.empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("--api-key-file: {} has no key", path)};
    }
    keys.insert(keys.end(), more.begin(), more.end());
  }
  return keys;
}

Result<ServerOptions> server_options(Call& call) {
  const Settings& settings = call.settings;
  ServerOptions options;
  options.http.host = settings.text("host");
  options.http.port = static_cast<int>(settings.integer("port"));
  options.http.max_connections = static_cast<int>(settings.integer("max-connections"));
  options.http.max_per_address = static_cast<int>(settings.integer("max-connections-per-address"));
  options.http.counts_loopback = settings.is_given("max-connections-per-address");
  options.http.workers =
      static_cast<int>(settings.integer("max-queue") + settings.integer("parallel")) +
      kFurtherWorkers;
  options.access.allowed_hosts = settings.list("allowed-host");
  options.access.cors_origins = settings.list("cors-origin");
  options.keys = PENSTOCK_TRY(read_keys(call));
  options.is_open_knowingly = settings.is_on("i-know");
  options.has_page = settings.is_on("page");
  options.version = PENSTOCK_VERSION;
  return options;
}

// SIGHUP: the keys of the file as they are now; those of before where it cannot be read, so that
// nobody gets in by breaking it.
class KeysOnHangup {
 public:
  KeysOnHangup(Call& call, Server& server) : call_(call) {
    call.interrupt.set_hangup([&call, &server] {
      if (!call.settings.is_given("api-key-file")) return;
      const Result<std::vector<std::string>> keys = read_keys(call);
      if (keys) server.set_keys(*keys);
      if (keys) call.terminal.note("the keys were read again");
      if (!keys) call.terminal.warning(keys.error().message + "; the keys stay as they were");
    });
  }
  ~KeysOnHangup() { call_.interrupt.set_hangup({}); }
  KeysOnHangup(const KeysOnHangup&) = delete;
  KeysOnHangup& operator=(const KeysOnHangup&) = delete;

 private:
  Call& call_;
};

std::string last_part(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  std::string name = path.substr(path.find_last_of('/') + 1);
  if (name.ends_with(".penstock")) name.resize(name.size() - 9);
  return name.empty() || name == "." ? "penstock" : name;
}

// Those of the model's files and of its template.
std::vector<TokenId> all_stop_ids(const Engine& engine) {
  std::vector<TokenId> ids = engine.stop_ids();
  const auto end = turn_end(engine.texts());
  if (end && std::ranges::find(ids, *end) == ids.end()) ids.push_back(*end);
  return ids;
}

ServedModel served_model(const Call& call, const Engine& engine, const SamplingOptions& sampling,
                         const std::vector<TokenId>& stop_ids) {
  const Settings& settings = call.settings;
  ServedModel model;
  model.id = last_part(call.line.arguments.front());  // as it was typed
  model.aliases = settings.list("alias");
  model.texts = &engine.texts();
  model.sampling = sampling;
  model.stop_ids = stop_ids;
  model.context = engine.plan_request().context;
  model.vocab = engine.sampled_vocab();
  model.created = std::chrono::duration_cast<std::chrono::seconds>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count();
  model.version = PENSTOCK_VERSION;
  model.fingerprint =
      fmt::format("penstock-{}-{}-k{}-{}", PENSTOCK_VERSION, settings.text("arithmetic"),
                  engine.experts_per_token(), engine.files().id_text());
  if (!engine.expert_limits().is_off()) {
    const std::string limits = to_text(engine.expert_limits());
    model.fingerprint +=
        fmt::format("-lossy-{:016x}", checksum(std::as_bytes(std::span(limits)), 0).low);
  }
  if (engine.kv_form() != KvForm::kFloat32) {
    model.fingerprint += fmt::format("-lossy-kv{}", bits_of(engine.kv_form()));
  }
  if (engine.low_bits().is_on()) {
    const std::string identity = low_bits_identity(engine.files(), engine.low_bits());
    model.fingerprint +=
        fmt::format("-lossy-low-bits-{:016x}", checksum(std::as_bytes(std::span(identity)), 0).low);
  }
  if (settings.text("think") != "auto") model.thinking = settings.text("think") == "on";
  model.max_tokens_default = settings.integer("max-tokens");
  if (settings.is_given("reasoning-budget")) {
    model.reasoning_budget = settings.integer("reasoning-budget");
  }
  model.refuses_unknown_fields = settings.is_on("strict-fields");
  model.refuses_other_models = settings.is_on("strict-model");
  model.ping_interval_ms = static_cast<int>(settings.integer("sse-ping-interval") * 1000);
  model.json_ping_interval_ms = static_cast<int>(settings.integer("json-ping-interval") * 1000);
  const std::string& field = settings.text("reasoning-field");
  model.tells_reasoning = field != "reasoning";
  model.tells_reasoning_short = field != "reasoning_content";
  model.about = Json{{"id", engine.files().id_text()},
                     {"experts", engine.plan().num_experts},
                     {"experts_per_token", engine.experts_per_token()},
                     {"lossy", engine.is_lossy()},
                     {"layers", engine.config().num_hidden_layers},
                     {"hidden_size", engine.config().hidden_size}};
  return model;
}

// SIGTERM and Ctrl-C: the first lets answers end, the second ends them.
class Shutdown {
 public:
  Shutdown(Call& call, Server& server, Generator& generator)
      : call_(call),
        server_(server),
        generator_(generator),
        thread_([this](std::stop_token quit) { run(std::move(quit)); }) {}

  std::stop_token done() const { return done_.get_token(); }

 private:
  void run(std::stop_token quit) {
    constexpr auto kForever = std::chrono::hours(24 * 365);
    if (!wait_for_stop(call_.interrupt.token(), quit, kForever)) return;
    call_.terminal.note("shutting down: running answers end first; once more ends them now");
    call_.interrupt.begin();
    server_.drain();
    const auto limit = std::chrono::seconds(call_.settings.integer("drain-timeout"));
    const auto end = std::chrono::steady_clock::now() + limit;
    const std::stop_token second = call_.interrupt.token();
    while (!second.stop_requested() && !quit.stop_requested() && !server_.wait_idle(50ms)) {
      if (limit.count() > 0 && std::chrono::steady_clock::now() > end) break;
    }
    generator_.stop();
    server_.wait_idle(5s);
    done_.request_stop();
  }

  Call& call_;
  Server& server_;
  Generator& generator_;
  std::stop_source done_;
  std::jthread thread_;
};

}  // namespace

Result<int> serve_verb(Call& call) {
  ServerOptions options = PENSTOCK_TRY(server_options(call));
  Terminal& terminal = call.terminal;
  if (terminal.is_verbose()) {
    options.log = [&terminal](const std::string& line) { terminal.detail(line); };
  }
  EngineOptions engine_opts = PENSTOCK_TRY(engine_options(call));
  engine_opts.prefix_store = PENSTOCK_TRY(prefix_store_options(call));

  const std::unique_ptr<Server> server = PENSTOCK_TRY(Server::start(std::move(options)));
  const KeysOnHangup keys_on_hangup(call, *server);
  terminal.note("listening at " + server->address());

  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(
      call, engine_opts, [&](uint64_t done, uint64_t total) { server->set_loading(done, total); }));
  PENSTOCK_TRY(tokenizer_of(engine->texts()));
  const SamplingChoice sampling =
      PENSTOCK_TRY(choose_sampling(call.settings, engine->sampling_defaults()));
  tell_endless_answers(call, *engine, true);
  const std::vector<TokenId> stop_ids = all_stop_ids(*engine);
  ServedModel model = served_model(call, *engine, sampling.options, stop_ids);
  Constraints constraints(engine->texts(), stop_ids);
  model.constraints = &constraints;
  TurnMemory turns;
  model.turns = &turns;
  std::atomic<uint64_t> call_failures = 0;
  model.call_failures = &call_failures;
  model.tool_form = constraints.form();
  WarmStartTeller warm(call, *engine);
  if (warm.is_eager()) warm.read_all(call.interrupt.token());
  const auto generator = PENSTOCK_TRY(BatchGenerator::create(
      *engine, {.max_queue = static_cast<int>(call.settings.integer("max-queue")),
                .queue_timeout = std::chrono::seconds(call.settings.integer("queue-timeout")),
                .parallel = engine_opts.parallel,
                .idle_work = [&warm] { return warm.read_more(); },
                .tell = [&call](const std::string& news) { call.terminal.warning(news); }}));

  call.interrupt.set_policy(Interrupt::Policy::kPatient);
  server->set_ready(&model, generator.get());
  terminal.note(fmt::format("serving {} at {}", model.id, server->address()));
  {
    const Shutdown shutdown(call, *server, *generator);
    generator->run(shutdown.done());
  }
  server->stop();
  warm.save();
  return kExitDone;
}

}  // namespace penstock
