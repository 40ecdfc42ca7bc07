#include "cli/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "base/byte_text.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "dialogue/conversation.h"
#include "engine/engine.h"

namespace penstock {
namespace {

constexpr uint64_t kCalibrationBytesMax = uint64_t{256} << 20;
constexpr int64_t kWindowTokens = 1024;

using Window = std::vector<TokenId>;

Error wrong(const Call& call, const std::string& what) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("--calibrate {}: {}", call.settings.text("calibrate"), what)};
}

// A conversation as the model's template writes it, answers included.
Result<Window> tokens_of_messages(const ModelTexts& texts, const Json& line) {
  Conversation conversation;
  conversation.parse_special = true;
  conversation.messages = line.at("messages");
  if (const Json* tools = json_find(line, "tools")) conversation.tools = *tools;
  const ChatPrompt prompt = PENSTOCK_TRY(make_chat_prompt(texts, conversation));
  return prompt.tokens;
}

Result<std::vector<Window>> read_texts(Call& call, const ModelTexts& texts) {
  const std::string path = call.settings.text("calibrate");
  const std::string text = PENSTOCK_TRY(read_text(call.storage, path, kCalibrationBytesMax));
  const Tokenizer* tokenizer = PENSTOCK_TRY(tokenizer_of(texts));
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return wrong(call, "it holds no text");
  std::vector<Window> all;
  if (text[first] != '{') {
    all.push_back(tokenizer->encode(text));
    return all;
  }
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}", path, number);
    const Json json = PENSTOCK_TRY(parse_json(line, place));
    const Json* messages = json_find(json, "messages");
    if (messages != nullptr && messages->is_array()) {
      Result<Window> tokens = tokens_of_messages(texts, json);
      if (!tokens) return tokens.error().with_context(place);
      all.push_back(*std::move(tokens));
    } else {
      all.push_back(tokenizer->encode(PENSTOCK_TRY(json_string(json, "text", place))));
    }
  }
  return all;
}

// Windows of at most `length` tokens, evenly chosen from all so that they have about `wanted`.
std::vector<Window> windows_of(const std::vector<Window>& texts, int64_t length, int64_t wanted) {
  std::vector<Window> all;
  int64_t total = 0;
  for (const Window& text : texts) {
    for (int64_t begin = 0; begin < std::ssize(text); begin += length) {
      const int64_t count = std::min(length, std::ssize(text) - begin);
      all.emplace_back(text.begin() + begin, text.begin() + begin + count);
      total += count;
    }
  }
  if (wanted == 0 || total <= wanted) return all;
  std::vector<Window> chosen;
  int64_t seen = 0, taken = 0;
  for (Window& window : all) {
    seen += std::ssize(window);
    if (static_cast<double>(taken) * static_cast<double>(total) >=
        static_cast<double>(seen) * static_cast<double>(wanted)) {
      continue;
    }
    taken += std::ssize(window);
    chosen.push_back(std::move(window));
  }
  return chosen;
}

Hash128 sum_of(const std::vector<Window>& windows) {
  RunningChecksum sum;
  for (const Window& window : windows) {
    const uint64_t size = window.size();
    sum.update(std::as_bytes(std::span(&size, 1)));
    sum.update(std::as_bytes(std::span(window)));
  }
  return sum.value();
}

Result<void> run(Call& call, Engine& engine, const std::vector<Window>& windows, uint64_t total,
                 Calibration& calibration) {
  Session session = PENSTOCK_TRY(engine.new_session());
  Progress progress(call.terminal, "calibrating", Progress::Unit::kItems);
  const auto see = [&](int64_t layer, const Routing& routing, Rows inputs) {
    calibration.add(layer, routing, inputs);
  };
  uint64_t done = 0;
  for (const Window& window : windows) {
    progress.update(done, total);
    PENSTOCK_TRY(session.evaluate(
        window, [](int64_t, std::span<const float>) {}, see, call.interrupt.token()));
    done += window.size();
  }
  progress.update(done, total);
  progress.finish();
  return calibration.finish();
}

}  // namespace

Result<Calibration> calibrate(Call& call, const std::string& path) {
  EngineOptions options;
  options.model = call.argument(0);
  options.threads = static_cast<int>(call.settings.integer("threads"));
  {
    const ModelFiles files = PENSTOCK_TRY(open_model(call.storage, options.model));
    options.context = std::min(kWindowTokens, files.config.context_max());
  }
  options.checksum_file = checksum_file_of(call, options.model);
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const std::vector<Window> windows =
      windows_of(PENSTOCK_TRY(read_texts(call, engine->texts())), options.context,
                 call.settings.integer("calibrate-tokens"));
  uint64_t total = 0;
  for (const Window& window : windows) total += window.size();
  if (total == 0) return wrong(call, "it holds no text");
  const ModelConfig& config = engine->config();
  const CalibrationShape shape = {.num_layers = config.num_expert_layers(),
                                  .num_experts = config.num_experts,
                                  .hidden_size = config.hidden_size,
                                  .top_k = engine->experts_per_token(),
                                  .tokens = static_cast<int64_t>(total)};
  call.terminal.note(
      fmt::format("calibrating with {} tokens; what {} layers of experts see takes {} in {}", total,
                  shape.num_layers, format_bytes(shape.bytes()), path));
  Calibration made = PENSTOCK_TRY(Calibration::create(call.storage, path, shape, sum_of(windows)));
  PENSTOCK_TRY(run(call, *engine, windows, total, made));
  return made;
}

}  // namespace penstock
